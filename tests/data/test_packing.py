"""A packed set gives what the original gives at its size, whole or not at all."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from t2sda.cli.main import main
from t2sda.config import load_config
from t2sda.data.catalog import DATASETS, DatasetSpec
from t2sda.data.dataset_files import read_dataset_file, register_dataset_files
from t2sda.data.datasets import DrawnStreets, FileDataset
from t2sda.data.domains import DomainPairs
from t2sda.data.label_tables import SYNTHIA_LABEL_IDS
from t2sda.data.manifest import Difference, differences
from t2sda.data.packing import DESCRIPTION_NAME, pack_dataset
from t2sda.data.taxonomies import CITYSCAPES_19, ClassGroup, Taxonomy
from t2sda.data.transforms import keep_ratio_size, resize_image, resize_label
from t2sda.errors import UserError
from tests.components import components_restored
from tests.full_disk import file_size_limit

BOUND = (20, 24)
"""Five images of 40x60 become 16x24."""


def opened(folder: Path) -> FileDataset:
    (spec,) = read_dataset_file(folder / DESCRIPTION_NAME)
    return spec.open()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class counts of the originals are cached where the test ends."""
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(harbour: DatasetSpec, tmp_path: Path) -> Path:
    """A packed harbour."""
    pack_dataset(harbour.open(), BOUND, tmp_path / "packed", num_processes=1)
    return tmp_path / "packed"


def test_images_and_labels_are_those_of_the_original_resized(
    harbour: DatasetSpec, folder: Path
) -> None:
    original, packed = harbour.open(), opened(folder)
    assert (len(packed), packed.labelled) == (len(original), True)
    assert packed.name == "harbour_20x24"
    for index in range(len(original)):
        sample, stored = original.load(index), packed.load(index)
        assert sample.label is not None
        assert stored.label is not None
        np.testing.assert_array_equal(stored.image, resize_image(sample.image, (16, 24)))
        np.testing.assert_array_equal(stored.label, resize_label(sample.label, (16, 24)))
        assert stored.name.endswith(f"images/00000{index}_{index}.png")


def test_class_counts_are_those_of_the_original_label(harbour: DatasetSpec, folder: Path) -> None:
    original, packed = harbour.open(), opened(folder)
    for index in range(len(original)):
        np.testing.assert_array_equal(packed.class_pixels(index), original.class_pixels(index))
        assert packed.class_pixels(index).sum() == 40 * 60


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"x" * 200, "cannot be read"), (b"", "cannot be read"), (None, r"holds int64 \(4, 20\)")],
)
def test_counts_that_do_not_fit_are_refused(
    folder: Path, content: bytes | None, message: str
) -> None:
    path = folder / "class_pixels.npy"
    counts = np.load(path)
    np.save(path, counts[:4]) if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=f"class_pixels.npy: {message}.*pack"):
        opened(folder).class_pixels(0)


def test_an_unlabelled_set_stays_unlabelled(harbour: DatasetSpec, tmp_path: Path) -> None:
    pack_dataset(replace(harbour, labels=None).open(), BOUND, tmp_path / "packed", num_processes=1)
    packed = opened(tmp_path / "packed")
    assert not packed.labelled
    assert packed.load(0).label is None


OWN = Taxonomy(
    name="own",
    class_names=("quay", "1.5", "null", *(f"class {index}" for index in range(16))),
    palette=tuple((index, 2 * index, 3 * index) for index in range(19)),
    train_ids={index: index for index in range(19)},
    subsets={"few": (0, 2)},
    things=("null",),
)


