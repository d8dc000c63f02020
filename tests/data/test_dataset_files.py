"""Datasets as YAML files: what they may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from t2sda.data.catalog import DATASETS_VARIABLE, open_dataset
from t2sda.data.dataset_classes import distinct_colors
from t2sda.data.dataset_files import read_dataset_file, register_dataset_files
from t2sda.data.label_tables import GTA5_LABEL_IDS
from t2sda.data.taxonomies import ClassGroup, Color
from t2sda.errors import MissingFileError, UserError
from tests.data.layouts import halves, write_colors, write_ids, write_image, write_palette

pytestmark = pytest.mark.usefixtures("registry_of_its_own")
WHOLE = """
name: harbour
root: harbour
images: images/*.png
labels: labels/{stem}.png
classes: [road, car, quay]
"""


def dataset_file(folder: Path, text: str) -> Path:
    path = folder / "harbour.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def write_colored(folder: Path, upper: Color, lower: Color) -> None:
    """An image, and its label of two colors."""
    write_image(folder / "harbour/images/a.png")
    colors = np.full((8, 12, 3), lower, dtype=np.uint8)
    colors[:4] = upper
    write_colors(folder / "harbour/labels/a.png", colors)


def first_label(folder: Path, text: str) -> list[int]:
    """Train ids of the first label's upper and lower half."""
    (spec,) = read_dataset_file(dataset_file(folder, text))
    label = spec.open().load(0).label
    assert label is not None
    return [int(label[0, 0]), int(label[-1, 0])]


def test_the_shortest_file_is_whole(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", halves(2, 255))
    assert first_label(tmp_path, WHOLE) == [2, 255]
    register_dataset_files([str(tmp_path / "harbour.yaml")])
    dataset = open_dataset("harbour")
    assert dataset.taxonomy.class_names == ("road", "car", "quay")
    assert len(set(dataset.taxonomy.palette)) == 3


def test_the_root_is_found_beside_the_file_and_below_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    path = dataset_file(tmp_path / "files", WHOLE)
    (spec,) = read_dataset_file(path)
    with pytest.raises(MissingFileError, match="no folder .*/files/harbour or .*T2SDA_DATASETS"):
        spec.open()
    write_image(tmp_path / "data/harbour/images/a.png")
    monkeypatch.setenv(DATASETS_VARIABLE, str(tmp_path / "data"))
    assert spec.location == str(tmp_path / "data/harbour")
    write_image(tmp_path / "files/harbour/images/a.png")
    assert spec.location == str(tmp_path / "files/harbour")


