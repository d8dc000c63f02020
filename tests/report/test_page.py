"""`t2sda report` from end to end: one file that asks for nothing, or one message and no file."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import t2sda
from t2sda.cli.main import main
from t2sda.data.catalog import open_dataset
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.evaluation.entries import HeadTail, Protocol
from tests.report.folders import entry_of, grouped, logged, make_run, pixels, scores_of

HARD = [[1, 9, 0], [0, 10, 0], [0, 0, 0]]


class Elements(HTMLParser):
    """Every element's name and attributes, and the text of scripts by their id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None


def report(output: Path, *arguments: object) -> int:
    return main(["report", *map(str, arguments), "--output", str(output), "--device", "cpu"])


def test_the_page_needs_no_other_file(page: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8"))
    asked = [
        value
        for _, attributes in elements.found
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "data", "action") and value
    ]
    assert [value for value in asked if not value.startswith(("data:", "#"))] == []
    text = page.read_text(encoding="utf-8")
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    policy = next(a for t, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy["content"])
    assert page.stat().st_size < 1_000_000


def test_every_image_has_a_name_for_the_screen_reader(page: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8")).found
    assert all("alt" in attributes for tag, attributes in elements if tag == "img")
    charts = [attributes for tag, attributes in elements if tag == "svg"]
    assert len(charts) > 5
    assert all(attributes.get("aria-label") for attributes in charts)
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [a["href"] for tag, a in elements if tag == "a"]
    assert {str(anchor).removeprefix("#") for anchor in anchors} <= set(ids)


def test_groups_have_their_mean_deviation_and_difference(page: Path, runs: list[Path]) -> None:
    """Worked out from the files of scores, not by the report."""
    found = [
        json.loads((run / "evaluation.json").read_text())["entries"][0]["mean_iou"] for run in runs
    ]
    slow = 100 * np.array(found[:2])
    text = re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8"))
    assert f"{slow.mean():.1f} ± {slow.std(ddof=1):.1f} % mIoU" in text
    difference = f"{100 * found[2] - slow.mean():+.1f}".replace("-", "−")
    assert re.search(rf"{re.escape(difference)} \[[+−]?\d+\.\d, [+−]?\d+\.\d\] points", text)
    assert "slow and fast" in text
    assert "SOLVER.BASE_LR" in text


@pytest.mark.usefixtures("_datasets")
def test_predictions_of_the_gallery_are_those_of_the_run(page: Path, runs: list[Path]) -> None:
    data = json.loads(Elements(page.read_text(encoding="utf-8")).scripts["gallery-data"])
    assert data["runs"] == ["slow_0", "slow_1", "fast"]
    assert len(data["images"]) == 4
    model = t2sda.load_model(runs[2])
    dataset = open_dataset("tiny_val")
    for shown in data["images"]:
        index = next(i for i in range(4) if dataset.relative_name(i) == shown["name"])
        labels = model.predict(dataset.load(index).image)
        colors = pixels(shown["predictions"]["fast"])[..., :3]
        np.testing.assert_array_equal(colors, np.array(CITYSCAPES_19.palette, np.uint8)[labels])
        wrong = pixels(shown["mistakes"]["fast"])[..., 3] == 255
        truth = dataset.load(index).label
        np.testing.assert_array_equal(wrong, (labels != truth) & (truth != 255))


def test_a_run_records_what_it_was_trained_by(runs: list[Path], page: Path) -> None:
    record = json.loads((runs[0] / "run.json").read_text())
    (session,) = record["sessions"]
    assert session["next_iteration"] == 4
    assert session["versions"]["t2sda"] == t2sda.__version__
    assert 0 < session["seconds"] < 600
    assert session["peak_memory_mib"] > 50
    assert session["machine"]["cores"] >= 1
    assert "GiB" in page.read_text(encoding="utf-8")


def test_names_that_are_html_stay_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script><b>"
    scores = scores_of({f"{evil}.png": HARD}, dataset=evil, classes=(evil, "water", "ship"))
    run = make_run(tmp_path / "a<i>b", [entry_of(scores)], [{"iteration": 1, f"loss_{evil}": 1.0}])
    assert report(tmp_path / "page.html", run) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert evil not in text
    assert [tag for tag, _ in Elements(text).found if tag in ("i", "b")] == ["b"]  # our own
    sources = [a.get("src") for tag, a in Elements(text).found if tag == "img"]
    assert "x" not in sources


def test_a_dataset_that_is_not_at_hand_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", [entry_of(scores_of({"a.png": HARD}))])
    assert report(tmp_path / "page.html", run) == 0
    said = capsys.readouterr().out
    assert "no dataset is called 'harbour_val'" in said
    assert "no dataset is called" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("_datasets")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("gone", "which was scored, is gone"),
        ("replaced", "is not what was scored"),
    ],
)
def test_a_checkpoint_that_was_not_scored_labels_nothing(
    tmp_path: Path,
    runs: list[Path],
    capsys: pytest.CaptureFixture[str],
    change: str,
    message: str,
) -> None:
    run = tmp_path / "fast"
    shutil.copytree(runs[2], run)
    checkpoint = run / "checkpoint_0000004.pth"
    checkpoint.unlink()
    if change == "replaced":
        shutil.copy(runs[0] / checkpoint.name, checkpoint)
    assert report(tmp_path / "page.html", run) == 0
    assert message in capsys.readouterr().out


