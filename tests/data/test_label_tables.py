"""The tables of public sets, entry by entry, and against the sets' own scripts."""

from __future__ import annotations

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels

from t2sda.data.label_tables import (
    CAMVID_11_IDS,
    CAMVID_32_COLORS,
    CITYSCAPES_LABEL_IDS,
    GTA5_LABEL_IDS,
    SYNTHIA_LABEL_IDS,
    TAXONOMIES,
)
from t2sda.data.taxonomies import CITYSCAPES_19, LabelIdError

EVALUATED = [label for label in cityscapes_labels if label.trainId not in (255, -1)]


def test_classes_and_colors_are_those_of_cityscapes_scripts() -> None:
    in_order = sorted(EVALUATED, key=lambda label: label.trainId)
    assert CITYSCAPES_19.class_names == tuple(label.name for label in in_order)
    assert CITYSCAPES_19.palette == tuple(label.color for label in in_order)


def test_cityscapes_table_is_that_of_cityscapes_scripts() -> None:
    # -1 is the licence plate, which is not painted into label files.
    expected = {label.id: label.trainId for label in cityscapes_labels if label.id >= 0}
    assert CITYSCAPES_LABEL_IDS.train_ids == expected


def test_gta5_table_entry_by_entry() -> None:
    # docs/fidelity.md, A6: the baseline's converter; all other palette entries are ignored.
    evaluated = {
        **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10},
        **{24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18},
    }
    assert GTA5_LABEL_IDS.train_ids == {**dict.fromkeys(range(35), 255), **evaluated}


def test_synthia_table_entry_by_entry() -> None:
    evaluated = {
        **{3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10},
        **{10: 11, 17: 12, 8: 13, 18: 14, 19: 15, 20: 16, 12: 17, 11: 18},
    }
    assert SYNTHIA_LABEL_IDS.train_ids == {**dict.fromkeys(range(23), 255), **evaluated}


def test_camvid_11_table_entry_by_entry() -> None:
    expected = {0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 18, 11: 255}
    assert CAMVID_11_IDS.train_ids == expected


@pytest.mark.parametrize(
    ("color", "name"),
    [
        ((128, 64, 128), "road"),  # Road
        ((128, 0, 192), "road"),  # LaneMkgsDriv
        ((192, 0, 64), "road"),  # LaneMkgsNonDriv
        ((0, 0, 192), "sidewalk"),  # Sidewalk
        ((128, 0, 0), "building"),  # Building
        ((192, 0, 128), "building"),  # Archway
        ((0, 128, 64), "building"),  # Bridge
        ((64, 0, 64), "building"),  # Tunnel
        ((64, 192, 0), "wall"),  # Wall
        ((64, 64, 128), "fence"),  # Fence
        ((192, 192, 128), "pole"),  # Column_Pole
        ((0, 64, 64), "traffic light"),  # TrafficLight
        ((192, 128, 128), "traffic sign"),  # SignSymbol
        ((128, 128, 64), "traffic sign"),  # Misc_Text
        ((128, 128, 0), "vegetation"),  # Tree
        ((192, 192, 0), "vegetation"),  # VegetationMisc
        ((128, 128, 128), "sky"),  # Sky
        ((64, 64, 0), "person"),  # Pedestrian
        ((192, 128, 64), "person"),  # Child
        ((64, 0, 128), "car"),  # Car
        ((64, 128, 192), "car"),  # SUVPickupTruck
        ((192, 128, 192), "truck"),  # Truck_Bus
        ((192, 64, 128), "train"),  # Train
        ((192, 0, 192), "motorcycle"),  # MotorcycleScooter
        ((0, 128, 192), "bicycle"),  # Bicyclist
        ((0, 0, 0), None),  # Void
        ((64, 128, 64), None),  # Animal
        ((64, 0, 192), None),  # CartLuggagePram
        ((128, 64, 64), None),  # OtherMoving
        ((64, 192, 128), None),  # ParkingBlock
        ((128, 128, 192), None),  # RoadShoulder
        ((0, 0, 64), None),  # TrafficCone
    ],
)
def test_camvid_colors_entry_by_entry(color: tuple[int, int, int], name: str | None) -> None:
    assert len(CAMVID_32_COLORS.label_colors) == 32
    raw = np.array([[color]], dtype=np.uint8)
    expected = 255 if name is None else CITYSCAPES_19.class_names.index(name)
    assert CAMVID_32_COLORS.to_train_ids(raw).tolist() == [[expected]]


def test_unknown_colors_are_named() -> None:
    raw = np.array([[(128, 64, 128), (1, 2, 3), (255, 255, 255)]], dtype=np.uint8)
    with pytest.raises(LabelIdError, match=r"colors \[1, 2, 3\], \[255, 255, 255\] are unknown"):
        CAMVID_32_COLORS.to_train_ids(raw)


@pytest.mark.parametrize("taxonomy", TAXONOMIES.values(), ids=list(TAXONOMIES))
def test_all_have_the_same_classes_so_any_may_be_scored_on_any(taxonomy) -> None:  # type: ignore[no-untyped-def]
    assert taxonomy.class_names == CITYSCAPES_19.class_names
    assert taxonomy.subsets == CITYSCAPES_19.subsets
