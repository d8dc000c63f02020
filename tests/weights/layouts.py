"""Files of weights as others write them: names and shapes from their documentation alone.

Nothing here comes from our networks, so that what reads these files is not tested against itself.
Tensors are random; a name always gives the same ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

DIMS = {"b0": (32, 64, 160, 256), "b5": (64, 128, 320, 512)}
DEPTHS = {"b0": (2, 2, 2, 2), "b5": (3, 6, 40, 3)}
REDUCTIONS = (8, 4, 2, 1)
NUM_CLASSES = 19
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def pair(name: str, *weight: int) -> Shapes:
    """A layer's weight, and its bias of as many values as there are outputs."""
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def batch_norm(name: str, channels: int) -> Shapes:
    statistics = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return pair(name, channels) | statistics | {f"{name}.num_batches_tracked": ()}


def mit(size: str) -> Shapes:
    """`mit_b*.pth` without its classifier."""
    shapes: Shapes = {}
    before = 3
    for stage, (dim, depth) in enumerate(zip(DIMS[size], DEPTHS[size], strict=True), start=1):
        kernel, reduction = (7 if stage == 1 else 3), REDUCTIONS[stage - 1]
        shapes |= pair(f"patch_embed{stage}.proj", dim, before, kernel, kernel)
        shapes |= pair(f"patch_embed{stage}.norm", dim)
        for number in range(depth):
            block = f"block{stage}.{number}"
            shapes |= pair(f"{block}.norm1", dim) | pair(f"{block}.attn.q", dim, dim)
            shapes |= pair(f"{block}.attn.kv", 2 * dim, dim) | pair(f"{block}.attn.proj", dim, dim)
            if reduction > 1:
                shapes |= pair(f"{block}.attn.sr", dim, dim, reduction, reduction)
                shapes |= pair(f"{block}.attn.norm", dim)
            shapes |= pair(f"{block}.norm2", dim) | pair(f"{block}.mlp.fc1", 4 * dim, dim)
            shapes |= pair(f"{block}.mlp.dwconv.dwconv", 4 * dim, 1, 3, 3)
            shapes |= pair(f"{block}.mlp.fc2", dim, 4 * dim)
        shapes |= pair(f"norm{stage}", dim)
        before = dim
    return shapes


def conv_bn(name: str, *weight: int) -> Shapes:
    return {f"{name}.conv.weight": weight} | batch_norm(f"{name}.bn", weight[0])


def embeddings(size: str, channels: int) -> Shapes:
    shapes: Shapes = {}
    for level, dim in enumerate(DIMS[size]):
        shapes |= pair(f"embed_layers.{level}.proj", channels, dim)
    return shapes


def daformer_head(size: str, channels: int) -> Shapes:
    shapes = pair("conv_seg", NUM_CLASSES, channels, 1, 1) | embeddings(size, channels)
    shapes |= conv_bn("fuse_layer.aspp_modules.0", channels, 4 * channels, 1, 1)
    for branch in (1, 2, 3):
        name = f"fuse_layer.aspp_modules.{branch}"
        shapes |= conv_bn(f"{name}.depthwise_conv", 4 * channels, 1, 3, 3)
        shapes |= conv_bn(f"{name}.pointwise_conv", channels, 4 * channels, 1, 1)
    return shapes | conv_bn("fuse_layer.bottleneck", channels, 4 * channels, 3, 3)


def scale_attention(size: str, channels: int) -> Shapes:
    shapes = pair("conv_seg", NUM_CLASSES, channels, 1, 1) | embeddings(size, channels)
    return shapes | conv_bn("fuse_layer", channels, 4 * channels, 1, 1)


def daformer(size: str, channels: int) -> Shapes:
    """The network within a checkpoint of DAFormer."""
    return under("backbone.", mit(size)) | under("decode_head.", daformer_head(size, channels))


def hrda(size: str, channels: int) -> Shapes:
    """The network within a checkpoint of HRDA, or of MIC on it."""
    head = under("decode_head.head.", daformer_head(size, channels))
    attention = under("decode_head.scale_attention.", scale_attention(size, channels))
    return under("backbone.", mit(size)) | head | attention


