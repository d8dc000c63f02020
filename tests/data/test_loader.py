"""The loader: damaged files stop it or are replaced, for any number of workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2sda.data.catalog import DatasetSpec
from t2sda.data.domains import DomainPairs
from t2sda.data.loader import DomainLoader
from t2sda.data.replacements import REPLACEMENT_TRIES, Replacements
from t2sda.data.samplers import MicroBatchPositions
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.data.transforms import AS_STORED, Resize
from t2sda.errors import UnreadableFileError, UserError
from t2sda.structures import DomainBatch

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than cores


def pairs_of(source, target=None, on_error: str = "stop") -> DomainPairs:  # type: ignore[no-untyped-def]
    return DomainPairs(
        source,
        target,
        translator=None,
        source_resize=Resize((32, 48)),
        target_resize=AS_STORED,
        crop_size=(16, 24),
        max_class_share=0.75,
        target_margins=(3, 2, 1, 0),
        seed=5,
        on_error=on_error,
    )


def loader_of(pairs: DomainPairs, num_workers: int, first: int = 0, **options) -> DomainLoader:  # type: ignore[no-untyped-def]
    positions = MicroBatchPositions(
        batch_size=2, accumulation=1, world_size=1, rank=0, first_iteration=first, max_iter=12
    )
    return DomainLoader(pairs, positions, num_workers, pin_memory=False, **options)


def same(first: list[DomainBatch], second: list[DomainBatch]) -> bool:
    return all(
        (a is None and b is None) or torch.equal(a, b)
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one.__dict__.values(), other.__dict__.values(), strict=True)
    )


def damage(harbour: DatasetSpec) -> None:
    """Of five images one is cut short, and one label holds an unknown id."""
    root = Path(harbour.root)
    image = root / "images/1.png"
    image.write_bytes(image.read_bytes()[:500])
    Image.fromarray(np.full((40, 60), 77, np.uint8)).save(root / "labels/4.png")


def test_a_damaged_file_stops_the_run_with_its_name(harbour: DatasetSpec) -> None:
    damage(harbour)
    for num_workers in (0, 1):
        with pytest.raises(UserError, match=r"images/1\.png: cannot be decoded|labels/4\.png"):
            list(loader_of(pairs_of(harbour.open()), num_workers))


def test_batches_with_replacements_are_the_same_for_any_number_of_workers(
    harbour: DatasetSpec,
) -> None:
    damage(harbour)
    pairs = pairs_of(harbour.open(), harbour.open(), on_error="skip")
    told: list[str] = []
    alone = loader_of(pairs, 0, report=told.append)
    expected = list(alone)
    for num_workers in (1, 4):
        loader = loader_of(pairs, num_workers, report=lambda _: None)
        assert same(list(loader), expected)
        assert loader.skipped == alone.skipped
    resumed = list(loader_of(pairs, 1, first=7, report=lambda _: None))
    assert same(resumed, expected[7:])
    # Told once a file, counted every time: the image as source and as target.
    assert len(told) == len(alone.skipped) == 2
    assert any("images/1.png" in message for message in told)
    assert any("labels/4.png" in message and "label ids 77" in message for message in told)
    assert alone.skipped.total() > 4


def test_without_damage_nothing_is_replaced(harbour: DatasetSpec) -> None:
    stopping, skipping = pairs_of(harbour.open()), pairs_of(harbour.open(), on_error="skip")
    first, second = loader_of(stopping, 0), loader_of(skipping, 0)
    assert same(list(first), list(second))
    assert not second.skipped


def test_a_set_of_damaged_files_stops_even_when_skipping(harbour: DatasetSpec) -> None:
    for image in Path(harbour.root).glob("images/*.png"):
        image.write_bytes(b"")
    with pytest.raises(UserError, match=rf"{REPLACEMENT_TRIES + 1} source samples in a row .*png"):
        list(loader_of(pairs_of(harbour.open(), on_error="skip"), 0))


def test_a_setting_that_is_wrong_is_not_skipped(harbour: DatasetSpec) -> None:
    pairs = pairs_of(harbour.open(), on_error="skip")
    pairs.source_resize = Resize((8, 12))
    with pytest.raises(UserError, match=r"smaller than DATA\.CROP_SIZE"):
        list(loader_of(pairs, 0))


def test_replacements_follow_from_seed_and_position() -> None:
    drawn: dict[int, list[int]] = {seed: [] for seed in (1, 2)}

    for seed in (1, 1, 2):

        def make(drawn_at: int, seed: int = seed) -> int:
            drawn[seed].append(drawn_at)
            if len(drawn[seed]) % 4:
                raise UnreadableFileError("x: damaged")
            return drawn_at

        made, skipped = Replacements("skip", seed).usable(900, "source", 50, make)
        assert (made, len(skipped)) == (drawn[seed][-1], 3)
    assert drawn[1][:4] == drawn[1][4:]
    assert drawn[1][0] == drawn[2][0] == 900
    assert drawn[1][1:4] != drawn[2][1:4]
    assert all(
        0 <= number < 50 for numbers in drawn.values() for number in numbers if number != 900
    )


def test_batches_are_the_same_for_0_1_and_4_workers_fresh_or_resumed(harbour: DatasetSpec) -> None:
    pairs = pairs_of(harbour.open(), harbour.open())
    expected = list(loader_of(pairs, 0))
    for num_workers in (1, 4):
        assert same(list(loader_of(pairs, num_workers)), expected)
        assert same(list(loader_of(pairs, num_workers, first=5)), expected[5:])


def test_flips_and_crops_keep_image_and_label_together(tmp_path: Path) -> None:
    # Every pixel holds its own place, in the image and in the label: they must agree in the crop.
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    place = np.arange(40 * 60).reshape(40, 60)
    label = (place * 7 % 19).astype(np.uint8)
    image = np.stack([place // 256, place % 256, label], axis=-1).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "images/a.png")
    Image.fromarray(label).save(tmp_path / "labels/a.png")
    spec = DatasetSpec("places", str(tmp_path), "images/*.png", "labels/{stem}.png", CITYSCAPES_19)
    pairs = pairs_of(spec.open(), spec.open())
    pairs.source_resize = AS_STORED
    flips, corners = set(), set()
    for position in range(30):
        sample = pairs[position]
        source, target = sample.source, sample.target
        np.testing.assert_array_equal(source.image[..., 2], source.label)
        assert target is not None
        for crop in (source.image, target.image):
            places = crop[..., 0].astype(int) * 256 + crop[..., 1]
            step = places[0, 1] - places[0, 0]
            flips.add(step)
            top_left = places[0, 0] if step == 1 else places[0, -1]
            corners.add(int(top_left))
            window = place[top_left // 60 :][:16, top_left % 60 :][:, :24]
            np.testing.assert_array_equal(places, window if step == 1 else window[:, ::-1])
        rows, columns = np.divmod(target.image[..., 0].astype(int) * 256 + target.image[..., 1], 60)
        # Margins are those of the whole image: 3 rows above, 2 below, 1 column at the left.
        np.testing.assert_array_equal(target.valid, (rows >= 3) & (rows < 38) & (columns >= 1))
    assert flips == {1, -1}
    assert len(corners) > 40
