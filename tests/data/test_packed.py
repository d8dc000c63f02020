"""A packed dataset gives what the original gives at its size, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from t2sda.cli.main import main
from t2sda.config import load_config
from t2sda.data.catalog import DATASETS, DatasetSpec, open_dataset
from t2sda.data.datasets import DrawnStreets
from t2sda.data.domains import DomainPairs
from t2sda.data.packed import PackedDataset, image_key, is_packed, taxonomy_from, taxonomy_to
from t2sda.data.packing import COMMIT_PERIOD, pack_dataset
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.data.transforms import Box, Resize, keep_ratio_size, resize_image, resize_label
from t2sda.errors import UserError
from tests.full_disk import file_size_limit

BOUND = (20, 24)
"""Five images of 40x60 become 16x24."""


@pytest.fixture
def packed(harbour: DatasetSpec, tmp_path: Path) -> PackedDataset:
    pack_dataset(harbour.open(), BOUND, tmp_path / "packed", num_processes=1)
    return PackedDataset(tmp_path / "packed")


def test_images_and_labels_are_those_of_the_original_resized(
    harbour: DatasetSpec, packed: PackedDataset
) -> None:
    original = harbour.open()
    assert (len(packed), packed.labelled) == (len(original), True)
    for index in range(len(original)):
        sample, stored = original.load(index), packed.load(index)
        assert sample.label is not None
        assert stored.label is not None
        np.testing.assert_array_equal(stored.image, resize_image(sample.image, (16, 24)))
        np.testing.assert_array_equal(stored.label, resize_label(sample.label, (16, 24)))
        assert f"images/{index}.png" in stored.name


def test_a_window_is_the_window_of_the_whole(packed: PackedDataset) -> None:
    box = Box(3, 5, 8, 12)
    np.testing.assert_array_equal(packed.load_image(2, window=box), box.of(packed.load_image(2)))
    smaller, inner = Resize((10, 15)), Box(1, 2, 4, 6)
    np.testing.assert_array_equal(
        packed.load_image(2, smaller, inner), inner.of(packed.load_image(2, smaller))
    )


def test_class_counts_are_those_of_the_original_label(
    harbour: DatasetSpec, packed: PackedDataset
) -> None:
    original = harbour.open()
    for index in range(len(original)):
        np.testing.assert_array_equal(packed.class_pixels(index), original.class_pixels(index))
        assert packed.class_pixels(index).sum() == 40 * 60


def test_an_unlabelled_set_stays_unlabelled(harbour: DatasetSpec, tmp_path: Path) -> None:
    dataset = harbour.open()
    dataset.pairs = [(image, None) for image, _ in dataset.pairs]
    pack_dataset(dataset, BOUND, tmp_path / "packed", num_processes=1)
    packed = PackedDataset(tmp_path / "packed")
    assert not packed.labelled
    assert packed.load(0).label is None


def test_taxonomy_and_groups_survive(packed: PackedDataset) -> None:
    stored = json.loads(json.dumps(taxonomy_to(CITYSCAPES_19)))
    assert taxonomy_from(stored) == CITYSCAPES_19
    assert packed.taxonomy == CITYSCAPES_19
    assert packed.name == "harbour@20x24"


@given(
    size=st.tuples(st.integers(8, 3000), st.integers(8, 3000)),
    bound=st.tuples(st.integers(8, 3000), st.integers(8, 3000)),
)
def test_a_packed_size_is_not_resized_again(size: tuple[int, int], bound: tuple[int, int]) -> None:
    once = keep_ratio_size(size, bound)
    if min(once) > 0:
        assert keep_ratio_size(once, bound) == once


def test_a_larger_size_than_packed_is_refused(packed: PackedDataset) -> None:
    with pytest.raises(UserError, match=r"packed at 16x24 .* 40x60 are asked for; set DATA"):
        packed.load_image(0, Resize((40, 60)))


@pytest.mark.parametrize("rare", [False, True])
def test_batches_are_those_of_the_original(
    harbour: DatasetSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rare: bool,
) -> None:
    monkeypatch.setitem(DATASETS._components, "harbour", harbour)
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("T2SDA_DATASETS", str(tmp_path))
    folder = tmp_path / "packed"
    argv = ["data", "pack", "harbour", "--size", "20", "24", "--output", str(folder)]
    assert main([*argv, "--workers", "1"]) == 0

    def samples(name: str) -> list[np.ndarray]:
        cfg = load_config(
            None,
            (
                *("META_ARCH.NAME", "T2SDA", "TRANSLATION.NAME", "FDA"),
                *("HOOKS.NAMES", "[EmaTeacher]"),
                *("DATASETS.SOURCE", name, "DATASETS.TARGET", name),
                *("DATA.SOURCE_SIZE", "[20, 24]", "DATA.TARGET_SIZE", "[20, 24]"),
                *("DATA.CROP_SIZE", "[8, 8]"),
                *(("RARE_CLASSES.ENABLED", "true") if rare else ()),
                *(("RARE_CLASSES.MIN_PIXELS", "100") if rare else ()),
            ),
        )
        pairs = DomainPairs.from_config(cfg)
        drawn = [pairs[position] for position in range(20)]
        return [part for sample in drawn for part in (*sample.source, *sample.target)]

    expected = samples("harbour")
    for name in ("packed", str(folder)):  # below T2SDA_DATASETS, and by path
        for ours, theirs in zip(samples(name), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


class _Stopping:
    """A progress after which the process is gone, as after a kill."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, indices: range, what: str) -> Iterator[int]:
        for index in indices:
            if index == self.after:
                raise KeyboardInterrupt
            yield index


