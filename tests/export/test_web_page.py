"""The page of `t2sda export web` in a real browser: ONNX Runtime's labels, and nobody is asked."""

from __future__ import annotations

import base64
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install '.[dev]'")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from t2sda.data.class_statistics import cache_dir
from t2sda.export.ort_web import ARCHIVE, PACKAGE
from t2sda.export.web import write_site
from t2sda.runtime.loading import load_model
from tests.export.browser import (
    CHROMIUM,
    DESKTOP,
    DRIVER,
    PHONE,
    chromium,
    requests_of,
    resize,
    served,
)
from tests.tiny_onnx import SIZE, WEIGHTS, tiny_model, write_tiny

ROOT = Path(__file__).parents[2]
RUNTIME = cache_dir() / ARCHIVE
AXE = cache_dir() / "axe-core-4.14.1.tgz"
PHOTOS = sorted((ROOT / "docs/demo").glob("*.jpg"))
SECONDS = 60

pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
    ),
    pytest.mark.skipif(
        not RUNTIME.is_file(),
        reason=f"needs `npm pack {PACKAGE}` in {RUNTIME.parent}, where `t2sda export web` puts it",
    ),
    pytest.mark.slow,  # a browser compiles 14 MB of WebAssembly
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    other = tiny_model(weights=np.roll(WEIGHTS, 3, axis=0))
    return [write_tiny(folder / "after.onnx"), write_tiny(folder / "before.onnx", other)]


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory, models: list[Path]
) -> Iterator[tuple[Any, str, list[str]]]:
    """A browser, the address of the site, and the paths that were asked for."""
    folder = tmp_path_factory.mktemp("web")
    write_site(models, folder / "site", examples=PHOTOS)
    with served(folder / "site") as (url, asked), chromium(folder / "profile") as driver:
        yield driver, url, asked


def opened(page: tuple[Any, str, list[str]], size: tuple[int, int] = DESKTOP) -> Any:
    """The browser with the page and its first example in it."""
    driver, url, _ = page
    resize(driver, size)
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(url)
    WebDriverWait(driver, SECONDS).until(
        lambda d: d.execute_script("return 'ready' in document.body.dataset")
    )
    return driver


def choose(driver: Any, path: Path) -> None:
    """Give the page a file, as a visitor does, and wait for its labels."""
    driver.find_element(By.ID, "file").send_keys(str(path))
    WebDriverWait(driver, SECONDS).until(
        lambda d: (
            f"{path.name}: " in d.find_element(By.ID, "status").text
            and not d.execute_script("return t2sda.busy")
        )
    )


def result_of(driver: Any) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """What the networks saw (1, H, W, 3), their labels (H, W), and the image's size within."""
    script = (
        "const text = (bytes) => { let out = ''; for (const one of bytes) "
        "out += String.fromCharCode(one); return btoa(out); };"
        "const { pixels, found, inner } = t2sda.result;"
        "return [text(pixels), found.map(({ labels }) => text(labels)), inner]"
    )
    pixels, labels, inner = driver.execute_script(script)

    def array(text: str) -> np.ndarray:
        return np.frombuffer(base64.b64decode(text), dtype=np.uint8)

    return (
        array(pixels).reshape(1, *SIZE, 3),
        [array(own).reshape(SIZE) for own in labels],
        inner,
    )


def test_labels_are_those_of_onnx_runtime(
    page: tuple[Any, str, list[str]], models: list[Path], tmp_path: Path
) -> None:
    """Of what the network sees to the last pixel; what it sees differs by rounding at most."""
    driver = opened(page)
    fits = tmp_path / "fits.png"
    with Image.open(PHOTOS[0]) as photo:
        photo.resize(SIZE[::-1]).save(fits)
        photo.crop((0, 0, 301, 500)).save(tmp_path / "tall.png")
    for path in (fits, tmp_path / "tall.png", PHOTOS[1]):
        choose(driver, path)
        pixels, labels, inner = result_of(driver)
        for own, file in zip(labels, models, strict=True):
            model = load_model(file)
            np.testing.assert_array_equal(own, model.run(pixels)[0])  # type: ignore[attr-defined]
        frame = load_model(models[0]).letterbox(np.asarray(Image.open(path).convert("RGB")))
        assert tuple(inner) == frame.inner_size
        assert np.abs(pixels[0].astype(int) - frame.image.astype(int)).max() <= (
            0 if path == fits else 1 if path.suffix == ".png" else 4  # JPEG decoders differ
        )


def test_nothing_leaves_the_page_and_the_console_is_silent(
    page: tuple[Any, str, list[str]], tmp_path: Path
) -> None:
    driver, url, asked = page
    del asked[:]
    opened(page)
    assert {address.split(":")[0] for address in requests_of(driver)} <= {"http", "blob", "data"}
    own = tmp_path / "own.png"
    Image.new("RGB", (80, 50), (90, 90, 100)).save(own)
    before = len(asked)
    choose(driver, own)
    assert asked[before:] == []  # the image stays here, and nothing else is fetched
    addresses = [a for a in requests_of(driver) if not a.startswith(("blob:", "data:"))]
    assert all(address.startswith(url) for address in addresses)
    assert driver.get_log("browser") == []
    assert driver.execute_script("return fetch('http://127.0.0.2/').then(() => 1, () => 0)") == 0
    refused = [entry["message"] for entry in driver.get_log("browser")]
    assert any("Content Security Policy" in text for text in refused), refused


