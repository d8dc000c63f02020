"""`t2sda data convert`: a file of every format, written by hand, becomes a set that trains."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2sda.cli.main import main
from t2sda.data.check import check_dataset
from t2sda.data.dataset_files import read_dataset_file
from t2sda.data.datasets import FileDataset
from tests.data.conversion.test_regions import BRUSH, BRUSH_MASK
from tests.data.layouts import write_image

SIZE = (6, 9)
ROAD = (slice(3, 6), slice(0, 9))
"""The lower half."""
CAR = (slice(2, 5), slice(2, 6))
"""Over it."""
POLYGON_OF_ROAD = [0, 3, 9, 3, 9, 6, 0, 6]


def expected(road: int, car: int, rest: int) -> np.ndarray:
    label = np.full(SIZE, rest, dtype=np.uint8)
    label[ROAD] = road
    label[CAR] = car
    return label


def convert(*words: object) -> int:
    return main(["data", "convert", *map(str, words)])


def opened(folder: Path) -> FileDataset:
    (spec,) = read_dataset_file(folder / "dataset.yaml")
    dataset = spec.open()
    assert not check_dataset(dataset, spec).fatal
    return dataset


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "city/b.png"):
        write_image(tmp_path / "photos" / name, SIZE)
    return tmp_path / "photos"


def coco(folder: Path) -> Path:
    """Polygons, and run lengths as a list; the last annotation is a box alone."""
    inside = np.zeros(SIZE, dtype=bool)
    inside[CAR] = True
    changes = np.flatnonzero(np.diff(inside.T.ravel(), prepend=False, append=False))
    counts = np.diff(changes, prepend=0, append=inside.size).tolist()
    return write_json(
        folder / "instances.json",
        {
            "images": [
                {"id": 7, "file_name": "a.jpg", "height": 6, "width": 9},
                {"id": 8, "file_name": "city/b.png", "height": 6, "width": 9},
            ],
            "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "road"}],
            "annotations": [
                {"image_id": 7, "category_id": 1, "segmentation": [POLYGON_OF_ROAD]},
                {
                    "image_id": 7,
                    "category_id": 3,
                    "segmentation": {"size": [6, 9], "counts": counts},
                },
                {"image_id": 7, "category_id": 3, "bbox": [0, 0, 2, 2]},
            ],
        },
    )


def cvat(folder: Path) -> Path:
    """The car's mask stands first and lies above, by its z order."""
    path = folder / "annotations.xml"
    path.write_text(
        """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels>
<label><name>road</name><color>#804080</color></label><label><name>car</name></label>
</labels></task></meta>
<image id="0" name="a.jpg" width="9" height="6">
<mask label="car" source="manual" occluded="0" rle="0, 12" left="2" top="2" width="4" height="3"
 z_order="1"></mask>
<polyline label="road" points="0,0;9,9" z_order="0"></polyline>
<polygon label="road" occluded="0" points="0.00,3.00;9.00,3.00;9.00,6.00;0.00,6.00" z_order="0">
<attribute name="wet">no</attribute></polygon>
</image>
<image id="1" name="city/b.png" width="9" height="6"></image>
</annotations>"""
    )
    return path


