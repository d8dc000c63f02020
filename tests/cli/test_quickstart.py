"""`t2sda quickstart`, on a network that learns nothing in one step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.cli.main import main

TINY = (
    *("MODEL.BACKBONE.TIMM_NAME", "test_resnet", "MODEL.BACKBONE.WEIGHTS", ""),
    *("SOLVER.MAX_ITER", "1", "SOLVER.BATCH_SIZE", "1", "DATA.CROP_SIZE", "[64, 64]"),
    *(
        "EVALUATION.DATASETS",
        "[streets_hazy_val]",
        "EVALUATION.PERIOD",
        "1",
        "DATA.NUM_WORKERS",
        "0",
    ),
)


def test_the_whole_way_and_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / "photo.jpg")
    output = tmp_path / "out"
    arguments = [
        "quickstart",
        "--output-dir",
        str(output),
        "--images",
        str(tmp_path / "photo.jpg"),
    ]

    assert main([*arguments, *TINY]) == 0

    shown = capsys.readouterr().out
    assert "IoU % on streets_hazy_val" in shown
    assert "source only" in shown
    for path in ("student.onnx", "comparison.png", "photographs"):
        assert str(output / path) in shown
        assert (output / path).exists()
    panel = np.asarray(Image.open(output / "photographs/photo_panel.png"))
    assert panel.shape[1] > 2 * 70
    labels = np.asarray(Image.open(output / "photographs/photo_trainid.png"))
    assert labels.shape == (90, 70)
    sheet = np.asarray(Image.open(output / "comparison.png"))
    assert sheet.shape[1] > 4 * 512

    assert main([*arguments, *TINY]) == 0, "a second call goes on from what is there"
