"""Label tables of public street sets: the ids or colors in their files -> Cityscapes' 19 classes.

They are applied when a label is read; no converted files are needed. Every id that a set defines
is in its table: one that is not there is an error, never silently ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from t2sda.constants import IGNORE_INDEX
from t2sda.data.taxonomies import CITYSCAPES_19, Color, Taxonomy


def _train_ids(classes: Mapping[str, tuple[int, ...]], known: range) -> dict[int, int]:
    """Raw id -> train id; ids of `known` that belong to no class are ignored."""
    names = CITYSCAPES_19.class_names
    table = {raw: names.index(name) for name, ids in classes.items() for raw in ids}
    return {**dict.fromkeys(known, IGNORE_INDEX), **table}


_CITYSCAPES_IDS = {
    "road": (7,),
    "sidewalk": (8,),
    "building": (11,),
    "wall": (12,),
    "fence": (13,),
    "pole": (17,),
    "traffic light": (19,),
    "traffic sign": (20,),
    "vegetation": (21,),
    "terrain": (22,),
    "sky": (23,),
    "person": (24,),
    "rider": (25,),
    "car": (26,),
    "truck": (27,),
    "bus": (28,),
    "train": (31,),
    "motorcycle": (32,),
    "bicycle": (33,),
}

CITYSCAPES_LABEL_IDS = replace(
    CITYSCAPES_19,
    name="cityscapes_label_ids",
    train_ids=_train_ids(_CITYSCAPES_IDS, range(34)),
)
"""`*_gtFine_labelIds.png`: ids 0 to 33 as in cityscapesScripts (docs/fidelity.md, A6)."""

GTA5_LABEL_IDS = replace(
    CITYSCAPES_19,
    name="gta5_label_ids",
    train_ids=_train_ids(_CITYSCAPES_IDS, range(35)),
)
"""GTA5's palette indices: Cityscapes' ids, and 34 for licence plates (docs/fidelity.md, A6)."""

_SYNTHIA_IDS = {
    "road": (3,),
    "sidewalk": (4,),
    "building": (2,),
    "wall": (21,),
    "fence": (5,),
    "pole": (7,),
    "traffic light": (15,),
    "traffic sign": (9,),
    "vegetation": (6,),
    "terrain": (16,),
    "sky": (1,),
    "person": (10,),
    "rider": (17,),
    "car": (8,),
    "truck": (18,),
    "bus": (19,),
    "train": (20,),
    "motorcycle": (12,),
    "bicycle": (11,),
}

SYNTHIA_LABEL_IDS = replace(
    CITYSCAPES_19,
    name="synthia_label_ids",
    train_ids=_train_ids(_SYNTHIA_IDS, range(23)),
)
"""SYNTHIA-RAND-CITYSCAPES, ids 0 to 22; terrain, truck and train never occur in it.

Ignored: 0 void, 13 parking slot, 14 road work, 22 lane marking (docs/fidelity.md, A6)."""

CAMVID_11_IDS = replace(
    CITYSCAPES_19,
    name="camvid_11_ids",
    train_ids=_train_ids(
        {
            "sky": (0,),
            "building": (1,),
            "pole": (2,),
            "road": (3,),
            "sidewalk": (4,),
            "vegetation": (5,),
            "traffic sign": (6,),
            "fence": (7,),
            "car": (8,),
            "person": (9,),
            "bicycle": (10,),
        },
        range(12),
    ),
)
"""CamVid in the 11-class copy of the SegNet tutorial, 11: unlabelled."""

_CAMVID_COLORS: Mapping[str, tuple[Color, ...]] = {
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),  # lane markings
    "sidewalk": ((0, 0, 192),),
    "building": ((128, 0, 0), (192, 0, 128), (0, 128, 64), (64, 0, 64)),  # archway, bridge, tunnel
    "wall": ((64, 192, 0),),
    "fence": ((64, 64, 128),),
    "pole": ((192, 192, 128),),
    "traffic light": ((0, 64, 64),),
    "traffic sign": ((192, 128, 128), (128, 128, 64)),  # other text
    "vegetation": ((128, 128, 0), (192, 192, 0)),  # grass and other plants
    "sky": ((128, 128, 128),),
    "person": ((64, 64, 0), (192, 128, 64)),  # child
    "car": ((64, 0, 128), (64, 128, 192)),  # SUV, pickup
    "truck": ((192, 128, 192),),  # and bus
    "train": ((192, 64, 128),),
    "motorcycle": ((192, 0, 192),),
    "bicycle": ((0, 128, 192),),  # with its rider
}
_CAMVID_IGNORED: tuple[Color, ...] = (
    (0, 0, 0),  # void
    (64, 128, 64),  # animal
    (64, 0, 192),  # cart, luggage, pram
    (128, 64, 64),  # other moving
    (64, 192, 128),  # parking block
    (128, 128, 192),  # road shoulder
    (0, 0, 64),  # traffic cone
)

CAMVID_32_COLORS: Taxonomy = replace(
    CITYSCAPES_19,
    name="camvid_32_colors",
    label_colors={
        **{
            color: CITYSCAPES_19.class_names.index(name)
            for name, colors in _CAMVID_COLORS.items()
            for color in colors
        },
        **dict.fromkeys(_CAMVID_IGNORED, IGNORE_INDEX),
    },
)
"""CamVid's own labels, 32 colors; scored in groups, as its classes are not quite Cityscapes'."""

TAXONOMIES: dict[str, Taxonomy] = {
    taxonomy.name: taxonomy
    for taxonomy in (
        CITYSCAPES_19,
        CITYSCAPES_LABEL_IDS,
        GTA5_LABEL_IDS,
        SYNTHIA_LABEL_IDS,
        CAMVID_11_IDS,
        CAMVID_32_COLORS,
    )
}
"""By the name that a dataset's YAML file gives."""