def segformer(size: str, channels: int) -> Shapes:
    """The original SegFormer, with the classifier that nothing reads."""
    head = pair("conv_seg", NUM_CLASSES, 128, 1, 1)
    for level, dim in enumerate(DIMS[size], start=1):
        head |= pair(f"linear_c{level}.proj", channels, dim)
    head |= conv_bn("linear_fuse", channels, 4 * channels, 1, 1)
    head |= pair("linear_pred", NUM_CLASSES, channels, 1, 1)
    return under("backbone.", mit(size)) | under("decode_head.", head)


def hugging_face_encoder(size: str) -> Shapes:
    """`nvidia/mit-b*` without its classifier."""
    shapes: Shapes = {}
    before = 3
    for stage, (dim, depth) in enumerate(zip(DIMS[size], DEPTHS[size], strict=True)):
        kernel = 7 if stage == 0 else 3
        shapes |= pair(f"patch_embeddings.{stage}.proj", dim, before, kernel, kernel)
        shapes |= pair(f"patch_embeddings.{stage}.layer_norm", dim)
        for number in range(depth):
            block, reduction = f"block.{stage}.{number}", REDUCTIONS[stage]
            attention = f"{block}.attention.self"
            for part in ("query", "key", "value"):
                shapes |= pair(f"{attention}.{part}", dim, dim)
            if reduction > 1:
                shapes |= pair(f"{attention}.sr", dim, dim, reduction, reduction)
                shapes |= pair(f"{attention}.layer_norm", dim)
            shapes |= pair(f"{block}.attention.output.dense", dim, dim)
            shapes |= pair(f"{block}.layer_norm_1", dim) | pair(f"{block}.layer_norm_2", dim)
            shapes |= pair(f"{block}.mlp.dense1", 4 * dim, dim)
            shapes |= pair(f"{block}.mlp.dwconv.dwconv", 4 * dim, 1, 3, 3)
            shapes |= pair(f"{block}.mlp.dense2", dim, 4 * dim)
        shapes |= pair(f"layer_norm.{stage}", dim)
        before = dim
    return under("segformer.encoder.", shapes)


def hugging_face(size: str, channels: int) -> Shapes:
    """`segformer-b*-finetuned-cityscapes`."""
    head: Shapes = {"linear_fuse.weight": (channels, 4 * channels, 1, 1)}
    for level, dim in enumerate(DIMS[size]):
        head |= pair(f"linear_c.{level}.proj", channels, dim)
    head |= batch_norm("batch_norm", channels) | pair("classifier", NUM_CLASSES, channels, 1, 1)
    return hugging_face_encoder(size) | under("decode_head.", head)


def mmsegmentation_mit(size: str) -> Shapes:
    """MixVisionTransformer of mmsegmentation from 0.20 on, within a segmentor, with its head."""
    shapes: Shapes = {}
    before = 3
    for stage, (dim, depth) in enumerate(zip(DIMS[size], DEPTHS[size], strict=True)):
        kernel = 7 if stage == 0 else 3
        shapes |= pair(f"layers.{stage}.0.projection", dim, before, kernel, kernel)
        shapes |= pair(f"layers.{stage}.0.norm", dim)
        for number in range(depth):
            block, reduction = f"layers.{stage}.1.{number}", REDUCTIONS[stage]
            shapes |= pair(f"{block}.norm1", dim) | pair(f"{block}.norm2", dim)
            shapes[f"{block}.attn.attn.in_proj_weight"] = (3 * dim, dim)
            shapes[f"{block}.attn.attn.in_proj_bias"] = (3 * dim,)
            shapes |= pair(f"{block}.attn.attn.out_proj", dim, dim)
            if reduction > 1:
                shapes |= pair(f"{block}.attn.sr", dim, dim, reduction, reduction)
                shapes |= pair(f"{block}.attn.norm", dim)
            shapes |= pair(f"{block}.ffn.layers.0", 4 * dim, dim, 1, 1)
            shapes |= pair(f"{block}.ffn.layers.1", 4 * dim, 1, 3, 3)
            shapes |= pair(f"{block}.ffn.layers.4", dim, 4 * dim, 1, 1)
        shapes |= pair(f"layers.{stage}.2", dim)
        before = dim
    head = pair("conv_seg", NUM_CLASSES, 256, 1, 1) | conv_bn("convs.0", 256, DIMS[size][0], 1, 1)
    return under("backbone.", shapes) | under("decode_head.", head)


