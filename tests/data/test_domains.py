"""Batches by position: the same for any number of workers, fresh or resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from t2sda.config import ConfigError, load_config
from t2sda.data.catalog import DATASETS, DatasetSpec, DrawnStreetsSpec, open_dataset
from t2sda.data.datasets import Sample, SegmentationDataset
from t2sda.data.domains import DomainPairs, valid_within_margins
from t2sda.data.loader import DomainLoader
from t2sda.data.samplers import MicroBatchPositions
from t2sda.data.samples import DomainSample, FailedSample, collate
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.data.transforms import AS_STORED
from t2sda.data.translation.fda import FdaTranslator
from t2sda.errors import UserError
from t2sda.structures import DomainBatch

T2SDA = (
    *("META_ARCH.NAME", "T2SDA", "DATASETS.TARGET", "streets_hazy_train"),
    *("TRANSLATION.NAME", "FDA", "HOOKS.NAMES", "[EmaTeacher]"),
    *("DATA.CROP_SIZE", "[64, 96]", "DATA.TARGET_MARGINS", "[5, 7, 0, 0]"),
)


RARE_CLASSES = (
    *("RARE_CLASSES.ENABLED", "true", "RARE_CLASSES.MIN_SHARE", "0.0005"),
    *("RARE_CLASSES.CROP_FACTOR", "4", "RARE_CLASSES.TEMPERATURE", "0.1"),
)


def batches(
    num_workers: int, first_iteration: int = 0, extra: tuple[str, ...] = ()
) -> list[DomainBatch]:
    positions = MicroBatchPositions(
        batch_size=2,
        accumulation=1,
        world_size=1,
        rank=0,
        first_iteration=first_iteration,
        max_iter=4,
    )
    pairs = DomainPairs.from_config(load_config(None, (*T2SDA, *extra)))
    return list(DomainLoader(pairs, positions, num_workers, pin_memory=False))


def same(first: DomainBatch, second: DomainBatch) -> bool:
    return all(
        (a is None and b is None) or torch.equal(a, b)
        for a, b in zip(first.__dict__.values(), second.__dict__.values(), strict=True)
    )


@pytest.mark.parametrize("num_workers", [1, 3])
def test_batches_do_not_depend_on_workers(num_workers: int) -> None:
    pairs = zip(batches(0), batches(num_workers), strict=True)
    assert all(same(first, second) for first, second in pairs)


def test_batches_do_not_depend_on_where_the_run_began() -> None:
    assert all(same(a, b) for a, b in zip(batches(0)[2:], batches(0, 2), strict=True))


@pytest.fixture
def few_streets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The drawn source, short enough to count its classes here."""
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path))
    source = DATASETS.get("streets_clear_train")
    assert isinstance(source, DrawnStreetsSpec)
    monkeypatch.setitem(DATASETS._components, source.name, replace(source, num_images=30))


@pytest.mark.usefixtures("few_streets")
def test_batches_with_rare_classes_do_not_depend_on_workers() -> None:
    pairs = zip(batches(0, 2, RARE_CLASSES), batches(2, 2, RARE_CLASSES), strict=True)
    assert all(same(first, second) for first, second in pairs)


@pytest.mark.usefixtures("few_streets")
def test_crops_hold_the_class_that_they_were_drawn_for() -> None:
    pairs = DomainPairs.from_config(load_config(None, (*T2SDA, *RARE_CLASSES)))
    assert pairs.rare_classes is not None
    held = []
    for position in range(12):
        sample = pairs[position]
        assert isinstance(sample, tuple)
        held.append(pairs.rare_classes.draw_at(position).train_id in sample[0].label)
    assert sum(held) >= 10  # some are so small that eleven draws miss them


def test_shapes_and_types() -> None:
    batch = batches(0)[0]
    assert batch.source_image.shape == (2, 3, 64, 96)
    assert batch.source_image.dtype == torch.uint8
    assert batch.source_label.dtype == torch.int64
    assert batch.translated_image is not None
    assert batch.translated_image.dtype == torch.float32
    # Same crop and flip: FDA changes colors smoothly, so the edges stay where they are.
    difference = batch.translated_image - batch.source_image
    assert (
        difference.diff(dim=-1).abs().mean() < 0.1 * batch.source_image.float().diff().abs().mean()
    )


