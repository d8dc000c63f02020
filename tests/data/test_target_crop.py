"""DATA.TARGET_CROP class_balanced: of ten crops the one with the most even classes."""

from __future__ import annotations

import logging
import math
from collections import Counter

import numpy as np
import pytest

from t2sda.data.samplers import sample_generator
from t2sda.data.target_crop import NUM_CANDIDATES, class_balanced_box
from t2sda.data.transforms import Box, random_box
from t2sda.errors import UserError
from tests.data.test_domains import Ramp, ramp_pairs, sample_at

CROP = (16, 24)


def streets(generator: np.random.Generator) -> np.ndarray:
    """Blocks of six classes, of which one is rare, and of nothing."""
    classes = np.array([0, 1, 2, 11, 255, 0, 0], dtype=np.uint8)
    blocks = classes[generator.integers(len(classes), size=(8, 10))]
    return blocks.repeat(10, axis=0).repeat(10, axis=1)


def expected_box(label: np.ndarray, share: float, generator: np.random.Generator) -> Box:
    """The rule in a loop over pixels."""
    boxes = [random_box(label.shape, CROP, generator) for _ in range(10)]
    best, best_sum = boxes[0], -math.inf
    for box in boxes:
        counts = Counter(value for value in box.of(label).ravel().tolist() if value != 255)
        if not counts or max(counts.values()) / counts.total() >= share:
            continue
        total = sum(math.log(count) for count in counts.values())
        if total > best_sum + 1e-4:  # float32 on the other side; ties are of the first
            best, best_sum = box, total
    return best


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_the_box_is_that_of_the_rule(share: float) -> None:
    changed = 0
    for position in range(30):
        label = streets(sample_generator(0, position, "label"))
        first, second, third = (sample_generator(1, position, "crop") for _ in range(3))
        found = class_balanced_box(label, CROP, share, first)
        assert found == expected_box(label, share, second)
        changed += found != random_box(label.shape, CROP, third)
    assert changed > 20


def test_where_no_crop_is_even_enough_the_random_one_is_taken() -> None:
    for value in (0, 255):
        label = np.full((80, 100), value, dtype=np.uint8)
        found = class_balanced_box(label, CROP, 0.75, sample_generator(0, 0, "crop"))
        assert found == random_box(label.shape, CROP, sample_generator(0, 0, "crop"))
    assert NUM_CANDIDATES == 10


class Labelled(Ramp):
    """A target with labels of its own; what they are says which crop is taken."""

    has_made_labels = True

    def __init__(self, label: np.ndarray) -> None:
        super().__init__()
        self.label = label

    def load_label(self, index: int) -> np.ndarray:
        return self.label


def test_crops_of_a_run_are_chosen_by_labels_outside_the_margins_and_hand_none_over() -> None:
    size = Ramp().load(0).image.shape[:2]
    label = np.zeros(size, dtype=np.uint8)
    label[:, size[1] // 2 :] = 1  # even at the border between the two
    label[: size[0] // 4] = 2  # in the margin
    pairs = ramp_pairs(
        Ramp(),
        Labelled(label),
        target_crop="class_balanced",
        target_margins=(size[0] // 4, 0, 0, 0),
    )
    random = ramp_pairs(Ramp(), Labelled(label), target_margins=(size[0] // 4, 0, 0, 0))
    inside = np.where(np.arange(size[0])[:, None] < size[0] // 4, np.uint8(255), label)
    differing = 0
    for position in range(8):
        sample, plain = sample_at(pairs, position).target, sample_at(random, position).target
        assert sample is not None
        assert plain is not None
        assert sample.label is None
        box = class_balanced_box(
            inside, pairs.crop_size, 1.0, sample_generator(pairs.seed, position, "target crop")
        )
        assert pairs.target is not None
        index = pairs.target_order.index_at(position)  # type: ignore[union-attr]
        expected = box.of(pairs.target.load(index).image)
        if pairs._flips(position, "target"):
            expected = expected[:, ::-1]
        np.testing.assert_array_equal(sample.image, expected)
        differing += not np.array_equal(sample.image, plain.image)
    assert differing > 0


def test_a_target_without_labels_is_refused_and_true_ones_are_called_an_oracle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(UserError, match=r"class_balanced reads .* `t2sda pseudo-label`"):
        ramp_pairs(Ramp(), Ramp(labelled=False), target_crop="class_balanced")
    with pytest.raises(UserError, match="TARGET: empty, but DATA.TARGET_CROP class_balanced"):
        ramp_pairs(Ramp(), None, target_crop="class_balanced")
    with caplog.at_level(logging.WARNING, logger="t2sda"):
        ramp_pairs(Ramp(), Ramp(), target_crop="class_balanced")
    assert "the run chooses crops by the true labels of 'ramp', the target" in caplog.text
