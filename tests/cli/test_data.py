"""`t2sda data`: exit codes, what is printed, and what is written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.cli.main import main
from t2sda.data.catalog import DATASETS, DATASETS_VARIABLE, DatasetSpec, register_dataset
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.inference.dataset_images import THUMBNAIL_WIDTH, contact_sheet, write_frequencies


@pytest.fixture
def harbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """Three registered images, and a second split of the same folder."""
    monkeypatch.setattr(DATASETS, "_components", dict(DATASETS._components))
    monkeypatch.chdir(tmp_path)
    dice = np.random.default_rng(0)
    for folder, shape, high in (("images", (40, 60, 3), 256), ("labels", (40, 60), 19)):
        (tmp_path / "harbour" / folder).mkdir(parents=True)
        for index in range(3):
            image = dice.integers(0, high, shape, dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / f"harbour/{folder}/{index}.png")
    spec = DatasetSpec(
        name="harbour_train",
        root="harbour",
        images="images/*.png",
        labels="labels/{stem}.png",
        taxonomy=CITYSCAPES_19,
    )
    register_dataset(spec)
    register_dataset(replace(spec, name="harbour_val", images="images/2.png"))
    return spec


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["data", *arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_check_writes_plot_sheet_and_findings(
    harbour: DatasetSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = output_of(capsys, "check", "harbour_train", "--output", "check")
    assert code == 0
    assert "3 images; height x width: 40x60 (3)" in output
    assert "comparing with harbour_val: 1 in" in output
    assert re.search(
        r"note: images in two splits \(1\)\n  .*2\.png is in harbour_train and", output
    )
    findings = Path("check/findings.txt").read_text()
    assert findings.startswith("note: images in two splits: harbour/images/2.png")
    with Image.open("check/harbour_train_classes.png") as plot:
        assert plot.height > 500
    with Image.open("check/harbour_train_sheet.png") as sheet:
        assert sheet.width >= 3 * THUMBNAIL_WIDTH


def test_check_fails_where_training_would(
    harbour: DatasetSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        Path(f"harbour/labels/{index}.png").unlink()
    code, output = output_of(capsys, "check", "harbour_train", "--output", "check")
    assert code == 1
    assert "ERROR: images without label (3)" in output
    assert len(Path("check/findings.txt").read_text().splitlines()) == 5  # and the copy, no class


def test_many_findings_of_a_kind_are_cut_and_all_written(
    harbour: DatasetSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3, 12):
        Image.new("RGB", (60, 40), (index, 0, 0)).save(f"harbour/images/{index}.png")
    code, output = output_of(capsys, "check", "harbour_train", "--output", "check")
    assert code == 1
    assert "… all 9 in check/findings.txt" in output
    assert Path("check/findings.txt").read_text().count("images without label") == 9


def test_check_of_what_is_not_there(
    harbour: DatasetSpec, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATASETS_VARIABLE, "")
    for name, message in (
        ("gta5_train", "'gta5_train': no folder .*set T2SDA_DATASETS"),
        ("gta6_train", "no dataset is called 'gta6_train'; known, nearest first: gta5_train"),
        ("none.yaml", "none.yaml: no such dataset file"),
    ):
        code, output = output_of(capsys, "check", name, "--output", "check")
        assert code == 2
        assert re.search(message, output)


def test_advice_where_the_usual_threshold_of_pixels_does_not_fit(
    harbour: DatasetSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    _, output = output_of(capsys, "check", "harbour_train", "--output", "check")
    assert "no image has more than 3000 pixels of road, sidewalk" in output
    assert "set RARE_CLASSES.MIN_SHARE" in output


def test_list_tells_what_was_found_and_where_the_rest_is_looked_for(
    harbour: DatasetSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = output_of(capsys, "list")
    assert code == 0
    assert re.search(r"harbour_train +│ +3 │ yes +│ +19 │ harbour", output)
    assert re.search(r"cityscapes/ or Cityscapes/ +│ cityscapes_test, cityscapes_train,", output)


def test_sets_of_a_file_are_listed_packed_and_checked(
    harbour: DatasetSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "root: harbour\nimages: images/*.png\nlabels: labels/{stem}.png\n"
    Path("own.yaml").write_text(f"name: own\n{text}taxonomy: cityscapes_19\n")
    _, output = output_of(capsys, "list", "--file", "own.yaml")
    assert re.search(r"own +│ +3 │ yes +│ +19 │", output)
    code, output = output_of(
        capsys, *("pack", "own", "--file", "own.yaml", "--size", "20", "30", "--output", "packed")
    )
    assert code == 0, output
    assert "DATASETS.FILES '[packed/dataset.yaml]' DATASETS.SOURCE own_20x30" in output
    code, output = output_of(capsys, "check", "packed/dataset.yaml", "--output", "check")
    assert code == 0, output
    assert "3 images; height x width: 20x30 (3)" in output
    damaged, gone, *_ = sorted(Path("packed/images").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    gone.unlink()
    Path("packed/labels/notes.txt").write_text("mine")
    code, output = output_of(capsys, "check", "packed/dataset.yaml", "--output", "check")
    assert code == 1
    findings = re.sub(r": \S*/packed/", ": packed/", Path("check/findings.txt").read_text())
    assert f"ERROR: damaged files: packed/images/{damaged.name}: its content" in findings
    assert f"ERROR: missing files: packed/images/{gone.name}: copy it again" in findings
    assert "note: extra files: packed/labels/notes.txt: SHA256SUMS does not know it" in findings


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "usage: t2sda data VERB"),
        (["--help"], 0, "check"),
        (["chekc"], 2, "no command 'data chekc'; known, nearest first: check"),
    ],
)
def test_verbs(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    found, output = output_of(capsys, *arguments)
    assert found == code
    assert message in output


@pytest.mark.parametrize("num_classes", [2, 255])
def test_images_of_any_number_of_classes(tmp_path: Path, num_classes: int) -> None:
    from t2sda.data.dataset_classes import distinct_colors
    from t2sda.data.datasets import Sample
    from t2sda.data.taxonomies import Taxonomy

    names = tuple(f"class{index}" for index in range(num_classes))
    taxonomy = Taxonomy("many", names, distinct_colors(num_classes))
    pixels = np.ones((2, num_classes + 1), dtype=np.int64)
    pixels[:, 0] = 0
    write_frequencies(tmp_path / "plot.png", "many", pixels, taxonomy)
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.height > 110 * 0.28 * num_classes
    label = np.resize(np.arange(num_classes, dtype=np.uint8), (40, 60))
    sample = Sample("a very long name " * 9 + ".png", np.zeros((40, 60, 3), np.uint8), label)
    sheet = contact_sheet([sample, replace(sample, label=None)], taxonomy)
    assert sheet.shape[1] >= 2 * THUMBNAIL_WIDTH