def test_margins_by_hand() -> None:
    valid = valid_within_margins((5, 4), (1, 2, 0, 1))
    assert valid.astype(int).tolist() == [[0] * 4, [1, 1, 1, 0], [1, 1, 1, 0], [0] * 4, [0] * 4]
    assert not valid_within_margins((5, 4), (0, 9, 0, 0)).any()


CONFIGS = Path(__file__).parents[2] / "configs"
ON_STREETS = (
    *("DATASETS.SOURCE", "streets_clear_train", "DATA.SOURCE_SIZE", "[96, 192]"),
    *("DATA.SOURCE_WINDOW", "[80, 128]", "DATA.CROP_SIZE", "[64, 96]"),
)
TO_STREETS = (
    *("DATASETS.TARGET", "streets_hazy_train", "DATA.TARGET_SIZE", "[96, 192]"),
    *("DATA.TARGET_MARGINS", "[3, 12, 0, 0]"),
)


def samples_of(method: str, *extra: str) -> list[DomainSample]:
    """The first samples of a shipped configuration, on streets."""
    target = () if method == "source_only" else TO_STREETS
    path = CONFIGS / f"gta5_to_cityscapes/{method}_daformer_mit_b5.yaml"
    pairs = DomainPairs.from_config(load_config(path, (*ON_STREETS, *target, *extra)))
    samples = [pairs[position] for position in range(6)]
    assert not any(isinstance(sample, FailedSample) for sample in samples)
    return samples  # type: ignore[return-value]


def assert_same_source(first: list[DomainSample], second: list[DomainSample]) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.source.image, other.source.image)
        np.testing.assert_array_equal(one.source.label, other.source.label)


def test_rows_of_a_table_see_the_same_source_crops_and_flips_at_one_seed() -> None:
    alike = ("RARE_CLASSES.ENABLED", "false")  # which images are drawn is part of a method
    source_only = samples_of("source_only")
    daformer = samples_of("daformer", *alike)
    t2sda = samples_of("t2sda", *alike)
    assert_same_source(source_only, daformer)
    assert_same_source(source_only, t2sda)
    assert all(sample.source.translated is not None for sample in t2sda)
    for one, other in zip(daformer, t2sda, strict=True):
        assert one.target is not None
        assert other.target is not None
        np.testing.assert_array_equal(one.target.image, other.target.image)


@pytest.mark.usefixtures("few_streets")
def test_rows_with_rare_classes_see_the_same_source_crops_and_flips() -> None:
    rare = ("RARE_CLASSES.MIN_PIXELS", "50", "RARE_CLASSES.TEMPERATURE", "0.1")
    assert_same_source(samples_of("daformer", *rare), samples_of("t2sda", *rare))


@pytest.mark.parametrize("benchmark", ["gta5", "synthia"])
def test_every_shipped_row_of_a_benchmark_has_one_source_window(benchmark: str) -> None:
    shipped = [
        *(CONFIGS / f"{benchmark}_to_cityscapes").glob("*.yaml"),
        *(CONFIGS / "dg").glob(f"{benchmark}_*.yaml"),
    ]
    windows = {(512, 1024): set[str](), (1024, 2048): set[str]()}
    for path in shipped:
        cfg = load_config(path)
        # Rows with their authors' own crops take the whole window at once.
        is_vit = cfg.MODEL.BACKBONE.NAME == "TimmViT"
        kind = "TimmViT" if is_vit else cfg.MODEL.NAME
        windows[cfg.DATA.SOURCE_WINDOW or cfg.DATA.CROP_SIZE].add(kind)
    # Rows of HRDA and of today's encoders are at twice the size, and have tables of their own.
    assert windows == {(512, 1024): {"SegmentationModel"}, (1024, 2048): {"HRDA", "TimmViT"}}


