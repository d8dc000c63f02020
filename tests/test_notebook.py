"""The notebook runs from its first cell to its last, and is stored without results."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2sda.errors import UserError
from tests.components import components_restored

NOTEBOOK = Path(__file__).parents[1] / "docs/tour.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def values_of_cells() -> tuple[list[Any], dict[str, Any]]:
    """What each cell shows, the value of its last expression, and the names at the end."""
    names: dict[str, Any] = {}
    values = []
    for number, code in enumerate(CODE):
        *statements, last = ast.parse(code).body
        value = None
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(statements, []), f"cell {number}", "exec"), names)
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        else:
            exec(code, names)
        values.append(value)
    return values, names


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with components_restored():
        values, names = values_of_cells()
    images = [value for value in values if isinstance(value, Image.Image)]
    image, overlay = (np.asarray(item) for item in images)
    assert image.shape == overlay.shape == (64, 128, 3)
    assert not np.array_equal(image, overlay)
    iteration, (mean_iou,) = values[2]
    assert iteration == names["STEPS"]
    assert values[-1] == pytest.approx((mean_iou, mean_iou), abs=0.01)
    assert (tmp_path / "tour/run/log.txt").is_file()


def test_it_is_stored_without_results() -> None:
    assert all(cell.get("outputs", []) == [] for cell in CELLS)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_a_mistake_in_a_cell_is_an_exception_with_all_that_is_wrong() -> None:
    import t2sda

    with pytest.raises(UserError, match=r"(?s)SOLVER.MAX_ITR.*LOGGING.PERIOD"):
        t2sda.load_config("quickstart.yaml", {"SOLVER.MAX_ITR": 3, "LOGGING.PERIOD": 0})
