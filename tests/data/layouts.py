"""Tiny files, laid out and coded exactly as the public sets are distributed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HALVES = (slice(None, 4), slice(4, None))
"""Rows of the first and the second id of a label."""


def halves(first: int, second: int, size: tuple[int, int] = (8, 12)) -> np.ndarray:
    """(H, W) uint8: `first` in the upper four rows, `second` below."""
    label = np.full(size, second, dtype=np.uint8)
    label[:4] = first
    return label


def write_image(path: Path, size: tuple[int, int] = (8, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, dtype=np.uint8)).save(path)


def write_ids(path: Path, label: np.ndarray) -> None:
    """One channel of 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label).save(path)


def write_palette(path: Path, label: np.ndarray) -> None:
    """GTA5: indices into a palette of colors that say nothing about them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label, mode="P")
    image.putpalette([(7 * i + 3) % 256 for i in range(3 * 256)])
    image.save(path)


def write_synthia(path: Path, label: np.ndarray) -> None:
    """Three channels of 16 bits: class id, instance id, 0, in the order red, green, blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    instances = np.arange(label.size, dtype=np.uint16).reshape(label.shape) + 300
    red_green_blue = [label.astype(np.uint16), instances, np.zeros_like(instances)]
    assert cv2.imwrite(str(path), np.dstack(red_green_blue[::-1]))


def write_colors(path: Path, label: np.ndarray) -> None:
    """CamVid: (H, W, 3) colors."""
    write_ids(path, label)


def gta5(root: Path) -> None:
    write_image(root / "gta5/images/00001.png", (1046, 1914))
    write_palette(root / "gta5/labels/00001.png", halves(7, 34, (1046, 1914)))


def synthia(root: Path) -> None:
    folder = root / "synthia/RAND_CITYSCAPES"
    write_image(folder / "RGB/0000000.png")
    write_synthia(folder / "GT/LABELS/0000000.png", halves(3, 22))


def cityscapes(root: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "frankfurt"), ("test", "berlin")):
        frame = f"{city}/{city}_000000_000019"
        write_image(root / f"cityscapes/leftImg8bit/{split}/{frame}_leftImg8bit.png")
        fine = root / f"cityscapes/gtFine/{split}/{frame}_gtFine"
        write_ids(Path(f"{fine}_labelIds.png"), halves(33, 0))
        write_ids(Path(f"{fine}_instanceIds.png"), halves(200, 0))
        write_colors(Path(f"{fine}_color.png"), np.zeros((8, 12, 3), np.uint8))


def acdc(root: Path) -> None:
    for condition in ("fog", "night", "rain", "snow"):
        for split in ("train", "train_ref", "val", "val_ref", "test"):
            frame = f"{condition}/{split}/GOPR0475/GOPR0475_frame_000041"
            write_image(root / f"acdc/rgb_anon/{frame}_rgb_anon.png")
            if split in ("train", "val"):
                write_ids(root / f"acdc/gt/{frame}_gt_labelTrainIds.png", halves(18, 255))
                write_ids(root / f"acdc/gt/{frame}_gt_labelIds.png", halves(33, 0))


def dark_zurich(root: Path) -> None:
    for folder in ("train/night", "train/day", "train/twilight", "val/night", "test/night"):
        frame = f"{folder}/GOPR0356/GOPR0356_frame_000321"
        write_image(root / f"dark_zurich/rgb_anon/{frame}_rgb_anon.png")
    frame = "val/night/GOPR0356/GOPR0356_frame_000321"
    write_ids(root / f"dark_zurich/gt/{frame}_gt_labelTrainIds.png", halves(10, 255))


def bdd100k(root: Path) -> None:
    for split in ("train", "val", "test"):
        write_image(root / f"bdd100k/images/10k/{split}/0004a4c0-d4dff0ad.jpg")
        masks = root / "bdd100k/labels/sem_seg/masks"
        write_ids(masks / split / "0004a4c0-d4dff0ad.png", halves(16, 255))


def camvid(root: Path) -> None:
    write_image(root / "CamVid/701_StillsRaw_full/0001TP_006690.png")
    colors = np.zeros((8, 12, 3), dtype=np.uint8)
    colors[:4] = (192, 0, 192)
    write_colors(root / "CamVid/LabeledApproved_full/0001TP_006690_L.png", colors)


def camvid_segnet(root: Path) -> None:
    for split in ("train", "val", "test"):
        write_image(root / f"CamVid/{split}/0001TP_006690.png")
        write_ids(root / f"CamVid/{split}annot/0001TP_006690.png", halves(10, 11))