class Ramp(SegmentationDataset):
    """Red is the column, green the row, the label the column divided by 16."""

    name = "ramp"
    taxonomy = CITYSCAPES_19
    class_groups = ()

    def __init__(self, size: tuple[int, int] = (120, 240), labelled: bool = True) -> None:
        self.size = size
        self._labelled = labelled

    def __len__(self) -> int:
        return 7

    @property
    def labelled(self) -> bool:
        return self._labelled

    def load(self, index: int, with_label: bool = True) -> Sample:
        rows, columns = np.indices(self.size, dtype=np.uint8)
        image = np.stack([columns, rows, np.full(self.size, index, np.uint8)], axis=-1)
        return Sample(f"{self.name}[{index}]", image, columns // 16 if with_label else None)

    def label_identity(self) -> Iterator[str]:
        yield "ramp"


def ramp_pairs(source: Ramp, target: SegmentationDataset | None, **changes: object) -> DomainPairs:
    options: dict[str, object] = {
        "translator": None,
        "source_resize": AS_STORED,
        "target_resize": AS_STORED,
        "crop_size": (40, 64),
        "max_class_share": 1.0,
        "target_margins": (0, 0, 0, 0),
        "seed": 0,
    }
    return DomainPairs(source, target, **(options | changes))  # type: ignore[arg-type]


def sample_at(pairs: DomainPairs, position: int) -> DomainSample:
    sample = pairs[position]
    assert isinstance(sample, DomainSample), sample
    return sample


def slope(image: np.ndarray) -> float:
    """Columns of the stored image that a column of the crop covers."""
    return abs(float(np.diff(image[:, 2:-2, 0].astype(float), axis=1).mean()))


def test_a_scale_is_drawn_for_every_sample_and_domain_and_labels_follow_it() -> None:
    pairs = ramp_pairs(Ramp(), Ramp(), source_scale=(0.5, 1.5), target_scale=(0.5, 1.0))
    factors = []
    for position in range(40):
        sample = sample_at(pairs, position)
        assert sample.target is not None
        factors.append((1 / slope(sample.source.image), 1 / slope(sample.target.image)))
        # A cell's label is that of its own column: within two columns of a border of 16.
        off = sample.source.label != sample.source.image[..., 0] // 16
        near = (sample.source.image[..., 0].astype(int) + 2) % 16 < 5
        assert not (off & ~near).any()
    source, target = np.array(factors).T
    assert 0.48 < source.min() < 0.7
    assert 1.3 < source.max() < 1.55
    assert 0.48 < target.min() < 0.6
    assert 0.9 < target.max() < 1.03
    assert abs(np.corrcoef(source, target)[0, 1]) < 0.5  # 3 standard errors of 40 draws
    again = sample_at(pairs, 7)
    np.testing.assert_array_equal(again.source.image, sample_at(pairs, 7).source.image)


def test_margins_follow_the_scale() -> None:
    pairs = ramp_pairs(
        Ramp(), Ramp(), target_scale=(0.5, 0.5), crop_size=(60, 120), target_margins=(20, 10, 0, 4)
    )
    target = sample_at(pairs, 0).target
    assert target is not None
    expected = np.zeros((60, 120), bool)
    expected[10:55, :118] = True
    assert any(np.array_equal(target.valid, valid) for valid in (expected, expected[:, ::-1]))


def test_target_labels_have_the_crop_and_flip_of_their_image() -> None:
    pairs = ramp_pairs(Ramp(), Ramp(), target_labels=True, target_margins=(100, 0, 0, 0))
    samples = [sample_at(pairs, position) for position in range(8)]
    batch = collate(list(samples))
    assert isinstance(batch, DomainBatch)
    assert batch.target_image is not None
    assert batch.target_label is not None
    assert batch.target_label.dtype == torch.int64
    # Margins say where pseudo-labels count, not what the labels are.
    assert torch.equal(batch.target_label, batch.target_image[:, 0].long() // 16)


def test_target_labels_are_not_read_unless_a_pass_reads_them() -> None:
    class Unread(Ramp):
        def load_label(self, index: int) -> np.ndarray:
            raise AssertionError("read")

    assert sample_at(ramp_pairs(Ramp(), Unread()), 0).target is not None
    with pytest.raises(AssertionError, match="read"):
        ramp_pairs(Ramp(), Unread(), target_labels=True)[0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "DATASETS.TARGET: empty, but a pass reads the labels"),
        (Ramp(labelled=False), "dataset 'ramp' has none; give its `labels`"),
    ],
)
def test_target_labels_that_are_not_there_are_missed(target: Ramp | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ramp_pairs(Ramp(), target, target_labels=True)


def test_target_labels_of_other_classes_are_refused() -> None:
    names = CITYSCAPES_19.class_names
    other = Ramp()
    other.name = "piers"
    other.taxonomy = replace(CITYSCAPES_19, class_names=("pier", *names[1:]), things=())
    with pytest.raises(UserError, match=r"'ramp' has 'road' and 'piers' has 'pier'"):
        ramp_pairs(Ramp(), other, target_labels=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source_window": (121, 200)},
            r"ramp\[\d\]: 120x240 .* smaller than DATA.SOURCE_WINDOW 121x200; .*DATA.SOURCE_SIZE",
        ),
        (
            {"source_window": (100, 240), "source_scale": (0.7, 0.7)},
            r"84x168 .* DATA.SOURCE_WINDOW 100x240.*DATA.SOURCE_SIZE or DATA.SOURCE_SCALE_RANGE",
        ),
        (
            {"translator": FdaTranslator(0.01)},
            r"ramp\[\d\]: 80x200 .*smaller than the 120x240 of the source .*DATA.SOURCE_WINDOW to "
            r"\[80, 200\], or enlarge the target with DATA.TARGET_SIZE",
        ),
        (
            {"translator": FdaTranslator(0.01), "source_window": (90, 150)},
            r"80x200 .*smaller than the 90x150 of the source .*to \[80, 150\]",
        ),
    ],
)
def test_a_window_that_does_not_fit_says_what_to_set(
    changes: dict[str, object], message: str
) -> None:
    sample = ramp_pairs(Ramp(), Ramp(size=(80, 200)), **changes)[0]
    assert isinstance(sample, FailedSample)
    with pytest.raises(UserError, match=message):
        raise UserError(sample.message)


