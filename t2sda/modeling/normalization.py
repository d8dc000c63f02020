"""BatchNorm as MODEL.NORM asks for it: trained, or kept at what the weights file brought.

Trained BatchNorm means the statistics of the whole mini-batch: with several ranks they are taken
over all of them, as in a single process.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2sda.distributed import differentiable_sum_over_ranks
from t2sda.errors import UserError
from t2sda.losses.numerics import at_least_float32

NormKind = Literal["batch", "frozen", "frozen_affine"]
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


def set_norm(module: nn.Module, kind: NormKind) -> nn.Module:
    """Make every BatchNorm in `module` of one kind; call it after the weights are loaded.

    Args:
        module: changed in place where a BatchNorm is a child.
        kind: "batch" leaves all as it is; "frozen" puts a FrozenBatchNorm2d in each one's place;
            "frozen_affine" trains neither scale nor shift, and the statistics go on.

    Returns:
        `module`, or its replacement if it is itself a BatchNorm.
    """
    if kind == "batch":
        return module
    if isinstance(module, nn.BatchNorm2d):
        if kind == "frozen":
            return FrozenBatchNorm2d(module)
        module.requires_grad_(False)
    for name, child in module.named_children():
        setattr(module, name, set_norm(child, kind))
    return module


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm with constant statistics and constant scale and shift, in training too.

    The names in the state dict are those of the BatchNorm it replaces without
    `num_batches_tracked`, which has no meaning here: either kind loads the other's, strictly.
    timm's BatchNormAct2d ends in dropout and an activation; both are kept.

    Args:
        norm: the BatchNorm to replace; its tensors are taken over.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        if norm.running_mean is None:
            raise UserError(
                "MODEL.NORM: this network's BatchNorm keeps no statistics that could be frozen; "
                "set it to 'batch'"
            )
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(norm, name)
            self.register_buffer(name, None if value is None else value.detach().clone())
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.train(norm.training)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, h, w)."""
        # The library's function, not scale and shift by hand: it keeps bfloat16 activations
        # bfloat16 under autocast and becomes one foldable node in ONNX.
        normalised = F.batch_norm(
            features,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )
        return self.act(self.drop(normalised))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        counter = prefix + "num_batches_tracked"
        kept = {name: value for name, value in state_dict.items() if name != counter}
        super()._load_from_state_dict(kept, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"{len(self.running_mean)}, eps={self.eps}"


@contextmanager
def single_values_named(module: nn.Module, image_size: Sequence[int]) -> Iterator[None]:
    """Within it, a norm of `module` that gets one value to take statistics of is named.

    Args:
        module: whose norms they are.
        image_size: (height, width) of the images that it is shown.
    Raises:
        UserError: in place of torch's ValueError.
    """
    try:
        yield
    except ValueError as error:
        norm = _raised_in(error)
        if norm is None or "more than 1" not in str(error):
            raise
        name = next((name for name, own in module.named_modules() if own is norm), "a norm")
        raise UserError(
            f"{name} ({type(norm).__name__}) has a single value to take statistics of "
            f"({error}): too few images at once, and images of {image_size[0]}x{image_size[1]} "
            f"pixels come down to one cell there. Raise DATA.CROP_SIZE, or SOLVER.BATCH_SIZE "
            f"divided by SOLVER.ACCUMULATION"
        ) from None


def _raised_in(error: ValueError) -> nn.Module | None:
    """The norm whose forward raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    callers = (frame.f_locals.get("self") for frame in reversed(frames))
    innermost = next((caller for caller in callers if isinstance(caller, nn.Module)), None)
    return innermost if isinstance(innermost, _NORMS) else None


def share_statistics(module: nn.Module) -> nn.Module:
    """Make every BatchNorm of `module` take its statistics over all ranks; keys stay as they are.

    Called where there are several ranks; in place, as `set_norm`.
    """
    if isinstance(module, nn.BatchNorm2d):
        return WholeBatchNorm2d(module)
    for name, child in module.named_children():
        setattr(module, name, share_statistics(child))
    return module


class WholeBatchNorm2d(nn.Module):
    """BatchNorm over the mini-batch of all ranks, on any device (torch's own needs a GPU).

    Mean and variance are summed over the ranks one after the other, so that the variance does not
    suffer from cancellation; gradients flow through both sums.

    Args:
        norm: the BatchNorm to replace; parameters, buffers, and timm's dropout and activation are
            taken over.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.affine, "BatchNorm without scale and shift"
        assert norm.momentum is not None, "BatchNorm with a cumulative average"
        self.eps = norm.eps
        self.momentum = norm.momentum
        self.track_running_stats = norm.track_running_stats
        self.weight = norm.weight
        self.bias = norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.train(norm.training)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, h, w)."""
        if not self.training:
            normalised = F.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return self.act(self.drop(normalised))
        centred, variance = self._whole_batch_moments(at_least_float32(features))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised = centred * scale[:, None, None] + self.bias[:, None, None]
        return self.act(self.drop(normalised.to(features.dtype)))

    def _whole_batch_moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Centred features (B, D, h, w) and the biased variance (D,), over all ranks."""
        count = features.new_tensor([features.numel() / features.shape[1]])
        total = differentiable_sum_over_ranks(torch.cat([features.sum((0, 2, 3)), count]))
        count, mean = total[-1].detach(), total[:-1] / total[-1].detach()
        centred = features - mean[:, None, None]
        variance = differentiable_sum_over_ranks(centred.square().sum((0, 2, 3))) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        return centred, variance

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"{len(self.running_mean)}, eps={self.eps}, momentum={self.momentum}"


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a feature map."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) → (B, D, h, w)."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