@pytest.mark.usefixtures("_datasets")
def test_a_dataset_of_other_classes_by_now_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = scores_of({"tiny_val_00000": HARD}, dataset="tiny_val")
    run = make_run(tmp_path / "run", [entry_of(scores)])
    assert report(tmp_path / "page.html", run) == 2
    assert "'tiny_val' has other classes than when it was scored" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_no_gallery_reads_neither_checkpoints_nor_datasets(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t2sda.report.gallery.open_dataset", pytest.fail)
    monkeypatch.setattr("t2sda.report.gallery.load_model", pytest.fail)
    assert report(tmp_path / "page.html", runs[0], "--no-gallery") == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "gallery-data" not in Elements(text).scripts


def test_curves_of_classes_are_folded_by_their_kind(tmp_path: Path) -> None:
    metrics = [
        {
            "iteration": at,
            "loss": 1.0,
            "grad_norm": 2.0,
            "weights/road/x": 1.0,
            "weights/road/y": 2.0,
        }
        for at in (1, 2)
    ]
    run = make_run(tmp_path / "run", metrics=metrics)
    assert report(tmp_path / "page.html", run) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"<summary>(\d+ curves?: [^<]*)</summary>", text) == [
        "1 curve: what else was logged",
        "2 curves: weights/road",
    ]
    charts = [a for tag, a in Elements(text).found if tag == "svg"]
    assert len(charts) == 4


def test_figures_of_analyses_are_in_the_page_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    folder = run / "analysis"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "embedding.png")
    (folder / "embedding.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("RGB", (4, 4)).save(folder / "training.png")
    (folder / "training.svg").write_text(f"<svg><!--{'x' * 500_000}--></svg>")
    (folder / "of_somebody_else.svg").write_text("<svg/>")
    together = tmp_path / "together"
    together.mkdir()
    Image.new("RGB", (4, 4)).save(together / "distances.png")
    for finished in (folder, together):
        (finished / "analysis.json").write_text("{}")
    assert report(tmp_path / "page.html", run, "--analysis", together) == 0
    images = [
        (a["alt"], str(a["src"]).partition(";")[0])
        for tag, a in Elements((tmp_path / "page.html").read_text(encoding="utf-8")).found
        if tag == "img" and str(a.get("src", "")).startswith("data:")
    ]
    assert images == [
        ("distances", "data:image/png"),
        ("run: embedding", "data:image/svg+xml"),
        ("run: training", "data:image/png"),
    ]


def test_an_analysis_that_did_not_end_is_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "analysis").mkdir()
    Image.new("RGB", (4, 4)).save(run / "analysis/embedding.png")
    assert report(tmp_path / "page.html", run) == 0
    assert "data:image/png" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_confusion_is_of_the_classes_that_are_reported(tmp_path: Path) -> None:
    scores = grouped({"a.png": [[8, 2, 0], [0, 2, 18], [0, 0, 0]]}, {"land": (0,), "sea": (1, 2)})
    run = make_run(tmp_path / "run", [entry_of(scores)])
    assert report(tmp_path / "page.html", run, "--no-gallery") == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Most confused: 20 % of land as sea." in text
    assert "of water as ship" not in text