@pytest.mark.skipif(not AXE.is_file(), reason=f"needs `npm pack axe-core@4.14.1` in {AXE.parent}")
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(
    page: tuple[Any, str, list[str]], size: tuple[int, int], scheme: str
) -> None:
    driver = opened(page, size)
    resize(driver, size, scheme)
    with tarfile.open(AXE) as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        driver.execute_script(source.read().decode())
    found = driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run().then(({ violations, passes }) => done([violations.map(({ id, impact, nodes }) =>"
        " `${impact} ${id}: ${nodes.map(({ html }) => html).join(' ')}`), passes.length]))"
    )
    assert found[0] == []
    assert found[1] > 20  # it did look
    widths = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    scroll, client = driver.execute_script(widths)
    assert scroll <= client


def test_slider_legend_and_tip_work_by_keyboard_and_pointer(
    page: tuple[Any, str, list[str]],
) -> None:
    driver = opened(page)
    slider, stage = driver.find_element(By.ID, "split"), driver.find_element(By.ID, "stage")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    style = "return getComputedStyle(arguments[0]).getPropertyValue('--split')"
    assert driver.execute_script(style, stage) == "52%"
    assert slider.get_attribute("aria-valuetext") == "52 % source only, 48 % adapted"
    width = stage.size["width"]
    drag = ActionChains(driver).move_to_element_with_offset(stage, -width // 4, 0)
    drag.click_and_hold().move_by_offset(-width // 8, 0).release().perform()
    assert abs(int(slider.get_property("value")) - 12.5) <= 1
    tip = driver.find_element(By.ID, "tip")
    ActionChains(driver).move_to_element_with_offset(stage, width // 4, 20).perform()
    here = driver.find_element(By.CSS_SELECTOR, "#legend tr.is-here .name")
    assert tip.text == here.text  # the class under the pointer, of the network at the right
    button = driver.find_element(By.CSS_SELECTOR, "#legend .name")
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "true"
    alphas = "const c = document.getElementById('after'); const d = c.getContext('2d')"
    alphas += ".getImageData(0, 0, c.width, c.height).data; const seen = new Set();"
    alphas += "for (let i = 3; i < d.length; i += 4) seen.add(d[i]); return [...seen].sort()"
    assert sorted(driver.execute_script(alphas)) == [40, 255]
    label = driver.find_element(By.ID, "photo").get_attribute("aria-label")
    assert label.startswith("adapted: ")
    assert button.text in label


def test_the_camera_is_segmented_frame_by_frame_and_can_be_stopped(
    page: tuple[Any, str, list[str]],
) -> None:
    driver = opened(page)
    button, status = driver.find_element(By.ID, "camera"), driver.find_element(By.ID, "status")
    button.click()
    WebDriverWait(driver, SECONDS).until(lambda _: "ms a frame" in status.text)
    first = result_of(driver)[0]
    assert button.get_attribute("aria-pressed") == "true"
    WebDriverWait(driver, SECONDS).until(lambda d: (result_of(d)[0] != first).any())
    button.click()
    time.sleep(0.2)
    assert driver.execute_script("return t2sda.stream") is None
    assert button.text == "Use the camera"


def test_a_camera_that_is_started_before_the_networks_are_there_goes_on_with_them(
    page: tuple[Any, str, list[str]],
) -> None:
    driver, url, _ = page
    resize(driver, DESKTOP)
    driver.get(url)
    button, status = driver.find_element(By.ID, "camera"), driver.find_element(By.ID, "status")
    button.click()
    WebDriverWait(driver, SECONDS).until(lambda _: "ms a frame" in status.text)
    assert button.get_attribute("aria-pressed") == "true"
    button.click()


def test_what_is_no_image_is_said_and_the_page_goes_on(
    page: tuple[Any, str, list[str]], tmp_path: Path
) -> None:
    driver = opened(page)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff none")
    choose(driver, tmp_path / "broken.jpg")
    status = driver.find_element(By.ID, "status")
    assert "cannot show it; choose a JPEG" in status.text
    choose(driver, PHOTOS[1])
    assert "on this device" in status.text


def test_with_one_network_the_slider_shows_the_photograph(
    tmp_path: Path, models: list[Path]
) -> None:
    write_site(models[:1], tmp_path / "site", examples=PHOTOS[:1])
    with served(tmp_path / "site") as (url, asked), chromium(tmp_path / "profile") as driver:
        opened((driver, url, asked))
        assert not driver.find_element(By.ID, "before").is_displayed()
        assert driver.find_element(By.ID, "after").is_displayed()
        assert driver.find_element(By.ID, "name-before").text == "photograph"
        assert len(driver.find_elements(By.CSS_SELECTOR, "#legend thead th")) == 2