@pytest.mark.parametrize("taxonomy", [CITYSCAPES_19, SYNTHIA_LABEL_IDS, OWN])
def test_classes_groups_and_further_scores_survive(
    harbour: DatasetSpec, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    groups = (ClassGroup("first", (0,)), ClassGroup("rest", tuple(range(1, 19))))
    for labels in Path(harbour.root).glob("labels/*.png"):
        Image.fromarray(np.full((40, 60), 3, np.uint8)).save(labels)  # an id in all of them
    spec = replace(harbour, taxonomy=taxonomy, class_groups=groups)
    pack_dataset(spec.open(), BOUND, tmp_path / "packed", num_processes=1)
    packed = opened(tmp_path / "packed")
    plain = replace(taxonomy, train_ids={}, label_colors={}, name=packed.taxonomy.name)
    assert packed.taxonomy == plain
    assert packed.taxonomy.things == taxonomy.things
    assert packed.class_groups == groups


@given(
    size=st.tuples(st.integers(8, 3000), st.integers(8, 3000)),
    bound=st.tuples(st.integers(8, 3000), st.integers(8, 3000)),
)
def test_a_packed_size_is_not_resized_again(size: tuple[int, int], bound: tuple[int, int]) -> None:
    once = keep_ratio_size(size, bound)
    if min(once) > 0:
        assert keep_ratio_size(once, bound) == once


@pytest.mark.parametrize("rare", [False, True])
def test_batches_are_those_of_the_original(
    harbour: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rare: bool
) -> None:
    monkeypatch.setattr(DATASETS, "_components", {**DATASETS._components, "harbour": harbour})
    folder = tmp_path / "packed"
    argv = ["data", "pack", "harbour", "--size", "20", "24", "--output", str(folder)]
    assert main([*argv, "--workers", "1"]) == 0
    register_dataset_files([str(folder / DESCRIPTION_NAME)])

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

    for ours, theirs in zip(samples("harbour_20x24"), samples("harbour"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("key", "size", "is_warned"),
    [
        ("SOURCE_SIZE", "[40, 48]", True),
        ("SOURCE_SIZE", "[17, 26]", True),
        ("TARGET_SIZE", "[400, 480]", True),
        ("SOURCE_SIZE", "[20, 24]", False),
        ("TARGET_SIZE", "[10, 12]", False),
        ("SOURCE_SIZE", "[24, 20]", False),  # the longer side is meant, whichever it is
        ("SOURCE_SIZE", "[]", False),
    ],
)
def test_a_larger_size_than_was_packed_is_warned_of(
    key: str, size: str, is_warned: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with components_restored():
        register_dataset_files([str(folder / DESCRIPTION_NAME)])
        names = ("DATASETS.SOURCE", "harbour_20x24", "DATASETS.TARGET", "harbour_20x24")
        method = ("META_ARCH.NAME", "SelfTraining", "HOOKS.NAMES", "[EmaTeacher]")
        DomainPairs.from_config(load_config(None, (*names, *method, f"DATA.{key}", size)))
    wanted = size.strip("[]").replace(", ", "x")
    message = (
        f"dataset 'harbour_20x24' was packed at 20x24, and DATA.{key} enlarges it to {wanted}: "
        f"details of the originals are lost; set DATA.{key} to [20, 24], or pack it at {wanted}"
    )
    assert caplog.messages == [message] * is_warned


def test_images_are_stored_so_that_any_decoder_is_fast(tmp_path: Path) -> None:
    streets = DrawnStreets("streets", "clear", 1, 1, (64, 96))
    pack_dataset(streets, (64, 96), tmp_path / "packed", num_processes=1)
    (image,) = tmp_path.glob("packed/images/*.png")
    assert 64 * 96 * 3 < image.stat().st_size < 64 * 96 * 3 + 500
    (label,) = tmp_path.glob("packed/labels/*.png")
    assert label.stat().st_size < 64 * 96 / 2


def test_the_manifest_is_one_that_sha256sum_checks(folder: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert (folder / "SHA256SUMS").read_text().count("\n") == 5 + 5 + 3
    assert list(differences(folder)) == []


def test_damaged_missing_and_extra_files_are_named(folder: Path) -> None:
    damaged, missing, extra = (
        folder / name for name in ("images/000001_1.png", "stems.txt", "labels/.x")
    )
    content = bytearray(damaged.read_bytes())
    content[-30] ^= 1
    damaged.write_bytes(content)
    missing.unlink()
    extra.touch()
    assert set(differences(folder)) == {
        Difference(damaged, "damaged"),
        Difference(missing, "missing"),
        Difference(extra, "extra"),
    }
    (folder / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(UserError, match="SHA256SUMS: cannot be read"):
        list(differences(folder))


def test_an_image_that_is_missing_is_never_left_out(folder: Path) -> None:
    (folder / "images/000001_1.png").unlink()
    packed = opened(folder)
    assert len(packed) == 5
    with pytest.raises(UserError, match=r"images/000001_1\.png: no such file"):
        packed.load(1)


class _Stopping:
    """A progress after which the process is gone, as after a kill."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, indices: range, what: str) -> Iterator[int]:
        for index in indices:
            if index == self.after:
                raise KeyboardInterrupt
            yield index


class _Counting(DrawnStreets):
    """Streets that say which were drawn for their image."""

    drawn: tuple[int, ...] = ()

    def load_image(self, index, *arguments):  # type: ignore[no-untyped-def]
        self.drawn += (index,)
        return super().load_image(index, *arguments)


def test_a_stopped_packing_is_no_dataset_and_goes_on(tmp_path: Path) -> None:
    streets = _Counting("streets", "clear", 1, 6, (64, 64))
    folder = tmp_path / "packed"
    with pytest.raises(KeyboardInterrupt):
        pack_dataset(streets, (64, 64), folder, _Stopping(4), num_processes=1)
    assert not folder.exists()
    (partial,) = tmp_path.glob("packed.*.partial")
    assert not (partial / DESCRIPTION_NAME).exists()
    damaged = sorted(partial.glob("images/*"))[2]
    damaged.write_bytes(damaged.read_bytes()[:-40])  # as after a power failure
    (partial / "images/000004_streets_00004.png.partial").write_bytes(b"half")
    streets.drawn = ()
    pack_dataset(streets, (64, 64), folder, num_processes=1)
    assert streets.drawn == (2, 4, 5)
    assert not partial.exists()
    assert list(differences(folder)) == []
    packed = opened(folder)
    for index in range(6):
        np.testing.assert_array_equal(packed.load(index).image, streets.load(index).image)


def test_another_size_or_changed_files_start_anew(harbour: DatasetSpec, tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    with pytest.raises(KeyboardInterrupt):
        pack_dataset(harbour.open(), BOUND, folder, _Stopping(3), num_processes=1)
    Image.new("RGB", (60, 40), (9, 9, 9)).save(Path(harbour.root) / "images/0.png")
    for bound in (BOUND, (10, 12)):
        pack_dataset(harbour.open(), bound, folder, num_processes=1)
        assert opened(folder).load(0).image[0, 0].tolist() == [9, 9, 9]
        assert opened(folder).size_of(0) == keep_ratio_size((40, 60), bound)
        shutil.rmtree(folder)


def test_several_processes_write_the_same(tmp_path: Path) -> None:
    streets = DrawnStreets("streets", "hazy", 1, 20, (64, 64))
    sums = []
    for num_processes in (1, 2):
        pack_dataset(streets, (64, 64), tmp_path / str(num_processes), num_processes=num_processes)
        sums.append((tmp_path / str(num_processes) / "SHA256SUMS").read_text())
    assert sums[0] == sums[1]


def test_a_folder_in_use_is_left_alone(harbour: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(UserError, match="not empty; choose another folder"):
        pack_dataset(harbour.open(), BOUND, tmp_path / "mine")


def test_a_file_in_the_place_of_the_folder(harbour: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "packed").write_text("x")
    with pytest.raises(UserError, match=r"packed: is a file; choose a new folder"):
        pack_dataset(harbour.open(), BOUND, tmp_path / "packed")


def test_a_disk_that_runs_full_loses_nothing(tmp_path: Path) -> None:
    streets = _Counting("streets", "clear", 1, 4, (64, 64))
    pack_dataset(DrawnStreets("streets", "clear", 1, 4, (64, 64)), (64, 64), tmp_path / "other")
    (tmp_path / "packed").mkdir()  # an empty folder may be there
    with (
        file_size_limit(300),
        pytest.raises(UserError, match=r"partial: cannot be written .*space"),
    ):
        pack_dataset(streets, (64, 64), tmp_path / "packed", num_processes=1)
    assert not any((tmp_path / "packed").iterdir())
    pack_dataset(streets, (64, 64), tmp_path / "packed", num_processes=1)
    sums = [(tmp_path / name / "SHA256SUMS").read_text() for name in ("packed", "other")]
    assert sums[0] == sums[1]


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


def test_names_of_originals_become_names_that_any_system_takes(
    harbour: DatasetSpec, tmp_path: Path
) -> None:
    root = Path(harbour.root)
    for index, name in enumerate(("a b", "ü{x}", "c" * 150)):
        for kind in ("images", "labels"):
            (root / f"{kind}/{index}.png").rename(root / f"{kind}/{name}.png")
    pack_dataset(harbour.open(), BOUND, tmp_path / "packed", num_processes=1)
    names = [path.name for path in tmp_path.glob("packed/images/*")]
    assert all(re.fullmatch(r"\d{6}_[A-Za-z0-9._-]{1,80}\.png", name) for name in names)
    packed, original = opened(tmp_path / "packed"), harbour.open()
    for index in range(5):
        expected = resize_image(original.load(index).image, (16, 24))
        np.testing.assert_array_equal(packed.load(index).image, expected)


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


def test_sixteen_bit_labels_become_train_ids(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    ids = (np.arange(600) % 19).astype(np.uint16).reshape(20, 30)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images/a.png")
    Image.fromarray(ids).save(tmp_path / "labels/a.png")
    spec = DatasetSpec("wide", str(tmp_path), "images/*.png", "labels/{stem}.png", CITYSCAPES_19)
    pack_dataset(spec.open(), (20, 30), tmp_path / "packed", num_processes=1)
    np.testing.assert_array_equal(opened(tmp_path / "packed").load_label(0), ids)
