"""Building timm's `features_only` networks, and finding out what they are before that."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from t2sda.errors import UserError
from t2sda.modeling.backbones.timm_import import import_timm
from t2sda.modeling.meta_device import on_meta_device
from t2sda.registry import nearest_first
from t2sda.structures import FeatureSpec

DEFAULT_STRIDES = (4, 8, 16, 32)


def create_timm_network(timm_name: str, **options: Any) -> nn.Module:
    """A network of timm with random weights; nothing is downloaded.

    Raises:
        UserError: if timm has no such network, or it does not take these options.
    """
    timm = import_timm()
    if not timm.is_model(timm_name):
        nearest = ", ".join(nearest_first(timm_name, timm.list_models())[:5])
        raise UserError(
            f"MODEL.BACKBONE.TIMM_NAME: timm {timm.__version__} has no network called "
            f"'{timm_name}'; nearest: {nearest}"
        )
    try:
        return timm.create_model(timm_name, pretrained=False, **options)
    except (RuntimeError, TypeError, AssertionError, AttributeError, IndexError) as error:
        given = ", ".join(f"{name}={value}" for name, value in options.items())
        raise UserError(
            f"MODEL.BACKBONE.TIMM_NAME: timm cannot build '{timm_name}' with {given}: "
            f"{str(error) or type(error).__name__}"
        ) from error


def create_on_meta(timm_name: str, **options: Any) -> nn.Module:
    """The same network without memory or random numbers: names and shapes only."""
    with on_meta_device():
        return create_timm_network(timm_name, **options)


def feature_specs_of(net: Any) -> tuple[FeatureSpec, ...]:
    """Channels and stride of every level, as timm states them."""
    info = net.feature_info
    pairs = zip(info.channels(), info.reduction(), strict=True)
    return tuple(FeatureSpec(channels, stride) for channels, stride in pairs)


def with_offsets(
    specs: tuple[FeatureSpec, ...], net: nn.Module, pads_to: int
) -> tuple[FeatureSpec, ...]:
    """The levels with the offsets of their cells, which follow from how the network pads.

    Args:
        specs: of `net`.
        pads_to: see `padding_multiple`; a network that needs padding cuts images into patches.
    """
    pads_like_tensorflow = any(
        isinstance(module, import_timm().layers.Conv2dSame) for module in net.modules()
    )
    share = 0.5 if pads_to > 1 else float(pads_like_tensorflow)
    return tuple(replace(spec, offset=share * (spec.stride - 1)) for spec in specs)


def ceil_div(size: int, stride: int | Fraction) -> int:
    """How many cells of `stride` pixels cover `size` pixels."""
    # Of integers alone, also for a fraction: graphs of any size hold it as it is.
    pixels, cells = stride.numerator, stride.denominator
    return (size * cells + pixels - 1) // pixels


def default_levels(timm_name: str) -> tuple[int, ...]:
    """Timm's numbers of the levels of DEFAULT_STRIDES.

    Raises:
        UserError: unless the network has exactly one level of each.
    """
    net: Any = create_on_meta(timm_name, features_only=True)
    strides = net.feature_info.reduction()
    wanted = [
        (stride, index)
        for stride, index in zip(strides, net.feature_info.out_indices, strict=True)
        if stride in DEFAULT_STRIDES
    ]
    if tuple(stride for stride, _ in wanted) != DEFAULT_STRIDES:
        raise UserError(
            f"MODEL.BACKBONE.TIMM_NAME: '{timm_name}' is no feature pyramid of strides "
            f"{DEFAULT_STRIDES}, its levels have {tuple(strides)}; choose one such as a ResNet, "
            f"ConvNeXt or EfficientNet, or the levels with MODEL.BACKBONE.OUT_INDICES"
        )
    return tuple(index for _, index in wanted)


def padding_multiple(timm_name: str, out_indices: tuple[int, ...], **options: Any) -> int:
    """Multiple that image sizes must be padded to: 1 if the network rounds its grids up itself.

    Found by asking: shapes for a fitting and for an odd size are computed on torch's meta device.

    Raises:
        UserError: if these levels are no pyramid, finest first, on any size of image.
    """
    net = create_on_meta(timm_name, features_only=True, out_indices=out_indices, **options).eval()
    specs = feature_specs_of(net)
    strides = [spec.stride for spec in specs]
    dilated = "output_stride" in options  # then the last strides repeat
    if strides != sorted(strides if dilated else set(strides)):
        raise UserError(
            f"MODEL.BACKBONE.OUT_INDICES: levels {out_indices} of '{timm_name}' have the strides "
            f"{tuple(strides)}; a pyramid needs each once, the finest first"
        )
    size = 2 * int(strides[-1])
    found, reason = _output_shapes(net, size)
    if found != _expected_shapes(specs, size):
        raise UserError(
            f"MODEL.BACKBONE.TIMM_NAME: '{timm_name}' is no convolutional feature pyramid for any "
            f"size of image: with {size}x{size} pixels, expected features of "
            f"{_expected_shapes(specs, size)}, found {found or reason}"
        )
    odd, _ = _output_shapes(net, size + 1)
    return 1 if odd == _expected_shapes(specs, size + 1) else int(strides[-1])


def _expected_shapes(specs: tuple[FeatureSpec, ...], size: int) -> list[tuple[int, ...]]:
    sides = [(spec.channels, ceil_div(size, spec.stride)) for spec in specs]
    return [(1, channels, side, side) for channels, side in sides]


def _output_shapes(net: nn.Module, size: int) -> tuple[list[tuple[int, ...]], str]:
    """Shapes of all levels for a square image, or none and why the network refused it."""
    try:
        features = net(torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        return [], str(error).partition("\n")[0]
    return [tuple(level.shape) for level in features], ""