def test_head_and_tail_are_left_out_where_groups_count(tmp_path: Path) -> None:
    scores = grouped({"a.png": [[8, 2, 0], [0, 2, 18], [0, 0, 0]]}, {"land": (0,), "sea": (1, 2)})
    scores = dataclasses.replace(scores, head_tail=HeadTail(0.5, 0.25))
    assert scores.further_means == {}
    single = dataclasses.replace(scores, groups=None, subset_iou={"mIoU16": 0.75})
    assert single.further_means == {"mIoU16": 0.75, "head classes": 0.5, "tail classes": 0.25}
    run = make_run(tmp_path / "run", [entry_of(scores)])
    assert report(tmp_path / "page.html", run, "--no-gallery") == 0
    assert "tail classes" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_scores_of_other_protocols_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = scores_of({"a.png": HARD})
    windows = dataclasses.replace(scores, protocol=Protocol(window=(64, 96), step=(32, 64)))
    whole = make_run(tmp_path / "whole", [entry_of(scores)])
    line = logged(20, quay=0.5, water=0.5, ship=0.5)
    training = make_run(tmp_path / "training", metrics=[line], SOLVER__BASE_LR=1.0)
    assert report(tmp_path / "page.html", whole, training) == 0
    assert "different ways" not in capsys.readouterr().out
    other = make_run(tmp_path / "windows", [entry_of(windows)], SOLVER__BASE_LR=2.0)
    assert report(tmp_path / "page.html", whole, training, other) == 0
    note = (
        "harbour_val: scored in different ways, so differences may come from that: student, as "
        "they are, whole: whole, training; student, as they are, windows of 64x96 every 32x64: "
        "windows"
    )
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "page.html").read_text(encoding="utf-8")


def others(tmp_path: Path, dataset: str, **changes: Any) -> list[Path]:
    first = make_run(tmp_path / "one", [entry_of(scores_of({"a.png": HARD}))], SEED=0)
    scores = scores_of({"a.png": HARD}, dataset=dataset, **changes)
    return [first, make_run(tmp_path / "two", [entry_of(scores)], SEED=1)]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no run", "not the folder of a run"),
        ("twice", "given twice"),
        ("other classes", "make a report for each set of classes"),
        ("damaged scores", "no JSON"),
        ("no labels", "no pixel of 'harbour_val' is labelled"),
        ("no pattern", "regular expression"),
        ("no figures", "holds no figure"),
    ],
)
def test_bad_input_is_one_message_and_the_old_page_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    output = tmp_path / "page.html"
    output.write_text("old")
    runs: list[object] = list(others(tmp_path, "harbour_val"))
    if kind == "no run":
        runs = [tmp_path]
    elif kind == "twice":
        runs = [runs[0], runs[0]]
    elif kind == "other classes":
        runs = list(others(tmp_path / "x", "harbour_val", classes=("x", "water", "ship")))
    elif kind == "damaged scores":
        (Path(str(runs[0])) / "evaluation.json").write_text('{"format": ')
    elif kind == "no labels":
        nothing = scores_of({"a.png": [[0] * 3] * 3})
        runs = [make_run(tmp_path / "empty", [entry_of(nothing)])]
    elif kind == "no pattern":
        scored = entry_of(scores_of({"a.png": HARD}))
        runs = [runs[0], make_run(tmp_path / "other", [scored], SOLVER__BASE_LR=1.0)]
        runs += ["--blocks", "("]
    else:
        runs += ["--analysis", tmp_path]
    assert report(output, *runs) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.startswith("error: ")
    assert output.read_text() == "old"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_page_that_cannot_be_written_is_found_out_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(tmp_path, tmp_path / "nowhere") == 2
    assert "--output names the file to write" in capsys.readouterr().err
