"""Convolutions padded as in TensorFlow, exported as what ONNX calls them.

timm's `Conv2dSame` pads by arithmetic on the size of its input. In a graph of any size this nests
with every layer that halves the image: torch takes minutes to simplify it for an
EfficientNet-lite0, and the file computes it for every image. ONNX has a name for that padding.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


@contextmanager
def same_padding_by_name(model: nn.Module) -> Iterator[None]:
    """Within it, every Conv2dSame of `model` is exported as one Conv node; it computes nothing.

    torch < 2.8 cannot name ONNX nodes: there nothing is changed, and exports take their time.
    """
    convolutions = [module for module in model.modules() if isinstance(module, _same_convs())]
    try:
        for module in convolutions:
            module.forward = partial(_symbolic_conv, module)  # type: ignore[method-assign]
        yield
    finally:
        for module in convolutions:
            module.__dict__.pop("forward", None)


def _same_convs() -> tuple[type[nn.Conv2d], ...]:
    """The class of timm, unless it is not imported (so nothing is of it) or torch is too old."""
    timm_layers = sys.modules.get("timm.layers")
    if timm_layers is None or not hasattr(torch.onnx, "ops"):
        return ()
    return (timm_layers.Conv2dSame,)


def _symbolic_conv(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """(B, D, H, W) -> (B, D', ceil(H / stride), ceil(W / stride)), for the exporter alone."""
    height, width = features.shape[-2:]
    rows, columns = conv.stride
    inputs = [features, conv.weight] + ([] if conv.bias is None else [conv.bias])
    return torch.onnx.ops.symbolic(
        "Conv",
        inputs,
        attrs={
            "auto_pad": "SAME_UPPER",
            "dilations": list(conv.dilation),
            "group": conv.groups,
            "kernel_shape": list(conv.kernel_size),
            "strides": list(conv.stride),
        },
        dtype=features.dtype,
        shape=(
            features.shape[0],
            conv.out_channels,
            (height + rows - 1) // rows,
            (width + columns - 1) // columns,
        ),
    )