def labelme(folder: Path) -> Path:
    """One file an image, beside it or not; its path may be of Windows."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 4), 255, np.uint8)).save(buffer, format="PNG")
    shapes = [
        {"label": "road", "points": [[0, 3], [9, 6]], "shape_type": "rectangle"},
        {"label": "road", "points": [[0, 0], [1, 1]], "shape_type": "line"},
        {
            "label": "car",
            "points": [[2, 2], [5, 4]],
            "shape_type": "mask",
            "mask": base64.b64encode(buffer.getvalue()).decode(),
        },
    ]
    content = {"version": "5.4.1", "flags": {}, "imageData": None, "imageHeight": 6}
    content |= {"imageWidth": 9, "imagePath": "..\\photos\\a.jpg", "shapes": shapes}
    write_json(folder / "labelme/a.json", content)
    content |= {"imagePath": "b.png", "shapes": []}
    write_json(folder / "labelme/b.json", content)
    return folder / "labelme"


def labelstudio(folder: Path) -> Path:
    """In percent; an upload has letters of its own before its name."""
    size = {"original_width": 9, "original_height": 6}
    road = [[0, 50], [100, 50], [100, 100], [0, 100]]
    box = {"x": 200 / 9, "y": 200 / 6, "width": 400 / 9, "height": 50, "rotation": 0}
    result = [
        {**size, "type": "polygonlabels", "value": {"points": road, "polygonlabels": ["road"]}},
        {**size, "type": "rectanglelabels", "value": {**box, "rectanglelabels": ["car"]}},
        {"type": "choices", "value": {"choices": ["sunny"]}},
    ]
    tasks = [
        {
            "id": 1,
            "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"},
            "annotations": [
                {"was_cancelled": True, "result": []},
                {"was_cancelled": False, "result": result},
            ],
        },
        {"id": 2, "data": {"image": "/data/local-files/?d=photos/b.png"}, "annotations": []},
    ]
    return write_json(folder / "export.json", tasks)


FORMATS: dict[str, Callable[[Path], Path]] = {
    "coco": coco,
    "cvat": cvat,
    "labelme": labelme,
    "labelstudio": labelstudio,
}


@pytest.mark.parametrize("name", FORMATS)
def test_shapes_become_train_ids(
    tmp_path: Path, photos: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = FORMATS[name](tmp_path)
    output = tmp_path / "set"
    words = ("--images", photos, "--output", output, "--classes", "road", "car")
    assert convert(name, annotations, *words) == 0
    dataset = opened(output)
    assert (dataset.name, dataset.taxonomy.class_names) == ("set", ("road", "car"))
    assert [Path(dataset.name_of(index)).name for index in range(len(dataset))] == ["a.jpg"]
    np.testing.assert_array_equal(dataset.load_label(0), expected(road=0, car=1, rest=255))
    said = capsys.readouterr().out
    assert "1 images, 2 shapes" in said
    assert "passed over: " in said


@pytest.mark.parametrize(("name", "order"), [("coco", 1), ("cvat", 1), ("labelme", 0)])
def test_classes_of_the_file_and_a_background(
    tmp_path: Path, photos: Path, name: str, order: int
) -> None:
    # COCO's categories by id, CVAT's labels by the task, LabelMe's by name.
    annotations = FORMATS[name](tmp_path)
    words = ("--images", photos, "--output", tmp_path / "set", "--background", "rest")
    assert convert(name, annotations, *words, "--name", "quay") == 0
    dataset = opened(tmp_path / "set")
    names = [("car", "road"), ("road", "car")][order]
    assert dataset.taxonomy.class_names == ("rest", *names)
    assert len(dataset) == 2
    road, car = names.index("road") + 1, names.index("car") + 1
    np.testing.assert_array_equal(dataset.load_label(0), expected(road, car, rest=0))
    assert not dataset.load_label(1).any()


def test_onto_a_taxonomy_by_name(tmp_path: Path, photos: Path) -> None:
    words = ("--images", photos, "--output", tmp_path / "set", "--taxonomy", "cityscapes_19")
    assert convert("coco", coco(tmp_path), *words) == 0
    np.testing.assert_array_equal(
        opened(tmp_path / "set").load_label(0), expected(road=0, car=13, rest=255)
    )
    assert "taxonomy: cityscapes_19" in (tmp_path / "set/dataset.yaml").read_text()


def test_a_taxonomy_of_other_ids_is_refused(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--images", photos, "--output", tmp_path / "set")
    path = coco(tmp_path)
    assert convert("coco", path, *words, "--taxonomy", "gta5_label_ids") == 2
    assert "files hold train ids" in capsys.readouterr().err
    assert convert("coco", path, *words, "--taxonomy", "cityscapes_19", "--classes", "car") == 2
    assert "--classes: have no effect beside --taxonomy" in capsys.readouterr().err


def test_labels_that_are_no_classes_are_ignored_and_said(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--images", photos, "--output", tmp_path / "set", "--classes", "road", "quay")
    assert convert("coco", coco(tmp_path), *words) == 0
    assert "ignored, as they are no classes: car (1)" in capsys.readouterr().out
    np.testing.assert_array_equal(
        opened(tmp_path / "set").load_label(0), expected(road=0, car=255, rest=255)
    )


def test_a_brush_of_label_studio(tmp_path: Path, photos: Path) -> None:
    entry = {
        "original_width": 9,
        "original_height": 6,
        "type": "brushlabels",
        "value": {"format": "rle", "rle": BRUSH, "brushlabels": ["car"]},
    }
    data = {"image": "s3://bucket/some%20where/a.jpg"}
    path = write_json(tmp_path / "e.json", [{"data": data, "annotations": [{"result": [entry]}]}])
    words = ("--images", photos, "--output", tmp_path / "set", "--background", "rest")
    assert convert("labelstudio", path, *words) == 0
    text = "".join(BRUSH_MASK.split()).replace(".", "0").replace("#", "1")
    expected_label = np.array(list(text), dtype=np.uint8).reshape(SIZE)
    np.testing.assert_array_equal(opened(tmp_path / "set").load_label(0), expected_label)


def test_boxes_and_ellipses_of_cvat(tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(
        '<annotations><image name="a.jpg" width="9" height="6">'
        '<box label="car" xtl="2" ytl="1" xbr="6" ybr="3" rotation="90"/>'
        '<ellipse label="road" cx="2" cy="4" rx="1.2" ry="1.2"/></image></annotations>'
    )
    words = ("--images", photos, "--output", tmp_path / "set")
    assert convert("cvat", path, *words) == 0
    label = opened(tmp_path / "set").load_label(0)
    turned = np.full(SIZE, 255, dtype=np.uint8)
    turned[0:4, 3:5] = 0
    turned[3:5, 1:3] = 1
    np.testing.assert_array_equal(label, turned)


@pytest.fixture
def idd(tmp_path: Path) -> Path:
    root = tmp_path / "IDD_Segmentation"
    objects = [
        {"label": "road", "polygon": [[0, 3], [8, 3], [8, 5], [0, 5]]},
        {"label": "autorickshaw", "polygon": [[6, 0], [8, 0], [8, 1], [6, 1]]},
        {"label": "cargroup", "polygon": [[2, 2], [5, 2], [5, 4], [2, 4]]},
        {"label": "sky", "polygon": [[0, 0], [8, 0], [8, 5]], "deleted": 1},
        {"label": "polegroup", "polygon": [[0, 0], [1, 0], [1, 0]]},
    ]
    for split, drive, ending in (("train", "201", "png"), ("val", "3", "jpg")):
        name = f"{split}/{drive}/frame0029"
        write_image(root / f"leftImg8bit/{name}_leftImg8bit.{ending}", SIZE)
        content = {"imgHeight": 6, "imgWidth": 9, "objects": objects}
        write_json(root / f"gtFine/{name}_gtFine_polygons.json", content)
    return root


def test_polygons_of_idd_as_its_own_code_draws_them(tmp_path: Path, idd: Path) -> None:
    assert convert("idd", idd, "--output", tmp_path / "set", "--name", "idd_own") == 0
    specs = read_dataset_file(tmp_path / "set/dataset.yaml")
    assert [spec.name for spec in specs] == ["idd_own_train", "idd_own_val"]
    for spec in specs:
        dataset = spec.open()
        assert len(dataset) == 1
        np.testing.assert_array_equal(dataset.load_label(0), expected(road=0, car=13, rest=255))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content["images"][0].update(height=7),
            r"a\.jpg: is 6x9 .*annotated at 7x9",
        ),
        (lambda content: content["images"][0].update(file_name="c.jpg"), r"no image 'c\.jpg'"),
        (lambda content: content["images"][1].update(file_name="a.jpg"), r"annotated twice"),
        (lambda content: content.pop("categories"), "'categories' is missing; export it again"),
        (
            lambda content: content["annotations"][0].update(image_id=9),
            "annotation 0: .*image_id 9 is that of no image",
        ),
        (
            lambda content: content["annotations"][1]["segmentation"].update(counts=[3, 4]),
            r"a\.jpg: shape 1, 'car', cannot be drawn \(runs of 7 pixels",
        ),
        (
            lambda content: content["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, None]]),
            r"shape 0, 'road', cannot be drawn \(corners are pairs of finite numbers",
        ),
        (
            lambda content: content["annotations"][0].update(category_id=99),
            "annotation 0: .*category_id 99 is that of no category",
        ),
        (
            lambda content: content["annotations"][0].update(segmentation=[[1, 2, [3], 4, 5, 6]]),
            r"cannot be drawn \(corners are pairs of finite numbers\)",
        ),
        (
            lambda content: content.update(images=[7]),
            "a number stands where the format has something else; export it again",
        ),
        (lambda content: content.update(annotations=[]), "no shape of a class to write"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_no_set(
    tmp_path: Path,
    photos: Path,
    change: Callable[[Any], Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = coco(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)
    words = ("--images", photos, "--output", tmp_path / "set", "--background", "rest")
    assert convert("coco", path, *words) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error), error
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("name", [*FORMATS, "idd"])
@pytest.mark.parametrize(
    "content",
    [b"", b"[1, {}]", b'{"images": 3}', b"<annotations><image/></annotations>", b"[" * 9**5],
)
def test_a_file_of_another_format_is_one_clear_error(
    tmp_path: Path, photos: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    if name == "idd":
        path = tmp_path / "gtFine/train/1/x_gtFine_polygons.json"
        path.parent.mkdir(parents=True)
    path.write_bytes(content)
    where = tmp_path if name == "idd" else path
    assert convert(name, where, "--images", photos, "--output", tmp_path / "set") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert not (tmp_path / "set").exists()


def test_xml_that_declares_entities_is_refused(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>')
    assert convert("cvat", path, "--images", photos, "--output", tmp_path / "set") == 2
    assert "declares types or entities" in capsys.readouterr().err


def test_images_beside_braces_and_full_folders_are_refused(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = coco(tmp_path)
    assert convert("coco", path, "--images", photos, "--output", tmp_path / "{a,b}") == 2
    assert "braces stand for other things" in capsys.readouterr().err
    assert convert("coco", path, "--images", photos, "--output", photos) == 2
    assert "not empty" in capsys.readouterr().err
    assert convert("coco", path, "--output", tmp_path / "set") == 2
    assert "--images DIR: name the folder" in capsys.readouterr().err


def test_a_converted_set_moves_with_its_images(tmp_path: Path, photos: Path) -> None:
    words = ("--images", photos, "--output", tmp_path / "set")
    assert convert("coco", coco(tmp_path), *words) == 0
    (tmp_path / "elsewhere").mkdir()
    for name in ("photos", "set"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    assert len(opened(tmp_path / "elsewhere/set")) == 1


def test_a_single_class_needs_a_background(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--images", photos, "--output", tmp_path / "set", "--classes", "car")
    assert convert("coco", coco(tmp_path), *words) == 2
    assert "found 1 classes, car" in capsys.readouterr().err
    assert convert("coco", coco(tmp_path), *words, "--background", "rest") == 0
