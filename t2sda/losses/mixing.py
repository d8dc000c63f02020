"""ClassMix: paste half of the source's classes onto the target image.

Half of n classes is ceil(n / 2), drawn for each image, and IGNORE_INDEX counts as a class, as in
DACS and DAFormer. The pool is the classes of the whole batch, as in DAFormer, or of each image, as
in DACS (docs/fidelity.md, A1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from t2sda.losses.numerics import uniform
from t2sda.structures import IGNORE_INDEX

CLASS_POOLS = ("batch", "image")
NUM_IDS = IGNORE_INDEX + 1


def present_classes(labels: Tensor, pool: str = "batch") -> Tensor:
    """The classes each image may paste; ranks with pool "batch" `or` theirs.

    Args:
        labels: (B, H, W) int64 source labels in [0, 255].
        pool: "batch" or "image".
    Returns:
        (B, 256) bool.
    """
    if pool not in CLASS_POOLS:
        raise ValueError(f"ClassMix pool is '{pool}'; known: {', '.join(CLASS_POOLS)}")
    present = torch.zeros(len(labels), NUM_IDS, dtype=torch.bool, device=labels.device)
    present.scatter_(1, labels.flatten(1), True)
    return present if pool == "image" else present.any(dim=0).expand(len(labels), -1)


def draw_pasted_classes(present: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 256) bool: a random ceil(n / 2) of the n classes present, for each image.

    Ranks draw for all images of the mini-batch and take the rows of their own.
    """
    # Random keys lie in [0, 1), so absent classes come last and those present in random order.
    keys = uniform(tuple(present.shape), generator, present.device).masked_fill(~present, 2.0)
    # The argsort of an argsort is the rank of each class in that order.
    rank = keys.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < (present.sum(dim=1, keepdim=True) + 1) // 2


def pasted_pixels(labels: Tensor, pasted_classes: Tensor) -> Tensor:
    """(B, H, W) bool: where the label is one of its image's pasted classes."""
    return pasted_classes.gather(1, labels.flatten(1)).view_as(labels)


def class_mix(source: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Source where `mask`, target elsewhere; for images, labels and weights alike.

    Args:
        source, target: (B, H, W) or (B, channels, H, W), of one shape.
        mask: (B, H, W) bool.
    Raises:
        ValueError: if source and target differ in shape.
    """
    if source.shape != target.shape:
        raise ValueError(
            f"ClassMix needs images of one shape, but the source is {tuple(source.shape)} and the "
            f"target {tuple(target.shape)}; crop both alike"
        )
    return torch.where(mask if source.ndim == 3 else mask[:, None], source, target)


def mixed_pixel_weight(mask: Tensor, quality: Tensor, valid: Tensor) -> Tensor:
    """The weight q of Eq. (S1) for every pixel of the mixed image.

    Source pixels weigh 1, target pixels q, and 0 where pseudo-labels do not count
    (docs/fidelity.md, A1).

    Args:
        mask: (B, H, W) bool, True where the source was pasted.
        quality: scalar, or (B,) for one q an image.
        valid: (B, H, W) bool, the target's own.
    Returns:
        (B, H, W) in the dtype of quality.
    """
    target_weight = quality.view(-1, 1, 1) * valid
    return torch.where(mask, torch.ones_like(target_weight), target_weight)
