"""What a student pass keeps for its backward at the paper's sizes, counted without computing it.

The network is built on torch's meta device, where tensors have shapes and no numbers, and every
tensor that autograd saves is counted once; parameters are left out. Attention is taken for one of
the fused kernels, which keep its inputs, its output and a number for each query. What exists only
within an operation comes on top.

    python -m benchmarks.saved_memory
    python -m benchmarks.saved_memory MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS true
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import t2sda.builtin  # noqa: F401  (fills the registries)
from t2sda.config import load_config
from t2sda.modeling.meta_device import on_meta_device
from t2sda.modeling.segmentor import Features, SegmentationModel, build_segmentation_model

CONFIGS = {
    "DAFormer": "gta5_to_cityscapes/daformer_daformer_mit_b5.yaml",
    "HRDA": "gta5_to_cityscapes/daformer_hrda_mit_b5.yaml",
}
WITHOUT_WEIGHTS = ["MODEL.BACKBONE.WEIGHTS=", "FEATURE_DISTANCE.WEIGHT=0.0"]
NUM_CLASSES = 19


class FusedAttention(torch.autograd.Function):
    """Keeps what a fused kernel keeps."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Of the shape of `query`."""
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1]))
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Shapes alone."""
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def main() -> int:
    """Print a line for each kind of pass."""
    for name, config in CONFIGS.items():
        cfg = load_config(config, [*WITHOUT_WEIGHTS, *sys.argv[1:]])
        with on_meta_device(), attention_counted():
            model = build_segmentation_model(cfg, NUM_CLASSES).train()
            image = torch.empty(cfg.SOLVER.BATCH_SIZE, 3, *cfg.DATA.CROP_SIZE)
            for what, with_loss in (("pass with logits and loss", True), ("pull pass", False)):
                size = saved(model, image, with_loss=with_loss) / 2**30
                print(f"{name:<9} {what:<26} {size:5.1f} GiB")
    return 0


@contextmanager
def attention_counted() -> Iterator[None]:
    """Within it, attention keeps what a fused kernel keeps; its options change no size."""
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, key, value, **_: FusedAttention.apply(
        query, key, value
    )
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


def saved(model: SegmentationModel, image: Tensor, *, with_loss: bool) -> int:
    """Bytes that one pass keeps."""

    def run() -> Tensor:
        features: Features = model.features(image, torch.Generator().manual_seed(0))
        if not with_loss:
            return features.deepest
        labels = torch.zeros(len(image), *image.shape[2:], dtype=torch.long, device="meta")
        return model.loss(features, labels)

    return kept_bytes(model, run)


def kept_bytes(module: nn.Module, run: Callable[[], object]) -> int:
    """Bytes that a forward keeps for its backward; parameters of `module` are left out."""
    parameters = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in parameters:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = run()
    del found
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


if __name__ == "__main__":
    sys.exit(main())