def smp(size: str) -> Shapes:
    """A model of segmentation_models_pytorch."""
    decoder = {"mlp_stage.0.linear.weight": (256, DIMS[size][0])}
    head = under("segmentation_head.", pair("0", 1, 256, 1, 1))
    return under("encoder.", mit(size)) | under("decoder.", decoder) | head


def bottlenecks(depth: int) -> Shapes:
    """layer1 to layer4 of a ResNet."""
    shapes: Shapes = {}
    before = 64
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        width = 32 * 2**stage
        for number in range(blocks):
            block = f"layer{stage}.{number}"
            shapes[f"{block}.conv1.weight"] = (width, before, 1, 1)
            shapes[f"{block}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{block}.conv3.weight"] = (4 * width, width, 1, 1)
            for norm, channels in (("bn1", width), ("bn2", width), ("bn3", 4 * width)):
                shapes |= batch_norm(f"{block}.{norm}", channels)
            if number == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * width, before, 1, 1)
                shapes |= batch_norm(f"{block}.downsample.1", 4 * width)
            before = 4 * width
    return shapes


def resnet_v1c(depth: int) -> Shapes:
    """ResNetV1c of mmsegmentation."""
    stem: Shapes = {}
    for conv, (channels, before) in zip((0, 3, 6), ((32, 3), (32, 32), (64, 32)), strict=True):
        stem[f"stem.{conv}.weight"] = (channels, before, 3, 3)
        stem |= batch_norm(f"stem.{conv + 1}", channels)
    return stem | bottlenecks(depth)


def deeplabv2(depth: int) -> Shapes:
    """The network within a checkpoint of DAFormer's code with DeepLabV2."""
    head: Shapes = {}
    for branch in (0, 1):
        head |= pair(f"aspp_modules.{branch}.conv", NUM_CLASSES, 2048, 3, 3)
    return under("backbone.", resnet_v1c(depth)) | under("decode_head.", head)


def caffe(depth: int, heads: Mapping[str, int]) -> Shapes:
    """DeepLabV2 of AdaptSegNet, ADVENT and DACS; `heads` are their names and input channels."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)}
    shapes |= batch_norm("bn1", 64) | bottlenecks(depth)
    for name, channels in heads.items():
        for branch in range(4):
            shapes |= pair(f"{name}.conv2d_list.{branch}", NUM_CLASSES, channels, 3, 3)
    return shapes


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """Random values that keep activations finite; they follow from `name`."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(40000)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    noise = torch.randn(shape, generator=generator)
    if name.endswith("running_var"):
        return 1 + 0.2 * noise.abs()
    if len(shape) == 1:
        return 0.1 * noise + float(name.endswith("weight"))
    return noise / float(np.sqrt(np.prod(shape[1:])))


def tensors(shapes: Shapes) -> dict[str, Tensor]:
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def training_checkpoint(network: Shapes, *, own_teacher: bool = False) -> dict[str, Any]:
    """As mmcv writes one of the DAFormer family: student, teacher, ImageNet network, the rest."""
    state = tensors(under("model.", network)) | tensors(under("ema_model.", network))
    state |= tensors(under("imnet_model.", network))
    if own_teacher:
        state |= tensors(under("mic.teacher.ema_model.", network))
    moments = {"step": 40000, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    return {
        "meta": {
            "env_info": "sys.platform: linux",
            "seed": 0,
            "CLASSES": ("road", "sidewalk"),
            "PALETTE": [[128, 64, 128], [244, 35, 232]],
            "iter": 40000,
            "best_score": np.float64(0.68),
            "scores": np.arange(3.0),
        },
        "state_dict": state,
        "optimizer": {"state": {0: moments}, "param_groups": [{"lr": 6e-5, "params": [0]}]},
    }
