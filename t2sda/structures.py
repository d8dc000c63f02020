"""The records that flow through a training step (who writes a field is said beside it)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from t2sda.constants import IGNORE_INDEX as IGNORE_INDEX  # for whoever has torch already


@dataclass(frozen=True)
class FeatureSpec:
    """One level of a backbone's pyramid: its channels and its stride in input pixels."""

    channels: int
    stride: int


@dataclass(frozen=True)
class DomainBatch:
    """What the loader hands over; final, nothing changes it afterwards."""

    source_image: Tensor
    """(B, 3, H, W) uint8 RGB."""
    source_label: Tensor
    """(B, H, W) int64 train ids, IGNORE_INDEX where unlabelled."""
    translated_image: Tensor | None = None
    """(B, 3, H, W) float32, unclipped T(x^s); same crop and flip as source_image."""
    target_image: Tensor | None = None
    """(B, 3, H, W) uint8 RGB; None without a target domain."""
    target_valid: Tensor | None = None
    """(B, H, W) bool: where pseudo-labels may count."""

    def to(self, device: torch.device) -> DomainBatch:
        """The same batch on `device`; copies overlap with computation where memory is pinned."""
        moved = {
            item.name: value.to(device, non_blocking=True)
            for item in fields(self)
            if (value := getattr(self, item.name)) is not None
        }
        return replace(self, **moved)

    def pin_memory(self) -> DomainBatch:
        """Called by the loader where the device is a GPU."""
        pinned = {
            item.name: value.pin_memory()
            for item in fields(self)
            if (value := getattr(self, item.name)) is not None
        }
        return replace(self, **pinned)

    def __len__(self) -> int:
        return len(self.source_image)


@dataclass(frozen=True)
class TeacherOutput:
    """What the teacher saw; without gradients, and only what the method asks for is computed."""

    source_embeddings: Tensor | None = None
    """(B, D, h, w) projector output on source images."""
    target_embeddings: Tensor | None = None
    """(B, D, h, w) projector output on target images."""
    translated_embeddings: Tensor | None = None
    """(B, D, h, w), for the pairings whose keys are pseudo-target."""
    target_probs: Tensor | None = None
    """(B, C, H, W) softmax of the teacher's logits on target images."""

    @property
    def confidence(self) -> Tensor:
        """(B, H, W) largest class probability of every target pixel."""
        return self._required_target_probs().amax(dim=1)

    @property
    def pseudo_labels(self) -> Tensor:
        """(B, H, W) int64, the most probable class of every target pixel."""
        return self._required_target_probs().argmax(dim=1)

    def _required_target_probs(self) -> Tensor:
        assert self.target_probs is not None, "the teacher was not asked for target_probs"
        return self.target_probs


@dataclass(frozen=True)
class RandomStreams:
    """Generators that belong to one micro-batch: one stream per consumer.

    A stream follows from (seed, iteration, micro_step, consumer) alone, never from the rank and
    never from what was drawn before, so a resumed run draws what an uninterrupted one draws.
    """

    seed: int
    iteration: int
    micro_step: int

    def seed_of(self, consumer: str) -> int:
        """A 63-bit seed for `consumer`."""
        text = f"{self.seed}/{self.iteration}/{self.micro_step}/{consumer}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1

    def generator(self, consumer: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator on `device`, at the beginning of the consumer's stream."""
        return torch.Generator(device=device).manual_seed(self.seed_of(consumer))


@dataclass
class Step:
    """The record of one micro-batch; every field has one writer."""

    iteration: int  # Trainer
    micro_step: int  # Trainer
    batch: DomainBatch  # Trainer
    streams: RandomStreams  # Trainer
    teacher: TeacherOutput | None = None  # Trainer, from meta_arch.teach
    # At most one re-weighting hook writes one of the two; (C,), sums to 1.
    class_weights: Tensor | None = None  # w* of the pull loss, Eq. (3)
    target_class_weights: Tensor | None = None  # of L_target, in place of w*
    losses: dict[str, Tensor] = field(default_factory=dict)  # Trainer
    metrics: dict[str, float] = field(default_factory=dict)  # Trainer; hooks, own prefix

    def add_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Record the losses of a pass, detached; a name that exists already is our own bug."""
        for name, value in losses.items():
            assert name not in self.losses, f"two passes write the loss '{name}'"
            self.losses[name] = value.detach()