def test_a_stopped_packing_is_no_dataset_and_goes_on(tmp_path: Path) -> None:
    streets = DrawnStreets("streets", "clear", 1, 2 * COMMIT_PERIOD + 3, (64, 64))
    folder = tmp_path / "packed"
    with pytest.raises(KeyboardInterrupt):
        pack_dataset(streets, (64, 64), folder, _Stopping(COMMIT_PERIOD + 5), num_processes=1)
    assert not folder.exists()
    partial = tmp_path / "packed.partial"
    assert is_packed(partial)
    with pytest.raises(UserError, match=r"not finished .*packed\.json is missing"):
        PackedDataset(partial)
    with pytest.raises(UserError, match="a packing was begun there"):
        pack_dataset(streets, (32, 32), folder, num_processes=1)
    seen: list[int] = []

    def noting(indices: range, what: str) -> Iterator[int]:
        for index in indices:
            seen.append(index)
            yield index

    pack_dataset(streets, (64, 64), folder, noting, num_processes=1)
    assert len(seen) == len(streets) - COMMIT_PERIOD  # what was committed is not done again
    packed = PackedDataset(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["data.mdb", "packed.json"]
    for index in (0, COMMIT_PERIOD, len(streets) - 1):
        np.testing.assert_array_equal(packed.load(index).image, streets.load(index).image)


def test_several_processes_write_the_same(tmp_path: Path) -> None:
    streets = DrawnStreets("streets", "hazy", 1, 20, (64, 64))
    pack_dataset(streets, (64, 64), tmp_path / "packed", num_processes=2)
    packed = PackedDataset(tmp_path / "packed")
    for index in range(20):
        np.testing.assert_array_equal(packed.load(index).image, streets.load(index).image)


def test_a_folder_in_use_is_left_alone(harbour: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(UserError, match="not empty; choose another folder"):
        pack_dataset(harbour.open(), BOUND, tmp_path / "mine")


def test_a_file_in_the_place_of_the_folder(harbour: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "packed").write_text("x")
    with pytest.raises(UserError, match=r"packed: is a file; choose a new folder"):
        pack_dataset(harbour.open(), BOUND, tmp_path / "packed")


def test_two_processes_never_write_to_one_folder(tmp_path: Path) -> None:
    streets = DrawnStreets("streets", "clear", 1, 3, (64, 64))

    def another_at_once(indices: range, what: str) -> Iterator[int]:
        with pytest.raises(UserError, match=r"packed\.partial: another process is packing there"):
            pack_dataset(streets, (64, 64), tmp_path / "packed", num_processes=1)
        yield from indices

    pack_dataset(streets, (64, 64), tmp_path / "packed", another_at_once, num_processes=1)
    files = sorted(path.name for path in (tmp_path / "packed").iterdir())
    assert files == ["data.mdb", "packed.json"]


def test_a_disk_that_runs_full_loses_nothing(tmp_path: Path) -> None:
    streets = DrawnStreets("streets", "clear", 1, 2 * COMMIT_PERIOD, (64, 64))
    with file_size_limit(400_000), pytest.raises(UserError, match=r"packed\.partial: cannot be wr"):
        pack_dataset(streets, (64, 64), tmp_path / "packed", num_processes=1)
    assert not (tmp_path / "packed").exists()
    pack_dataset(streets, (64, 64), tmp_path / "packed", num_processes=1)
    packed = PackedDataset(tmp_path / "packed")
    for index in (0, COMMIT_PERIOD, len(streets) - 1):
        np.testing.assert_array_equal(packed.load(index).image, streets.load(index).image)


def test_a_disk_that_is_too_small_is_found_out_first(
    harbour: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"0\.0 GB are needed, 0\.0 GB are free; choose another"):
        pack_dataset(harbour.open(), BOUND, tmp_path / "packed")


def test_a_damaged_original_stops_the_packing_with_its_name(
    harbour: DatasetSpec, tmp_path: Path
) -> None:
    (Path(harbour.root) / "images/3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"images/3\.png: cannot be decoded"):
        pack_dataset(harbour.open(), BOUND, tmp_path / "packed", num_processes=1)
    assert not (tmp_path / "packed").exists()


def _copied(packed: PackedDataset, tmp_path: Path) -> Path:
    """LMDB keeps the file of a path open; damage is done to a copy."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("data.mdb", "packed.json"):
        (copy / name).write_bytes((packed.folder / name).read_bytes())
    return copy


def test_a_file_that_was_cut_short_is_refused(packed: PackedDataset, tmp_path: Path) -> None:
    folder = _copied(packed, tmp_path)
    data = folder / "data.mdb"
    data.write_bytes(data.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"data\.mdb: cut short"):
        PackedDataset(folder)


def test_a_file_of_something_else_is_refused(packed: PackedDataset, tmp_path: Path) -> None:
    folder = _copied(packed, tmp_path)
    (folder / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(UserError, match=r"data\.mdb: cannot be read"):
        PackedDataset(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99, but this version of t2sda reads format 1"),
        ({"taxonomy": {"name": "x"}}, "damaged, or written by another version"),
        ({"name": "a/b"}, "damaged, .*a name has no /"),
        ({"num_images": 9}, "cut short"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    packed: PackedDataset, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = _copied(packed, tmp_path)
    header = json.loads((folder / "packed.json").read_text())
    (folder / "packed.json").write_text(json.dumps({**header, **change}))
    with pytest.raises(UserError, match=message):
        PackedDataset(folder)


def test_a_missing_sample_is_named(packed: PackedDataset, tmp_path: Path) -> None:
    folder = _copied(packed, tmp_path)
    with (
        lmdb.open(str(folder), map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(image_key(1), b"short")
    with pytest.raises(UserError, match="sample 1 is missing or damaged"):
        PackedDataset(folder).load_image(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0", "5"], "give a height and a width"),
        (["--size", "5", "5", "--workers", "0"], "--workers 0: give 1 or more"),
    ],
)
def test_arguments_that_cannot_be(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "packed")]
    assert main(["data", "pack", "streets_clear_val", *arguments, *output]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_name_is_told_as_ever() -> None:
    with pytest.raises(UserError, match="no dataset is called 'nowhere'"):
        open_dataset("nowhere")


def test_sixteen_bit_labels_become_train_ids(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    ids = (np.arange(600) % 19).astype(np.uint16).reshape(20, 30)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images/a.png")
    Image.fromarray(ids).save(tmp_path / "labels/a.png")
    spec = DatasetSpec("wide", str(tmp_path), "images/*.png", "labels/{stem}.png", CITYSCAPES_19)
    pack_dataset(spec.open(), (20, 30), tmp_path / "packed", num_processes=1)
    np.testing.assert_array_equal(PackedDataset(tmp_path / "packed").load_label(0), ids)
