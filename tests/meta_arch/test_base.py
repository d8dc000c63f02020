"""What a class may do follows from the class."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401
from t2sda.config import ConfigError, load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch, Reads, StudentPass, build_meta_arch
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.plugins import load_plugins
from t2sda.structures import TARGET_PROBS, DomainBatch, Step, View
from tests.components import components_restored
from tests.meta_arch.conftest import step_of

ROOT = Path(__file__).parents[2]
CHOOSING = ("NAME", "NAMES", "PASSES")
"""Last word of the settings that choose a component."""


def compared_with_names(code: ast.AST) -> list[str]:
    """Comparisons of a chosen component's name with text that is written out."""
    found = []
    for node in ast.walk(code):
        if not isinstance(node, ast.Compare):
            continue
        parts = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
        chosen = any(isinstance(p, ast.Attribute) and p.attr in CHOOSING for p in parts)
        chosen |= any(isinstance(p, ast.Name) and p.id == "pass_names" for p in parts)
        if chosen and any(isinstance(p, ast.Constant) and isinstance(p.value, str) for p in parts):
            found.append(ast.unparse(node))
    return found


def test_no_code_compares_a_registered_name() -> None:
    found = {
        str(path.relative_to(ROOT)): compared_with_names(ast.parse(path.read_text("utf-8")))
        for package in ("t2sda", "export")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        'cfg.META_ARCH.NAME == "T2SDA"',
        '"EmaTeacher" in cfg.HOOKS.NAMES',
        '{"mixed", "masked"} & set(pass_names(cfg)) == set()',
        'cfg.TRANSLATION.NAME in ("FDA", "RandomStyleFDA")',
    ],
)
def test_a_comparison_with_a_name_is_found(line: str) -> None:
    assert compared_with_names(ast.parse(line)) != []


def test_readings_add_up_and_views_imply_their_images() -> None:
    embeddings = View("translated", "embeddings")
    both = Reads(fields={"target_valid"}, views={TARGET_PROBS}) | Reads(
        views={embeddings}, shared={"logits"}
    )
    assert both == Reads({"target_valid"}, {TARGET_PROBS, embeddings}, {"logits"})
    assert both.batch_fields == {"target_valid", "target_image", "translated_image"}


class Sharing(StudentPass):
    """Shares what it is made with."""

    provides = frozenset({"logits"})

    def __init__(self, shared: dict[str, Tensor]) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        step.shared.update(self.shared)
        return {}


def test_what_is_shared_is_there_and_detached(make_batch: Callable[..., DomainBatch]) -> None:
    with_graph = torch.ones(1, requires_grad=True) * 2

    def run(shared: dict[str, Tensor]) -> None:
        student: Any = nn.Module()
        student.model = nn.Identity()
        MetaArch(student, {"sharing": Sharing(shared)})("sharing", step_of(make_batch()))

    run({"logits": with_graph.detach()})
    with pytest.raises(AssertionError, match="'sharing' provides 'logits', but shared none"):
        run({})
    with pytest.raises(AssertionError, match="shares 'logits' with its graph.*detach it"):
        run({"logits": with_graph})


class OwnLoss(SegmentationModel):
    """Leaves the auxiliary head out."""

    def loss(self, features: Any, labels: Tensor, *others: Any) -> Tensor:
        return self.output_loss(features, labels)


class OwnLossWithBoth(OwnLoss):
    """Adds it, and says so."""

    trains_aux_head = True

    def loss(self, features: Any, labels: Tensor, *others: Any) -> Tensor:
        return super().loss(features, labels) + self.aux_head(features.levels).mean()  # type: ignore[misc]


class OwnOutputLoss(SegmentationModel):
    """Of the output alone; the auxiliary head is still the base's."""

    def output_loss(self, features: Any, labels: Tensor, *others: Any) -> Tensor:
        return super().output_loss(features, labels)


AUX = ("MODEL.AUX_HEAD.NAME", "LightHead", "MODEL.BACKBONE.TIMM_NAME", "test_resnet")


@pytest.mark.parametrize("model", [SegmentationModel, OwnLossWithBoth, OwnOutputLoss])
def test_a_loss_that_trains_the_auxiliary_head_is_taken(model: type[SegmentationModel]) -> None:
    cfg = load_config(None, [*AUX, "MODEL.HEAD.CHANNELS", "8"])
    built = model.from_config(cfg, 19)
    assert build_meta_arch(cfg, CITYSCAPES_19, built).student.model is built
    loss = built.loss(built.features(torch.zeros(2, 3, 64, 64)), torch.zeros(2, 64, 64).long())
    loss.backward()
    assert all(p.grad is not None for p in built.aux_head.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("base", [OwnLoss, type("Derived", (OwnLoss,), {})])
def test_an_auxiliary_head_that_would_never_learn_is_refused(base: type[SegmentationModel]) -> None:
    cfg = load_config(None, [*AUX, "MODEL.HEAD.CHANNELS", "8"])
    message = rf"MODEL\.AUX_HEAD\.NAME: .* never learn, as {base.__name__} has a loss of its own"
    with pytest.raises(UserError, match=message):
        build_meta_arch(cfg, CITYSCAPES_19, base.from_config(cfg, 19))
    plain = load_config(None, [*AUX[2:], "MODEL.HEAD.CHANNELS", "8"])
    build_meta_arch(plain, CITYSCAPES_19, base.from_config(plain, 19))


def test_an_auxiliary_head_under_the_two_scales_of_a_plugin_is_refused() -> None:
    with components_restored():
        load_plugins([str(ROOT / "tests/integration/plugins/two_scales.py")])
        with pytest.raises(
            ConfigError, match=r"as TwoScales has a loss of its own; leave it empty"
        ):
            load_config(None, [*AUX, "MODEL.HEAD.CHANNELS", "8", "MODEL.NAME", "TwoScales"])
