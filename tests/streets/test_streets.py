"""The drawn streets: reproducible, exactly labelled, complete in classes, of any size."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.streets import DOMAINS, draw_street
from t2sda.streets import draw as drawing
from t2sda.streets.canvas import SKY, VEGETATION, Canvas
from t2sda.streets.finish import finish
from t2sda.streets.looks import CLEAR, LOOKS

SIZE = (128, 256)
DIGEST_SCRIPT = """
import hashlib, sys
from t2sda.streets import draw_street
domain, seed, index, height, width = sys.argv[1:]
image, label = draw_street(domain, int(seed), int(index), (int(height), int(width)))
print(hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest())
"""


def digest(domain: str, seed: int, index: int, size: tuple[int, int]) -> str:
    image, label = draw_street(domain, seed, index, size)
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


@pytest.fixture(scope="module", params=DOMAINS)
def many_labels(request: pytest.FixtureRequest) -> np.ndarray:
    """(N, H, W) labels of one domain."""
    return np.stack([draw_street(request.param, 0, index)[1] for index in range(40)])


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_same_arguments_draw_the_same_bits_whatever_came_before(domain: str) -> None:
    first = digest(domain, 3, 5, SIZE)
    np.random.seed(0)  # noqa: NPY002 - the global generator must play no part
    draw_street(domain, 3, 6, SIZE)
    assert digest(domain, 3, 5, SIZE) == first


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_fresh_process_draws_the_same_bits(domain: str) -> None:
    arguments = [domain, "7", "11", "96", "131"]
    command = [sys.executable, "-c", DIGEST_SCRIPT, *arguments]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == digest(domain, 7, 11, (96, 131))


@pytest.mark.parametrize("domain", DOMAINS)
def test_threads_do_not_change_the_bits(domain: str) -> None:
    threads = cv2.getNumThreads()
    digests = set()
    for count in (1, 2):
        cv2.setNumThreads(count)
        digests.add(digest(domain, 1, 2, (256, 512)))
    cv2.setNumThreads(threads)
    assert len(digests) == 1


def test_seed_index_and_domain_each_change_the_scene() -> None:
    scenes = [("clear", 0, 0), ("clear", 0, 1), ("clear", 1, 0), ("hazy", 0, 0)]
    labels = {draw_street(*scene, SIZE)[1].tobytes() for scene in scenes}
    assert len(labels) == len(scenes)


def test_every_class_is_in_at_least_15_percent_of_the_images(many_labels: np.ndarray) -> None:
    enough = 100  # pixels of 256x512: an object that can be recognised
    counts = np.stack([np.bincount(label.ravel(), minlength=19) for label in many_labels])
    share = (counts >= enough).mean(axis=0)
    names = CITYSCAPES_19.class_names
    assert {name: value for name, value in zip(names, share, strict=True) if value < 0.15} == {}


def test_every_pixel_has_one_of_the_19_classes(many_labels: np.ndarray) -> None:
    assert many_labels.dtype == np.uint8
    assert many_labels.max() <= 18


class ClassColoredCanvas(Canvas):
    """Paints every shape in its class' number instead of its color."""

    def polygon(self, points, ink):  # type: ignore[no-untyped-def]
        super().polygon(points, number(ink))

    def convex(self, points, ink):  # type: ignore[no-untyped-def]
        super().convex(points, number(ink))

    def polygons(self, points, ink):  # type: ignore[no-untyped-def]
        super().polygons(points, number(ink))

    def disc(self, centre, radii, ink):  # type: ignore[no-untyped-def]
        super().disc(centre, radii, number(ink))

    def limb(self, points, width, ink):  # type: ignore[no-untyped-def]
        super().limb(points, width, number(ink))


def number(ink: tuple[float, float, float, int]) -> tuple[int, int, int, int]:
    class_id = ink[3] & 31
    return (class_id, class_id, class_id, ink[3])


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_label_says_what_was_painted_last_at_every_pixel(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "Canvas", ClassColoredCanvas)
    monkeypatch.setattr(drawing, "cast_shadows", lambda scene: None)
    for index in range(5):
        scene = drawing.paint_street(LOOKS[domain], SIZE, np.random.default_rng(index))
        label = scene.canvas.label
        painted = scene.canvas.pixels[..., :3]
        agrees = (painted == label[..., None]).all(axis=2)
        assert agrees[label != SKY].all()  # the sky is a gradient, not a shape


