"""What a class may do follows from the class."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t2sda.meta_arch.base import MetaArch, Reads, StudentPass
from t2sda.modeling.branch import Branch
from t2sda.structures import TARGET_PROBS, DomainBatch, Step, View
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
