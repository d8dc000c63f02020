"""DeepLabV2 as the papers of AdaptSegNet, ADVENT and DACS use it, written from its description.

A ResNet with a 7x7 stem and a pooling that rounds up; strides in the 1x1 convolutions; every block
of stages 3 and 4 dilated by 2 and 4; a sum of dilated 3x3 convolutions; logits upsampled with
corners aligned. It takes BGR less the mean, by functions over a state dict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BGR_MEAN = (104.00698793, 116.66876762, 122.67891434)


def logits(
    state: Mapping[str, Tensor], image: Tensor, head: str, dilations: Sequence[int]
) -> Tensor:
    """(B, 3, H, W) RGB in [0, 255] -> (B, C, H, W)."""
    bgr = image.float()[:, [2, 1, 0]] - torch.tensor(BGR_MEAN).view(3, 1, 1)
    features = F.conv2d(bgr, state["conv1.weight"], stride=2, padding=3)
    features = _norm(state, "bn1", features).relu()
    features = F.max_pool2d(features, 3, stride=2, padding=1, ceil_mode=True)
    for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), start=1):
        number = 0
        while f"layer{stage}.{number}.conv1.weight" in state:
            block = f"layer{stage}.{number}"
            features = _block(state, block, features, stride if number == 0 else 1, dilation)
            number += 1
    total = sum(
        F.conv2d(
            features,
            state[f"{head}.conv2d_list.{index}.weight"],
            state[f"{head}.conv2d_list.{index}.bias"],
            padding=dilation,
            dilation=dilation,
        )
        for index, dilation in enumerate(dilations)
    )
    assert isinstance(total, Tensor)
    return F.interpolate(total, image.shape[-2:], mode="bilinear", align_corners=True)


def _block(
    state: Mapping[str, Tensor], name: str, features: Tensor, stride: int, dilation: int
) -> Tensor:
    inner = F.conv2d(features, state[f"{name}.conv1.weight"], stride=stride)
    inner = _norm(state, f"{name}.bn1", inner).relu()
    inner = F.conv2d(inner, state[f"{name}.conv2.weight"], padding=dilation, dilation=dilation)
    inner = _norm(state, f"{name}.bn2", inner).relu()
    inner = _norm(state, f"{name}.bn3", F.conv2d(inner, state[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in state:
        features = F.conv2d(features, state[f"{name}.downsample.0.weight"], stride=stride)
        features = _norm(state, f"{name}.downsample.1", features)
    return (inner + features).relu()


def _norm(state: Mapping[str, Tensor], name: str, features: Tensor) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(features, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])
