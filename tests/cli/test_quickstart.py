"""`t2sda quickstart`, on a network that learns nothing in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2sda.cli import export, quickstart
from t2sda.cli.main import main
from t2sda.export import ort_web, web
from tests.tiny_onnx import write_tiny

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
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ort_web.shutil, "which", lambda name: None)
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

    # Without npm there is no page, and a line says how to get it.
    assert not (output / "site").exists()
    assert "both in the browser, a slider  not written (" in shown
    assert f"`npm pack {ort_web.PACKAGE}`" in shown
    assert f"t2sda export web {output / 'quickstart'} --before" in shown

    names = ort_web.FILES
    monkeypatch.setattr(quickstart, "runtime_files", lambda: dict.fromkeys(names, b""))
    monkeypatch.setattr(web, "runtime_files", lambda archive: dict.fromkeys(names, b""))
    exported = []

    def tiny_export(model: Any, taxonomy: Any, path: Path, **settings: Any) -> str:
        """In the place of exports of seconds, which have tests of their own."""
        exported.append((settings["image_size"], settings["precision"]))
        write_tiny(path)
        return "exact"

    monkeypatch.setattr(export, "export_onnx", tiny_export)
    assert main([*arguments, *TINY]) == 0, "a second call goes on from what is there"
    assert f"--directory {output / 'site'}, then open http://127.0.0.1:8000" in (
        capsys.readouterr().out
    )
    site = json.loads((output / "site/site.json").read_text())
    assert [model["file"] for model in site["models"]] == ["adapted.onnx", "before.onnx"]
    assert (output / "site/example_1.jpg").exists()
    assert exported[1:] == 2 * [((256, 512), "fp16")]
