"""`t2sda analyze` on runs that have just begun: what it writes, and what it refuses."""

from __future__ import annotations

import csv
import importlib.util
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import pytest

from t2sda.analysis.classes import Classes
from t2sda.analysis.embedding import ClassSample
from t2sda.analysis.results import write_results
from t2sda.analysis.study import RunAnalysis, StudySettings
from t2sda.cli.main import main
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UserError
from tests.analysis.conftest import T2SDA_SETTINGS, source_run, t2sda_run  # noqa: F401
from tests.deployed import write_checkpoint

DATA = ("--data", "streets_clear_val", "streets_hazy_val")
FEW = ("--max-images", "2", "--pixels", "8", "--device", "cpu")
METRICS = '{"iteration": 5, "reweighting/weight/car": 0.2, "pseudo_labels/quality": 0.5}\n'


def analyze(*arguments: object) -> int:
    return main(["analyze", *map(str, arguments)])


def test_figures_tables_and_json_of_two_runs(
    t2sda_run: Path,  # noqa: F811
    source_run: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn, the extra `analysis`")
    (t2sda_run / "metrics.jsonl").write_text(METRICS)
    (tmp_path / "embedding.png").write_text("of an earlier analysis")
    assert analyze(t2sda_run, source_run, *DATA, *FEW, "--output", tmp_path) == 0
    figures = ("similarity", "distances", "embedding", "pseudo_labels", "training")
    tables = {"analysis.json", "classes.csv", "training.csv", "embedding.csv"}
    expected = {f"{name}.{kind}" for name in figures for kind in ("png", "svg")} | tables
    assert {path.name for path in tmp_path.iterdir()} == expected
    for name in figures:
        assert cv2.imread(str(tmp_path / f"{name}.png")) is not None
        ElementTree.parse(tmp_path / f"{name}.svg")
        assert (tmp_path / f"{name}.svg").stat().st_size < 500_000
    report = json.loads((tmp_path / "analysis.json").read_text())
    assert report["format"] == "t2sda analysis 1"
    assert [run["name"] for run in report["runs"]] == ["t2sda", "source"]
    assert report["runs"][0]["num_images"] == {"source": 2, "target": 2}
    rows = list(csv.DictReader((tmp_path / "classes.csv").open()))
    assert len(rows) == 2 * 19
    road = report["runs"][0]["per_class"]["center_distance"]["road"]
    assert float(rows[0]["center_distance"]) == pytest.approx(road, rel=1e-6)
    points = list(csv.DictReader((tmp_path / "embedding.csv").open()))
    assert {(point["run"], point["domain"]) for point in points} == {
        (run, domain) for run in ("t2sda", "source") for domain in ("source", "target")
    }
    shown = capsys.readouterr().out
    assert "quality q of the pseudo-labels at δ_p 0.968" in shown
    assert f"14 files are in {tmp_path}" in shown


def test_one_run_gets_its_own_folder_and_nothing_of_an_earlier_analysis_stays(
    source_run: Path,  # noqa: F811
) -> None:
    folder = source_run / "analysis"
    folder.mkdir()
    (folder / "similarity.png").write_text("of an earlier analysis")
    assert analyze(source_run, *DATA, *FEW, "--parts", "distances") == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {"distances.png", "distances.svg", "classes.csv", "analysis.json"}


def test_an_embedding_of_too_little_leaves_an_earlier_analysis_as_it_was(
    tmp_path: Path,
) -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn, the extra `analysis`")
    (tmp_path / "analysis.json").write_text("{}")
    (tmp_path / "similarity.png").write_text("of an earlier analysis")
    classes = Classes.of(CITYSCAPES_19)
    run = RunAnalysis("run", tmp_path / "checkpoint.pth", 1, classes, {})
    run.samples = {domain: ClassSample(19, 4, 8, 0) for domain in ("source", "target")}
    with pytest.raises(UserError, match="0 labelled feature cells in all are too few"):
        write_results(tmp_path, [run], ("a", "b"), StudySettings(("embedding",)))
    assert (tmp_path / "analysis.json").read_text() == "{}"
    assert {path.name for path in tmp_path.iterdir()} == {"analysis.json", "similarity.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", *DATA), "nowhere: no such file or folder"),
        ((".", *DATA), "no checkpoint_*.pth in this folder"),
        (("{run}", "--data", "streets_clear_val"), "expected 2 arguments"),
        (("{run}", "--data", "streets_clear_val", "streets_val"), "streets_val"),
        (("{run}", *DATA, "--parts", "distance"), "no part 'distance'; known: similarity"),
        (("{run}", "{run}", *DATA, "--output", "out"), "given twice; name each once"),
        (("{run}", "{other}", *DATA), "name a folder for it with --output DIR"),
        (("{run}", "{other}", *DATA, "--features", "projector", "--output", "out"), "no projector"),
    ],
)
def test_what_cannot_be_analyzed_is_one_message(
    arguments: tuple[str, ...],
    message: str,
    t2sda_run: Path,  # noqa: F811
    source_run: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [text.format(run=t2sda_run, other=source_run) for text in arguments]
    try:
        code = analyze(*filled)
    except SystemExit as exit_:
        code = int(str(exit_.code))
    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json")), "nothing half-written"


def test_networks_of_other_widths_have_no_common_embedding(
    t2sda_run: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wider = tmp_path / "wider"
    write_checkpoint(wider, *T2SDA_SETTINGS, "MODEL.PROJECTOR.CHANNELS", "32")
    arguments = (t2sda_run, wider, *DATA, "--features", "projector", "--output", tmp_path / "out")
    assert analyze(*arguments) == 2
    assert "t2sda has 256, wider has 32; analyze the runs one by one" in capsys.readouterr().err


def test_a_library_that_is_missing_is_said_before_the_work(
    source_run: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert analyze(source_run, *DATA, "--parts", "embedding") == 2
    assert "error: t-SNE needs scikit-learn" in capsys.readouterr().err
    assert analyze(source_run, *DATA, "--max-images", "1") == 0
    assert "warning: embedding left out: t-SNE needs scikit-learn" in capsys.readouterr().err
    assert (source_run / "analysis/similarity.png").exists()
    assert not (source_run / "analysis/embedding.png").exists()