def test_ids_of_classes_and_ignored_ids(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", halves(9, 3))
    text = WHOLE + "ids: {road: 7, car: [8, 9], quay: 300}\nignored: [3]\n"
    assert first_label(tmp_path, text) == [1, 255]


def test_ignored_ids_beside_ids_in_order(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", halves(2, 77))
    assert first_label(tmp_path, WHOLE + "ignored: [77]\n") == [2, 255]


def test_a_palette_png_gives_its_indices(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_palette(tmp_path / "harbour/labels/a.png", halves(1, 2))
    assert first_label(tmp_path, WHOLE) == [1, 2]


def test_labels_as_colors(tmp_path: Path) -> None:
    write_colored(tmp_path, (250, 120, 0), (0, 0, 0))
    text = WHOLE + (
        "label_format: colors\n"
        "palette: {road: [90, 90, 90], car: [0, 0, 200], quay: [250, 120, 0]}\n"
        "ignored: [[0, 0, 0]]\n"
    )
    assert first_label(tmp_path, text) == [2, 255]


def test_ranges_of_ids(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", halves(199, 6))
    text = WHOLE + 'ids: {road: 7, car: [100-199, 8], quay: "300 - 399"}\nignored: [0-6]\n'
    assert first_label(tmp_path, text) == [1, 255]


@pytest.mark.parametrize(("others", "train_id"), [("ignored", 255), ("quay", 2)])
def test_all_other_ids_are_ignored_or_a_class(tmp_path: Path, others: str, train_id: int) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", halves(7, 99))
    text = WHOLE + "ids: {road: 7, car: 8, quay: 9}\n"
    with pytest.raises(UserError, match=r"label ids 99 are unknown .*`others: ignored`"):
        first_label(tmp_path, text)
    assert first_label(tmp_path, text + f"others: {others}\n") == [0, train_id]


def test_several_colors_for_a_class_and_others_to_draw_with(tmp_path: Path) -> None:
    write_colored(tmp_path, (255, 128, 0), (0, 0, 0))
    text = WHOLE + (
        "label_format: colors\n"
        "colors: {road: [[9, 9, 9], [0, 0, 0]], car: [[255, 0, 0], [255, 128, 0]], "
        "quay: [1, 1, 1]}\n"
    )
    assert first_label(tmp_path, text) == [1, 0]
    (spec,) = read_dataset_file(tmp_path / "harbour.yaml")
    assert spec.taxonomy.palette == ((9, 9, 9), (255, 0, 0), (1, 1, 1))
    drawn = "palette: [[10, 10, 10], [20, 20, 20], [30, 30, 30]]\n"
    assert first_label(tmp_path, text + drawn) == [1, 0]
    (spec,) = read_dataset_file(tmp_path / "harbour.yaml")
    assert spec.taxonomy.palette == ((10, 10, 10), (20, 20, 20), (30, 30, 30))


def test_other_colors_are_ignored_where_the_file_says_so(tmp_path: Path) -> None:
    write_colored(tmp_path, (0, 0, 200), (77, 77, 77))
    text = WHOLE + "label_format: colors\npalette: [[90, 90, 90], [0, 0, 200], [250, 120, 0]]\n"
    with pytest.raises(UserError, match=r"label colors \[77, 77, 77\] are unknown"):
        first_label(tmp_path, text)
    assert first_label(tmp_path, text + "others: ignored\n") == [1, 255]


@pytest.mark.parametrize(
    ("channel", "place"), [("red", 0), ("green", 1), ("blue", 2), ("alpha", 3)]
)
def test_ids_in_any_channel(tmp_path: Path, channel: str, place: int) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    channels = [halves(0, 77) for _ in range(4)]
    channels[place] = halves(2, 1)
    write_colors(tmp_path / "harbour/labels/a.png", np.dstack(channels))
    assert first_label(tmp_path, WHOLE + f"label_format: {channel}\n") == [2, 1]


@pytest.mark.parametrize(
    ("channel", "shape"), [("red", (8, 12)), ("alpha", (8, 12, 3)), ("blue", (8, 12, 2))]
)
def test_a_channel_that_a_label_lacks(tmp_path: Path, channel: str, shape: tuple[int, ...]) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", np.zeros(shape, dtype=np.uint8))
    with pytest.raises(UserError, match=rf"a\.png: found shape .*label_format {channel} takes"):
        first_label(tmp_path, WHOLE + f"label_format: {channel}\n")


def test_own_ids_onto_a_taxonomy_by_name(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", halves(40, 3))
    text = WHOLE.replace("classes: [road, car, quay]", "taxonomy: cityscapes_19")
    text += "ids: {car: [40-49], road: 1}\nothers: ignored\n"
    assert first_label(tmp_path, text) == [13, 255]
    (spec,) = read_dataset_file(tmp_path / "harbour.yaml")
    assert spec.taxonomy.class_names == GTA5_LABEL_IDS.class_names
    assert spec.taxonomy.name == "harbour"


def test_own_colors_onto_a_taxonomy_by_name(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    colors = np.zeros((8, 12, 3), dtype=np.uint8)
    colors[:4] = (1, 2, 3)
    write_colors(tmp_path / "harbour/labels/a.png", colors)
    text = WHOLE.replace("classes: [road, car, quay]", "taxonomy: cityscapes_19")
    text += "label_format: colors\ncolors: {sky: [1, 2, 3]}\nignored: [[0, 0, 0]]\n"
    assert first_label(tmp_path, text) == [10, 255]
    (spec,) = read_dataset_file(tmp_path / "harbour.yaml")
    assert spec.taxonomy.palette == GTA5_LABEL_IDS.palette


def test_further_ids_of_a_shipped_table_are_ignored(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", halves(7, 99))
    text = WHOLE.replace("classes: [road, car, quay]", "taxonomy: gta5_label_ids\nignored: [99]")
    assert first_label(tmp_path, text) == [0, 255]


def test_a_split_without_labels_in_one_file(tmp_path: Path) -> None:
    text = WHOLE.replace("images/*", "images/{split}/*").replace("labels/", "labels/{split}/")
    for split in ("train", "test"):
        write_image(tmp_path / f"harbour/images/{split}/a.png")
    write_ids(tmp_path / "harbour/labels/train/a.png", halves(0, 1))
    path = dataset_file(tmp_path, text + "splits: [train, test]\nunlabelled: [test]\n")
    train, test = (spec.open() for spec in read_dataset_file(path))
    assert train.labelled
    assert not test.labelled


def test_a_shipped_taxonomy_by_name(tmp_path: Path) -> None:
    text = WHOLE.replace("classes: [road, car, quay]", "taxonomy: gta5_label_ids")
    (spec,) = read_dataset_file(dataset_file(tmp_path, text))
    assert spec.taxonomy is GTA5_LABEL_IDS


def test_splits_are_datasets_of_their_own(tmp_path: Path) -> None:
    text = WHOLE.replace("images/*", "images/{split}/*").replace("labels/", "labels/{split}/")
    for split in ("train", "val"):
        write_image(tmp_path / f"harbour/images/{split}/a.png")
        write_ids(tmp_path / f"harbour/labels/{split}/a.png", halves(0, 1))
    register_dataset_files([str(dataset_file(tmp_path, text + "splits: [train, val, test]\n"))])
    assert len(open_dataset("harbour_train")) == len(open_dataset("harbour_val")) == 1
    with pytest.raises(MissingFileError, match=r"'harbour_test': no file matches .*images/test"):
        open_dataset("harbour_test")


def test_a_list_file_of_a_split(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/my image.png")
    (tmp_path / "harbour/train.txt").write_text("my image\n\n", encoding="utf-8")
    text = WHOLE.replace("*", "{stem}") + 'stems: "{split}.txt"\nsplits: [train]\n'
    (spec,) = read_dataset_file(dataset_file(tmp_path, text))
    assert [Path(spec.open().load(0, with_label=False).name).stem] == ["my image"]


def test_spaces_and_letters_of_any_alphabet(tmp_path: Path) -> None:
    root = tmp_path / "Häfen & Kais 港"
    write_image(root / "Bilder ß/grün 1.png")
    write_ids(root / "Masken/grün 1_ids.png", halves(1, 0))
    text = WHOLE.replace("root: harbour", "root: Häfen & Kais 港")
    text = text.replace("images/*", "Bilder ß/*").replace("labels/{stem}", "Masken/{stem}_ids")
    assert first_label(tmp_path, text) == [1, 0]


def test_groups(tmp_path: Path) -> None:
    text = WHOLE + "groups: {land: [road, quay], car: [car]}\n"
    (spec,) = read_dataset_file(dataset_file(tmp_path, text))
    assert spec.class_groups == (ClassGroup("land", (0, 2)), ClassGroup("car", (1,)))


@pytest.mark.parametrize("count", [2, 19, 255])
def test_colors_that_nobody_gave_are_all_different(count: int) -> None:
    assert len(set(distinct_colors(count))) == count


def test_registered_again_as_it_is_but_not_as_another(tmp_path: Path) -> None:
    path = dataset_file(tmp_path, WHOLE)
    register_dataset_files([str(path), str(path)])
    path.write_text(WHOLE.replace("quay", "ship"))
    with pytest.raises(UserError, match="'harbour' is registered already, harbour/; give this"):
        register_dataset_files([str(path)])


def test_a_shipped_name_is_taken(tmp_path: Path) -> None:
    path = dataset_file(tmp_path, WHOLE.replace("name: harbour", "name: gta5_train"))
    with pytest.raises(UserError, match="'gta5_train' is registered already"):
        register_dataset_files([str(path)])