def mapillary(root: Path) -> None:
    """v2.0: labels of both versions; and the folder of v1.x, which is one level less."""
    for folder in ("training", "validation", "testing"):
        write_image(root / f"mapillary/{folder}/images/-3jT-yUQ.jpg")
    for folder in ("training", "validation"):
        labels = halves(61, 65)
        write_palette(root / f"mapillary/{folder}/v1.2/labels/-3jT-yUQ.png", labels)
        write_palette(root / f"mapillary/{folder}/v2.0/labels/-3jT-yUQ.png", halves(120, 123))
        write_palette(root / f"mapillary/{folder}/labels/-3jT-yUQ.png", labels)


def idd(root: Path) -> None:
    """Part I has PNG, part II JPEG, under the same folders. Polygons are distributed, the PNGs are
    made of them by the public code.
    """
    for split, ending in (("train", "png"), ("train", "jpg"), ("val", "jpg"), ("test", "jpg")):
        frame = f"{split}/201/frame0029{ending}"
        write_image(root / f"IDD_Segmentation/leftImg8bit/{frame}_leftImg8bit.{ending}")
        if split != "test":
            fine = root / f"IDD_Segmentation/gtFine/{frame}_gtFine"
            write_ids(Path(f"{fine}_labellevel3Ids.png"), halves(24, 255))
            write_ids(Path(f"{fine}_instancelevel3Ids.png"), halves(1, 255))
            polygon = [[0, 0], [11, 0], [11, 3], [0, 3]]
            objects = [{"label": "vegetation", "polygon": polygon, "deleted": 0}]
            content = {"imgHeight": 8, "imgWidth": 12, "objects": objects}
            Path(f"{fine}_polygons.json").write_text(json.dumps(content))


def kitti(root: Path) -> None:
    write_image(root / "data_semantics/training/image_2/000000_10.png")
    write_ids(root / "data_semantics/training/semantic/000000_10.png", halves(26, 9))
    colors = np.zeros((8, 12, 3), np.uint8)
    write_colors(root / "data_semantics/training/semantic_rgb/000000_10.png", colors)
    write_image(root / "data_semantics/testing/image_2/000000_10.png")


def vkitti2(root: Path) -> None:
    colors = np.zeros((8, 12, 3), dtype=np.uint8)
    colors[:4] = (0, 139, 139)
    for scene, variation in (("Scene01", "clone"), ("Scene20", "15-deg-left")):
        frames = root / f"vkitti2/{scene}/{variation}/frames"
        for camera in ("Camera_0", "Camera_1"):
            write_image(frames / f"rgb/{camera}/rgb_00000.jpg")
            write_colors(frames / f"classSegmentation/{camera}/classgt_00000.png", colors)


def synscapes(root: Path) -> None:
    for folder in ("rgb", "rgb-2k"):
        write_image(root / f"Synscapes/img/{folder}/1.png")
    write_ids(root / "Synscapes/img/class/1.png", halves(31, 5))


def comma10k(root: Path) -> None:
    colors = np.full((8, 12, 3), (0xCC, 0x00, 0xFF), dtype=np.uint8)
    colors[:4] = (0x00, 0xFF, 0x66)
    for stem in ("0000_0085e9e41513078a_11_864", "0009_13591d1e8bb0f230_14_739"):
        write_image(root / f"comma10k/imgs/{stem}.png")
        write_colors(root / f"comma10k/masks/{stem}.png", colors)


def carla(root: Path) -> None:
    """Of one's own recording: BGRA in memory, RGBA in the file, the tag in red."""
    for stem in ("000017", "000018"):
        write_image(root / f"town/rgb/{stem}.png")
        mask = np.dstack([halves(14, 24), *[np.zeros((8, 12), np.uint8)] * 2, halves(255, 255)])
        write_colors(root / f"town/seg/{stem}.png", mask)


CARLA_FILE = """\
name: town
root: town
images: rgb/*.png
labels: seg/{stem}.png
label_format: red
taxonomy: carla_tags
"""
"""What describes `carla`."""

LAYOUTS: dict[str, Callable[[Path], None]] = {
    "gta5": gta5,
    "synthia": synthia,
    "cityscapes": cityscapes,
    "acdc": acdc,
    "dark_zurich": dark_zurich,
    "bdd100k": bdd100k,
    "camvid_701": camvid,
    "camvid_segnet": camvid_segnet,
    "mapillary": mapillary,
    "idd": idd,
    "kitti": kitti,
    "vkitti2": vkitti2,
    "synscapes": synscapes,
    "comma10k": comma10k,
}
"""Every public set's files, below a folder of T2SDA_DATASETS."""
