"""README's figure: a row for each photograph, in the classes of the models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import demo_figure
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.errors import UserError

CAMVID = Taxonomy("two", ("road", "car"), ((1, 2, 3), (4, 5, 6)), {0: 0, 1: 1})


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, Taxonomy]:
    """Classes of models by their path; they see one class everywhere."""
    found = {"source": CITYSCAPES_19, "adapted": CITYSCAPES_19}

    def load_model(path: str) -> SimpleNamespace:
        return SimpleNamespace(
            taxonomy=found[path], predict=lambda image: np.ones(image.shape[:2], dtype=np.uint8)
        )

    monkeypatch.setattr(demo_figure, "load_model", load_model)
    return found


@pytest.mark.usefixtures("models")
def test_figure_has_a_row_for_each_photograph(tmp_path: Path) -> None:
    file = tmp_path / "new/figure.png"
    assert demo_figure.command(["source", "adapted", "--output", str(file)]) == 0
    width, height = Image.open(file).size
    assert width > 3 * demo_figure.SIZE[0]
    assert height > len(demo_figure.PHOTOGRAPHS) * demo_figure.SIZE[1]


@pytest.mark.usefixtures("models")
def test_figure_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; --output names the file to write"):
        demo_figure.command(["source", "adapted", "--output", str(tmp_path)])


def test_models_of_other_classes_are_no_pair(models: dict[str, Taxonomy], tmp_path: Path) -> None:
    models["adapted"] = CAMVID
    with pytest.raises(UserError, match="adapted: has other classes than source"):
        demo_figure.command(["source", "adapted", "--output", str(tmp_path / "x.jpg")])