@pytest.mark.parametrize("domain", DOMAINS)
def test_shadows_and_finish_leave_the_label_as_it_is(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = drawing.paint_street(LOOKS[domain], SIZE, np.random.default_rng(4))
    label = scene.canvas.label
    finish(scene)
    np.testing.assert_array_equal(scene.canvas.label, label)
    monkeypatch.setattr(drawing, "cast_shadows", lambda scene: None)
    unshaded = drawing.paint_street(LOOKS[domain], SIZE, np.random.default_rng(4))
    np.testing.assert_array_equal(unshaded.canvas.label, label)
    assert (unshaded.canvas.pixels != scene.canvas.pixels).any()


def test_style_changes_the_image_and_not_the_label() -> None:
    murky = replace(
        CLEAR, haze_per_metre=(0.03, 0.04), exposure=(0.5, 0.6), noise=(9, 12), blur=(1, 2)
    )
    clear, hazy = (
        drawing.paint_street(look, SIZE, np.random.default_rng(8)) for look in (CLEAR, murky)
    )
    np.testing.assert_array_equal(clear.canvas.label, hazy.canvas.label)
    difference = finish(clear).astype(float) - finish(hazy)
    assert np.abs(difference).mean() > 20


def test_leaves_are_greener_and_the_sky_is_bluer_in_the_clear_domain() -> None:
    scenes = {
        domain: [draw_street(domain, 0, index, SIZE) for index in range(8)] for domain in DOMAINS
    }

    def tone(domain: str, class_id: int, channel: int) -> float:
        pixels = np.concatenate([image[label == class_id] for image, label in scenes[domain]])
        return float(pixels[:, channel].mean() - pixels[:, 0].mean())

    assert tone("clear", VEGETATION, 1) > tone("hazy", VEGETATION, 1) + 15
    assert tone("clear", SKY, 2) > tone("hazy", SKY, 2) + 30


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size", [(64, 64), (65, 131), (200, 90), (97, 301), (256, 64), (300, 400)])
def test_any_size_from_64_pixels_works(domain: str, size: tuple[int, int]) -> None:
    image, label = draw_street(domain, 0, 1, size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    assert label.shape == size
    assert len(np.unique(label)) >= 5
    assert image.std() > 10


def test_a_scene_keeps_its_shape_when_its_size_changes() -> None:
    small = draw_street("clear", 0, 3, (128, 256))[1]
    large = draw_street("clear", 0, 3, (256, 512))[1]
    agree = (cv2.resize(large, (256, 128), interpolation=cv2.INTER_NEAREST) == small).mean()
    assert agree > 0.85  # thin shapes are at least a pixel wide at any size


def test_an_unknown_domain_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'foggy'.*clear.*hazy"):
        draw_street("foggy", 0, 0)


@pytest.mark.parametrize("size", [(63, 512), (256, 10)])
def test_a_size_below_64_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]}.*at least 64x64"):
        draw_street("clear", 0, 0, size)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_a_negative_seed_or_index_is_refused(seed: int, index: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        draw_street("clear", seed, index)


FILES_ONLY = """
import sys
import t2sda.builtin
from t2sda.data.catalog import DATASETS, DatasetSpec, open_dataset
from t2sda.data.taxonomies import CITYSCAPES_19

root, = sys.argv[1:]
dataset = DatasetSpec("harbour", root, "*.png", None, CITYSCAPES_19).open()
dataset.load(0)
drawn = open_dataset("streets_clear_val")
print(len(drawn), any(name.startswith("t2sda.streets") for name in sys.modules))
drawn.load(0)
print("t2sda.streets" in sys.modules)
"""


def test_the_drawing_is_imported_when_a_street_is_drawn_and_no_sooner(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 12, 3), np.uint8))
    command = [sys.executable, "-c", FILES_ONLY, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["50", "False", "True"]