def test_a_window_smaller_than_the_crop_is_refused_with_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"DATA.SOURCE_WINDOW: 50x90 .*DATA.CROP_SIZE 64x96"):
        load_config(None, ("DATA.SOURCE_WINDOW", "[50, 90]", "DATA.CROP_SIZE", "[64, 96]"))
    with pytest.raises(ConfigError, match=r"DATA.SOURCE_SCALE_RANGE: 2.0 is larger than 1.0"):
        load_config(None, ("DATA.SOURCE_SCALE_RANGE", "[2, 1]"))
    with pytest.raises(ConfigError, match=r"DATA.SOURCE_SIZE: \(64,\) is not \(height, width\)"):
        load_config(None, ("DATA.SOURCE_SIZE", "[64]"))


@pytest.mark.parametrize("source", ["harbour", "[streets_clear_val, harbour]", "[harbour]"])
def test_a_source_whose_labels_are_all_ignored_is_refused(
    source: str, harbour: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = replace(CITYSCAPES_19, train_ids=dict.fromkeys(range(19), 255))
    monkeypatch.setitem(DATASETS._components, "harbour", replace(harbour, taxonomy=ignored))
    cfg = load_config(None, ("DATASETS.SOURCE", source))
    with pytest.raises(UserError, match=r"dataset 'harbour': all pixels of 5 of its labels are"):
        DomainPairs.from_config(cfg)


def test_an_unknown_dataset_says_how_to_describe_one() -> None:
    with pytest.raises(UserError, match=r"'streets_clear_vall'.*DATASETS.FILES.*--file"):
        open_dataset("streets_clear_vall")


def test_flips_do_not_depend_on_how_often_a_crop_is_drawn_anew() -> None:
    def flips(max_class_share: float) -> list[bool]:
        pairs = ramp_pairs(Ramp(), None, max_class_share=max_class_share)
        images = (sample_at(pairs, position).source.image for position in range(20))
        return [bool(image[0, 0, 0] > image[0, -1, 0]) for image in images]

    assert flips(1.0) == flips(0.2)  # no crop has so little of every class: 11 draws each
    assert 4 <= sum(flips(1.0)) <= 16
