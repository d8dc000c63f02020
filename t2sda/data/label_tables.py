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


def _by_name(
    classes: Mapping[str, tuple[Color, ...]], ignored: tuple[Color, ...]
) -> dict[Color, int]:
    """Color -> train id."""
    names = CITYSCAPES_19.class_names
    table = {color: names.index(name) for name, colors in classes.items() for color in colors}
    return {**table, **dict.fromkeys(ignored, IGNORE_INDEX)}


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
    label_colors=_by_name(_CAMVID_COLORS, ignored=_CAMVID_IGNORED),
)
"""CamVid's own labels, 32 colors; scored in groups, as its classes are not quite Cityscapes'."""

MAPILLARY_V1_2_IDS = replace(
    CITYSCAPES_19,
    name="mapillary_v1_2_ids",
    train_ids=_train_ids(
        {
            "road": (13, 24, 41),  # lane markings, manholes
            "sidewalk": (2, 15),  # curbs
            "building": (17,),
            "wall": (6,),
            "fence": (3,),
            "pole": (45, 47),  # utility poles
            "traffic light": (48,),
            "traffic sign": (50,),  # fronts; backs (49) are ignored, as in Cityscapes
            "vegetation": (30,),
            "terrain": (29,),
            "sky": (27,),
            "person": (19,),
            "rider": (20, 21, 22),
            "car": (55,),
            "truck": (61,),
            "bus": (54,),
            "train": (58,),
            "motorcycle": (57,),
            "bicycle": (52,),
        },
        range(66),
    ),
)
"""Mapillary Vistas, the 66 classes of v1.2: ids in the order of its `config_v1.2.json`, as
mmsegmentation lists them (docs/en/user_guides/2_dataset_prepare.md); onto Cityscapes as
github.com/tue-mps/benchmark-vfm-ss (datasets/mappings.py) and DAFormer's authors map them."""

IDD_LEVEL3_IDS = replace(
    CITYSCAPES_19,
    name="idd_level3_ids",
    train_ids={IGNORE_INDEX: IGNORE_INDEX}
    | _train_ids(
        {
            "road": (0,),
            "sidewalk": (2,),
            "building": (22,),
            "wall": (14,),
            "fence": (15,),
            "pole": (20,),
            "traffic light": (19,),
            "traffic sign": (18,),
            "vegetation": (24,),
            "terrain": (3,),  # "non-drivable fallback", whose csTrainId is terrain; and rail tracks
            "sky": (25,),  # and "fallback background"
            "person": (4,),  # and animals
            "rider": (5,),
            "car": (9,),
            "truck": (10,),
            "bus": (11,),
            "motorcycle": (6,),
            "bicycle": (7,),
        },
        range(26),
    ),
)
"""IDD's `*_gtFine_labellevel3Ids.png`, ids 0 to 25 and 255, as the public code of AutoNUE writes
them (github.com/AutoNUE/public-code, helpers/anue_labels.py).

Level 3 joins classes that Cityscapes tells apart; trains are among "vehicle fallback" (12), which
is ignored. `t2sda data convert idd` reads the polygons themselves and keeps them apart."""

VKITTI2_COLORS = replace(
    CITYSCAPES_19,
    name="vkitti2_colors",
    label_colors=_by_name(
        {
            "road": ((100, 60, 100),),
            "building": ((140, 140, 140),),
            "pole": ((255, 130, 0),),
            "traffic light": ((200, 200, 0),),
            "traffic sign": ((255, 255, 0),),
            "vegetation": ((0, 199, 0), (90, 240, 0)),  # tree, vegetation
            "terrain": ((210, 0, 200),),
            "sky": ((90, 200, 255),),
            "car": ((255, 127, 80), (0, 139, 139)),  # car, van
            "truck": ((160, 60, 60),),
        },
        ignored=(
            (250, 100, 255),  # guard rail, which Cityscapes ignores as well
            (80, 80, 80),  # misc
            (0, 0, 0),  # undefined
        ),
    ),
)
"""Virtual KITTI 2's `classgt_*.png`, by the colors of its `colors.txt`
(https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2/)."""

CARLA_TAGS = replace(
    CITYSCAPES_19,
    name="carla_tags",
    train_ids={
        **dict.fromkeys(range(29), IGNORE_INDEX),
        **{tag: tag - 1 for tag in range(1, 20)},
        24: 0,
    },
)
"""CARLA's semantic tags since 0.9.14, in the red channel: 1 to 19 are Cityscapes' classes in their
order, 24 is lane markings; 0 and the others up to 28 (static, dynamic, other, water, ground,
bridge, rail track, guard rail) are ignored (https://carla.readthedocs.io/en/0.9.15/ref_sensors/).
"""

CARLA_TAGS_0_9_13 = replace(
    CITYSCAPES_19,
    name="carla_tags_0_9_13",
    train_ids=_train_ids(
        {
            "road": (6, 7),  # lane markings
            "sidewalk": (8,),
            "building": (1,),
            "wall": (11,),
            "fence": (2,),
            "pole": (5,),
            "traffic light": (18,),
            "traffic sign": (12,),
            "vegetation": (9,),
            "terrain": (22,),
            "sky": (13,),
            "person": (4,),
            "car": (10,),  # all vehicles, two-wheelers with them
        },
        range(23),
    ),
)
"""CARLA's tags up to 0.9.13, ids 0 to 22 (https://carla.readthedocs.io/en/0.9.13/ref_sensors/)."""

_COMMA10K_COLORS: dict[str, Color] = {
    "road": (0x40, 0x20, 0x20),
    "lane markings": (0xFF, 0x00, 0x00),
    "undrivable": (0x80, 0x80, 0x60),
    "movable": (0x00, 0xFF, 0x66),
    "my car": (0xCC, 0x00, 0xFF),
}
COMMA10K = Taxonomy(
    name="comma10k",
    class_names=tuple(_COMMA10K_COLORS),
    palette=tuple(_COMMA10K_COLORS.values()),
    label_colors={color: index for index, color in enumerate(_COMMA10K_COLORS.values())},
    things=("movable",),
)
"""comma10k's five classes and their colors (github.com/commaai/comma10k, README.md)."""

TAXONOMIES: dict[str, Taxonomy] = {
    taxonomy.name: taxonomy
    for taxonomy in (
        CITYSCAPES_19,
        CITYSCAPES_LABEL_IDS,
        GTA5_LABEL_IDS,
        SYNTHIA_LABEL_IDS,
        CAMVID_11_IDS,
        CAMVID_32_COLORS,
        MAPILLARY_V1_2_IDS,
        IDD_LEVEL3_IDS,
        VKITTI2_COLORS,
        CARLA_TAGS,
        CARLA_TAGS_0_9_13,
    )
}
"""Those with Cityscapes' classes, by the name that a dataset's YAML file gives."""
