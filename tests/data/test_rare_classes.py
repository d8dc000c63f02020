"""Rare-class sampling: probabilities, candidates, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from t2sda.config import load_config
from t2sda.config.errors import ConfigError
from t2sda.data.catalog import DatasetSpec, open_dataset
from t2sda.data.class_statistics import class_frequencies
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.rare_classes import RareClassSampler, class_probabilities
from t2sda.errors import UserError

# Three images of 100 pixels, classes: common, rare, never; then ignored pixels.
PIXELS = np.array([[90, 0, 0, 10], [60, 40, 0, 0], [75, 5, 0, 20]])


@pytest.fixture
def streets() -> SegmentationDataset:
    return open_dataset("streets_clear_val")


def sampler(streets: SegmentationDataset, **changes: float) -> RareClassSampler:
    arguments = {
        "temperature": 0.5,
        "min_pixels": 4,
        "min_share": 0.0,
        "crop_factor": 0.5,
        "seed": 0,
    }
    return RareClassSampler(PIXELS, streets, **(arguments | changes))  # type: ignore[arg-type]


def test_frequencies_are_shares_of_the_labelled_pixels() -> None:
    np.testing.assert_allclose(class_frequencies(PIXELS), [225 / 270, 45 / 270, 0])


def test_probabilities_by_hand() -> None:
    # exp(.25 / .5) and exp(.75 / .5); the class that never occurs is not in the softmax
    common, rare = math.exp(0.5), math.exp(1.5)
    expected = [common / (common + rare), rare / (common + rare), 0]
    found = class_probabilities(np.array([0.75, 0.25, 0.0]), temperature=0.5)
    np.testing.assert_allclose(found, expected)


def test_the_default_temperature_does_not_overflow() -> None:
    found = class_probabilities(np.array([0.999, 0.001]), temperature=0.01)
    np.testing.assert_allclose(found, [0, 1], atol=1e-12)


def test_draws_follow_the_probabilities_and_take_candidates_alone(
    streets: SegmentationDataset,
) -> None:
    rare_classes = sampler(streets)
    draws = [rare_classes.draw_at(position) for position in range(2000)]
    share = np.mean([draw.train_id == 1 for draw in draws])
    assert share == pytest.approx(rare_classes.probabilities[1], abs=0.04)  # 4 standard errors
    assert {draw.image_index for draw in draws if draw.train_id == 1} == {1, 2}
    assert {draw.image_index for draw in draws if draw.train_id == 0} == {0, 1, 2}


def test_a_draw_follows_from_seed_and_position_alone(streets: SegmentationDataset) -> None:
    forwards = [sampler(streets).draw_at(position) for position in range(20)]
    again = sampler(streets)
    assert [again.draw_at(position) for position in reversed(range(20))] == forwards[::-1]
    assert [sampler(streets, seed=1).draw_at(i) for i in range(20)] != forwards


def test_a_share_holds_for_any_image_size(streets: SegmentationDataset) -> None:
    rare_classes = sampler(streets, min_share=0.1)
    assert rare_classes.candidates[1].tolist() == [1]
    wanted = rare_classes.wanted(1, (50, 40))
    assert wanted is not None
    assert wanted.pixels == pytest.approx(0.5 * 0.1 * 50 * 40)


def test_pixels_wanted_of_a_crop_are_those_of_the_baselines(streets: SegmentationDataset) -> None:
    # docs/fidelity.md, A3: more than 1500 in DAFormer, 6000 in HRDA, whatever the image's size
    for factor, expected in ((0.5, 2), (2.0, 8)):
        wanted = sampler(streets, crop_factor=factor).wanted(1, (704, 1280))
        assert wanted is not None
        assert wanted.pixels == expected
    assert sampler(streets, crop_factor=0).wanted(1, (704, 1280)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"min_pixels": 40},
            r"MIN_PIXELS 40: no image of dataset 'streets_clear_val' has more of these classes, "
            r"pixels: sidewalk \(at most 40\); set it below 40, or use MIN_SHARE",
        ),
        ({"min_share": 0.5}, r"MIN_SHARE 0.5: .* sidewalk \(at most 0.4\); set it below 0.4$"),
    ],
)
def test_a_class_without_images_is_refused(
    streets: SegmentationDataset, changes: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        sampler(streets, **changes)


def test_labels_without_any_class_are_refused(streets: SegmentationDataset) -> None:
    with pytest.raises(UserError, match="no label of dataset 'streets_clear_val' has a pixel"):
        RareClassSampler(
            np.array([[0, 0, 7]]),
            streets,
            temperature=0.01,
            min_pixels=0,
            min_share=0.0,
            crop_factor=0.0,
            seed=0,
        )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["RARE_CLASSES.TEMPERATURE", "0.1"], "only used when RARE_CLASSES.ENABLED is true"),
        (
            [
                *("RARE_CLASSES.ENABLED", "true", "RARE_CLASSES.MIN_SHARE", "0.01"),
                *("RARE_CLASSES.MIN_PIXELS", "100"),
            ],
            "MIN_SHARE is 0",
        ),
        (
            ["RARE_CLASSES.ENABLED", "true", "DATA.CROP_SIZE", "[32, 32]"],
            "more than the 1024 pixels of a crop",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_a_source_without_labels_is_refused(harbour: DatasetSpec, tmp_path: Path) -> None:
    from dataclasses import replace

    from t2sda.data.class_statistics import class_pixels

    with pytest.raises(UserError, match="'harbour' has no labels"):
        class_pixels(replace(harbour, labels=None).open())
