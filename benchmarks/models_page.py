"""Parameters and multiply-accumulates of every shipped model, as the page docs/models.md.

Counted by fvcore: convolutions, linear layers, and attention as its two matrix products, which it
does not know by itself. Norms and upsampling are left out, as in the field's tables.

    python -m benchmarks.models_page > docs/models.md
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn

import t2sda.builtin  # noqa: F401  (fills the registries)
from benchmarks import adapter_memory
from t2sda.config import load_config
from t2sda.modeling.segmentor import build_segmentation_model
from tests.references.plain_heads import PlainDAFormer, PlainLight, PlainSegFormer

ROOT = Path(__file__).parents[1]
SIZE = (512, 1024)
NUM_CLASSES = 19
PLAIN: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DAFormerHead": PlainDAFormer,
    "LightHead": PlainLight,
    "SegFormerHead": PlainSegFormer,
}
NOT_COUNTED = ("aten::batch_norm", "aten::layer_norm", "aten::upsample_bilinear2d")
TEXT = Path(__file__).with_name("models_page.md")


@dataclass(frozen=True)
class Model:
    """What the page says of a configuration in configs/models/."""

    name: str
    backbone: str
    head: str
    parameters: int
    head_parameters: int
    macs: float
    head_macs: float
    plain_head_macs: float | None
    """Of the same head in the order of its paper; None where the order is the same."""


def main() -> int:
    """Print the page."""
    print(page(), end="")
    return 0


def page() -> str:
    """The text around the tables, and the tables."""
    models = [measure(path) for path in sorted((ROOT / "configs/models").glob("*.yaml"))]
    text = TEXT.read_text(encoding="utf-8")
    text = text.replace("{models}", models_table(models)).replace("{savings}", savings(models))
    return text.replace("{adapters}", adapter_memory.table())


def measure(path: Path) -> Model:
    """Build the model and count."""
    cfg = load_config(str(path), ["MODEL.BACKBONE.WEIGHTS", ""])
    model = build_segmentation_model(cfg, NUM_CLASSES).eval()
    image = torch.zeros(1, 3, *SIZE)
    with torch.no_grad():
        features = model.backbone(image)
    plain = PLAIN.get(cfg.MODEL.HEAD.NAME)
    return Model(
        name=path.stem,
        backbone=backbone_name(cfg),
        head=cfg.MODEL.HEAD.NAME,
        parameters=parameters(model),
        head_parameters=parameters(model.head),
        macs=macs(model, image),
        head_macs=macs(model.head, features),
        plain_head_macs=None if plain is None else macs(plain(model.head), features),
    )


def backbone_name(cfg: CfgNode) -> str:
    """The backbone's name with the setting that says its size."""
    size = {"MiT": "VARIANT", "ResNetV1c": "DEPTH"}.get(cfg.MODEL.BACKBONE.NAME, "TIMM_NAME")
    return f"{cfg.MODEL.BACKBONE.NAME} {cfg.MODEL.BACKBONE[size]}"


def parameters(module: nn.Module) -> int:
    """Number of trained values."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(module: nn.Module, *inputs: Any) -> float:
    """Multiply-accumulates of one forward."""
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch.jit, which fvcore traces with
        counter = FlopCountAnalysis(module, inputs)
        counter.set_op_handle("aten::scaled_dot_product_attention", attention_macs)
        for name in NOT_COUNTED:
            counter.set_op_handle(name, no_macs)  # None would leave fvcore's own handle in place
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return float(counter.total())


def attention_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Queries times keys, and weights times values."""
    *batch, queries, channels = get_shape(inputs[0])
    keys, value_channels = get_shape(inputs[2])[-2:]
    return float(torch.Size(batch).numel() * queries * keys * (channels + value_channels))


def no_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Of what is not counted."""
    return 0.0


def models_table(models: list[Model]) -> str:
    """A row for every model."""
    rows = [
        f"| `{model.name}` | {model.backbone} | {model.head} | {millions(model.parameters)} "
        f"| {millions(model.head_parameters)} | {giga(model.macs)} | {giga(model.head_macs)} |"
        for model in models
    ]
    head = "| config | backbone | head | parameters (M) | of the head | GMACs | of the head |"
    return "\n".join([head, "| --- | --- | --- | ---: | ---: | ---: | ---: |", *rows])


def savings(models: list[Model]) -> str:
    """A row for every head that is computed in another order than its paper's."""
    rows = [
        f"| `{model.name}` | {model.head} "
        f"| {giga(model.plain_head_macs)} | {giga(model.head_macs)} "
        f"| {1 - model.head_macs / model.plain_head_macs:.0%} |"
        for model in models
        if model.plain_head_macs is not None
    ]
    head = "| config | head | plain order (GMACs) | cheap order (GMACs) | saved |"
    return "\n".join([head, "| --- | --- | ---: | ---: | ---: |", *rows])


def millions(count: int) -> str:
    """One decimal, two below 10 million."""
    return f"{count / 1e6:.{1 if count >= 1e7 else 2}f}"


def giga(count: float) -> str:
    """One decimal, two below 10."""
    return f"{count / 1e9:.{1 if count >= 1e10 else 2}f}"


if __name__ == "__main__":
    sys.exit(main())
