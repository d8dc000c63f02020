"""The records that flow through a training step (who writes a field is said beside it)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from t2sda.constants import IGNORE_INDEX as IGNORE_INDEX  # for whoever has torch already


@dataclass(frozen=True)
class FeatureSpec:
    """One level of a backbone's pyramid."""

    channels: int
    stride: int | Fraction
    """Input pixels from one cell to the next; a fraction where the network sees them resampled."""
    offset: float = 0.0
    """Input pixels from the first pixel to the centre of the first cell, down and to the right.

    0 for symmetric padding (MiT, ResNet), (stride - 1) / 2 where images are cut into patches,
    stride - 1 for TensorFlow's SAME padding; for images whose sides are multiples of the stride.
    """

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of cells that cover an image of `size` (height, width)."""
        pixels, cells = self.stride.numerator, self.stride.denominator
        height, width = (-(-side * cells // pixels) for side in size)
        return height, width

    def shown_at(self, scale: float) -> FeatureSpec:
        """The level in pixels of an image that the network is shown at `scale` of its size."""
        offset = (self.offset + 0.5) / scale - 0.5  # pixels are areas; their centres lie at 0.5
        return FeatureSpec(self.channels, round(self.stride / scale), offset)


class HiddenTokens(NamedTuple):
    """Which tokens a backbone does not see, handed to `Backbone.forward` by a pass."""

    mask: Tensor
    """(B, h, w) bool on the grid of `Backbone.tokens`, True where hidden."""
    token: Tensor
    """(D,), what stands there instead."""


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
    target_label: Tensor | None = None
    """(B, H, W) int64 train ids of a target set that carries labels: pseudo-labels made offline, or
    true ones for an oracle; same crop and flip as target_image."""

    def image(self, which: str | ImageOf) -> Tensor:
        """The field `<which>_image`, or what a function makes of the batch; (B, 3, H, W)."""
        image = which(self) if callable(which) else getattr(self, f"{which}_image")
        assert image is not None, f"this batch has no {which}_image; a pass that reads it says so"
        return image

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


ImageOf = Callable[[DomainBatch], Tensor]
"""Makes an image of its own from the batch, such as a mirrored target."""


class View(NamedTuple):
    """Something the teacher is asked for: one output on one image."""

    image: str | ImageOf
    """"source", "target" or "translated", or a function of the batch, whose fields are declared."""
    output: str
    """"embeddings": (B, D, h, w) of the projector; "probs": (B, C, H, W) softmax of the logits."""

    @property
    def image_name(self) -> str:
        """The image in words, the same on every rank."""
        return self.image if isinstance(self.image, str) else self.image.__qualname__

    def __str__(self) -> str:
        return f"{self.output} of the {self.image_name} image"


TARGET_PROBS = View("target", "probs")


@dataclass(frozen=True)
class TeacherOutput:
    """What the teacher saw, without gradients: exactly the views that passes and hooks declared.

    Args:
        views: outputs by view.
    """

    views: Mapping[View, Tensor]

    def __getitem__(self, view: View) -> Tensor:
        """The output of a view that was declared."""
        assert view in self.views, (
            f"the teacher was not asked for the {view}; declare {view!r} in `reads`"
        )
        return self.views[view]

    @cached_property
    def confidence(self) -> Tensor:
        """(B, H, W) largest class probability of every target pixel."""
        return self[TARGET_PROBS].amax(dim=1)

    @cached_property
    def pseudo_labels(self) -> Tensor:
        """(B, H, W) int64, the most probable class of every target pixel."""
        return self[TARGET_PROBS].argmax(dim=1)


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
    micro_steps: int = 1  # Trainer; how many the iteration has
    teacher: TeacherOutput | None = None  # Trainer, from meta_arch.teach
    # What a pass computed for later ones, detached: its `provides`, read by those that declare it.
    shared: dict[str, Tensor] = field(default_factory=dict)
    # At most one re-weighting hook writes one of the two; (C,), sums to 1.
    class_weights: Tensor | None = None  # w* of the pull loss, Eq. (3)
    target_class_weights: Tensor | None = None  # of L_target, in place of w*
    losses: dict[str, Tensor] = field(default_factory=dict)  # Trainer
    metrics: dict[str, float] = field(default_factory=dict)  # Trainer; hooks, own prefix
    # Scalars that stay on the device until MetricsHook writes them: no step waits for them.
    deferred_metrics: dict[str, Tensor] = field(default_factory=dict)  # hooks, own prefix

    @property
    def is_last_micro_step(self) -> bool:
        """Whether the optimizers step after this micro-batch: when running state is updated."""
        return self.micro_step == self.micro_steps - 1

    def add_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Record the losses of a pass, detached; a name that exists already is our own bug."""
        for name, value in losses.items():
            assert name not in self.losses, f"two passes write the loss '{name}'"
            self.losses[name] = value.detach()
