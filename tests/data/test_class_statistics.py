"""Counts of pixels: right, in parallel, and cached under what they depend on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.data import class_statistics
from t2sda.data.catalog import DatasetSpec, open_dataset
from t2sda.data.class_statistics import class_pixels
from t2sda.data.datasets import FileDataset
from t2sda.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices that were counted, not found in the cache; in this process."""
    indices: list[int] = []
    original = FileDataset.class_pixels

    def count(self: FileDataset, index: int) -> np.ndarray:
        indices.append(index)
        return original(self, index)

    monkeypatch.setattr(FileDataset, "class_pixels", count)
    return indices


def label_of(harbour: DatasetSpec, index: int) -> Path:
    return Path(harbour.root) / f"labels/{index}.png"


def test_counts_are_those_of_a_slow_loop(harbour: DatasetSpec) -> None:
    with_ignored = np.full((40, 60), 255, np.uint8)
    with_ignored[:3, :5] = 18
    Image.fromarray(with_ignored).save(label_of(harbour, 2))
    pixels = class_pixels(harbour.open())
    for index in range(5):
        label = np.asarray(Image.open(label_of(harbour, index)))
        expected = [int((label == train_id).sum()) for train_id in [*range(19), 255]]
        assert pixels[index].tolist() == expected


def test_found_in_the_cache_the_second_time(harbour: DatasetSpec, counted: list[int]) -> None:
    first = class_pixels(harbour.open())
    assert counted == list(range(5))
    np.testing.assert_array_equal(class_pixels(harbour.open()), first)
    assert counted == list(range(5))


@pytest.mark.parametrize("change", ["time", "content", "name", "taxonomy"])
def test_counted_again_when_something_changed(
    harbour: DatasetSpec, counted: list[int], change: str
) -> None:
    class_pixels(harbour.open())
    if change == "time":
        os.utime(label_of(harbour, 0), ns=(1, 1))
    elif change == "content":
        Image.fromarray(np.zeros((40, 60), np.uint8)).save(label_of(harbour, 0))
    elif change == "name":
        for folder in ("images", "labels"):
            path = Path(harbour.root) / folder / "0.png"
            path.rename(path.with_name("00.png"))
    else:
        merged = {**{index: index for index in range(19)}, 0: 1}
        harbour = replace(harbour, taxonomy=replace(harbour.taxonomy, train_ids=merged))
    class_pixels(harbour.open())
    assert len(counted) == 10


def test_a_damaged_cache_is_counted_anew(harbour: DatasetSpec, cache: Path) -> None:
    first = class_pixels(harbour.open())
    (path,) = cache.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-9])
    np.testing.assert_array_equal(class_pixels(harbour.open()), first)
    assert [found.name for found in cache.rglob("*") if found.is_file()] == [path.name]


def test_nothing_is_left_when_a_label_cannot_be_used(harbour: DatasetSpec, cache: Path) -> None:
    label_of(harbour, 3).write_bytes(b"")
    with pytest.raises(UserError, match=r"labels/3\.png: cannot be decoded"):
        class_pixels(harbour.open())
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_says_how_to_choose_another(
    harbour: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write to .* with T2SDA_CACHE"):
        class_pixels(harbour.open())


def test_processes_count_what_one_counts(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    dataset = open_dataset("streets_clear_val")
    dataset.num_images = 20  # type: ignore[attr-defined]
    shown: list[tuple[int, str]] = []

    def progress(indices: Sequence[int], what: str) -> Iterable[int]:
        for index in indices:
            shown.append((index, what))
            yield index

    monkeypatch.setattr(class_statistics, "mapped", _with_processes(3))
    in_processes = class_pixels(dataset, progress)
    assert shown == [(index, "counting classes of streets_clear_val") for index in range(20)]
    expected = [dataset.class_pixels(index) for index in range(20)]
    np.testing.assert_array_equal(in_processes, expected)


def _with_processes(count: int):  # type: ignore[no-untyped-def]
    original = class_statistics.mapped
    return lambda *arguments: original(*arguments, num_processes=count)


def test_a_label_that_is_skipped_counts_nothing_and_is_logged(
    harbour: DatasetSpec, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = class_pixels(harbour.open())
    label_of(harbour, 3).write_bytes(b"")
    expected = whole.copy()
    expected[3] = 0
    for _ in range(2):  # counted, then found in the cache
        caplog.clear()
        np.testing.assert_array_equal(class_pixels(harbour.open(), on_error="skip"), expected)
        assert "1 of 5 labels of 'harbour' cannot be used" in caplog.text
    with pytest.raises(UserError, match=r"labels/3\.png"):  # its cache is another one
        class_pixels(harbour.open())


def test_a_mended_image_is_noticed_where_labels_are_skipped(
    harbour: DatasetSpec, cache: Path
) -> None:
    whole = class_pixels(harbour.open())
    image = label_of(harbour, 3).parent.with_name("images") / "3.png"
    content = image.read_bytes()
    image.write_bytes(b"")  # a label without the size of its image cannot be used
    assert not class_pixels(harbour.open(), on_error="skip")[3].any()
    image.write_bytes(content)
    np.testing.assert_array_equal(class_pixels(harbour.open(), on_error="skip"), whole)
