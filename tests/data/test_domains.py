"""Batches by position: the same for any number of workers, fresh or resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from t2sda.config import load_config
from t2sda.data.catalog import DATASETS, DrawnStreetsSpec
from t2sda.data.domains import DomainPairs, valid_within_margins
from t2sda.data.loader import DomainLoader
from t2sda.data.samplers import MicroBatchPositions
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
    return all(torch.equal(first.__dict__[name], second.__dict__[name]) for name in first.__dict__)


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
    # Same crop and flip: FDA changes colours smoothly, so the edges stay where they are.
    difference = batch.translated_image - batch.source_image
    assert (
        difference.diff(dim=-1).abs().mean() < 0.1 * batch.source_image.float().diff().abs().mean()
    )


def test_margins_by_hand() -> None:
    valid = valid_within_margins((5, 4), (1, 2, 0, 1))
    assert valid.astype(int).tolist() == [[0] * 4, [1, 1, 1, 0], [1, 1, 1, 0], [0] * 4, [0] * 4]
    assert not valid_within_margins((5, 4), (0, 9, 0, 0)).any()
