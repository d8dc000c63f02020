"""IDD Segmentation: a JSON file of polygons an image, in the layout of Cityscapes."""

from __future__ import annotations

from pathlib import Path

from t2sda.data.conversion.annotations import (
    AnnotatedImage,
    Annotations,
    Shape,
    read_json,
    size_of,
    text,
    understood,
)
from t2sda.data.conversion.regions import DrawnPolygon
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import MissingFileError

WHAT = "file of polygons of IDD"
ENDING = "_gtFine_polygons.json"
AS_CITYSCAPES = {"non-drivable fallback": "terrain"}
"""Where the class has another name there; else names are equal (helpers/anue_labels.py, csTrainId,
of https://github.com/AutoNUE/public-code). All other labels are drawn and ignored."""


def read_idd(path: Path) -> Annotations:
    """The polygons below `gtFine/SPLIT/DRIVE/`, drawn as IDD's own code draws them.

    Args:
        path: the folder with `gtFine` in it.
    Raises:
        MissingFileError: if there are none.
        UserError: if one is none of IDD.
    """
    files = sorted(path.glob(f"gtFine/*/*/*{ENDING}"))
    if not files:
        raise MissingFileError(
            f"{path}: holds no gtFine/SPLIT/DRIVE/*{ENDING}; name the folder with gtFine in it"
        )
    images = [_image(file) for file in files]
    return Annotations(images, CITYSCAPES_19.class_names)


def _image(path: Path) -> AnnotatedImage:
    content = read_json(path, WHAT)
    split, drive, name = path.parts[-3:]
    with understood(str(path), WHAT):
        shapes = tuple(
            Shape(_class_of(text(entry["label"])), DrawnPolygon(entry["polygon"]))
            for entry in content["objects"]
            if not entry.get("deleted")
        )
        size = size_of(content["imgHeight"], content["imgWidth"])
    image = f"{split}/{drive}/{name.removesuffix(ENDING)}_leftImg8bit"
    return AnnotatedImage(image, size, shapes, split)


def _class_of(label: str) -> str:
    """Cityscapes' name; a group of things is their class."""
    names = CITYSCAPES_19.class_names
    if label not in names and label.removesuffix("group") in names and label != "polegroup":
        label = label.removesuffix("group")
    return AS_CITYSCAPES.get(label, label)
