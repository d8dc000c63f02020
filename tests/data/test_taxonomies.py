"""Train-id tables and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.data.taxonomies import CITYSCAPES_19, STREET_GROUPS_11, LabelIdError, Taxonomy
from t2sda.errors import UserError

TWO = ("land", "water")
COLORS = ((0, 0, 0), (255, 255, 255))


def test_raw_ids_become_train_ids() -> None:
    taxonomy = Taxonomy("harbour", TWO, COLORS, train_ids={7: 0, 300: 1, 0: 255})
    raw = np.array([[7, 300], [0, 7]], dtype=np.uint16)
    np.testing.assert_array_equal(taxonomy.to_train_ids(raw), [[0, 1], [255, 0]])


def test_train_ids_pass_through_without_a_table() -> None:
    label = np.array([[0, 18, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(CITYSCAPES_19.to_train_ids(label), label)


def test_unknown_ids_are_named_with_what_is_known() -> None:
    label = np.array([[0, 19, 33]], dtype=np.uint8)
    with pytest.raises(LabelIdError, match=r"ids 19, 33 are unknown .*known: 0 to 18 and 255"):
        CITYSCAPES_19.to_train_ids(label)


@pytest.mark.parametrize(
    ("names", "palette", "train_ids", "message"),
    [
        (("one",), ((0, 0, 0),), {}, "1 classes; 2 to 255"),
        (TWO, ((0, 0, 0),), {}, "1 colors for 2 classes"),
        (("a", "a"), COLORS, {}, "two classes have the same name"),
        (TWO, COLORS, {5: 2}, r"do not exist: \{5: 2\}"),
    ],
)
def test_contradicting_tables_are_refused(
    names: tuple[str, ...],
    palette: tuple[tuple[int, int, int], ...],
    train_ids: dict[int, int],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        Taxonomy("odd", names, palette, train_ids)


def test_eleven_groups_hold_every_cityscapes_class_once() -> None:
    members = [train_id for group in STREET_GROUPS_11 for train_id in group.train_ids]
    assert sorted(members) == list(range(19))


def test_subsets_leave_out_what_synthia_lacks() -> None:
    names = CITYSCAPES_19.class_names
    lacking = {names[i] for i in set(range(19)) - set(CITYSCAPES_19.subsets["mIoU16"])}
    further = {
        names[i]
        for i in set(CITYSCAPES_19.subsets["mIoU16"]) - set(CITYSCAPES_19.subsets["mIoU13"])
    }
    assert lacking == {"terrain", "truck", "train"}
    assert further == {"wall", "fence", "pole"}
