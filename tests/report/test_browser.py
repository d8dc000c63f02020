"""The page in a real browser: it opens without a network, and what can be moved moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.folders import pixels

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install '.[dev]'")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from tests.export.browser import requests_of  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP, PHONE = (1280, 900), (390, 844)

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


def look_at(
    browser: Any, page: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light"
) -> None:
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    media = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # a click finds its place at once
    ]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.get("about:blank")  # ends what the browser asks for its own first tab
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())


def shares_of(layer: Any) -> float:
    """How much of an image is hidden from its left (or to its right), from its clip-path."""
    inset = layer.value_of_css_property("clip-path")
    return float(inset.replace("calc(", "").replace("100% - ", "").split("%")[0].split()[-1])


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_request_or_a_word_on_the_console(
    browser: Any, page: Path, size: tuple[int, int], scheme: str
) -> None:
    look_at(browser, page, size, scheme)
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    asked = [url for url in requests_of(browser) if not url.startswith(("data:", "about:"))]
    assert asked == [page.as_uri()]
    assert browser.get_log("browser") == []
    widths = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    scroll, client = browser.execute_script(widths)
    assert scroll <= client  # tables and matrices scroll on their own


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, page: Path, scheme: str) -> None:
    """At least 4.5 to 1, as WCAG 2 asks for, on the card and on the ground."""
    look_at(browser, page, scheme=scheme)
    colors = browser.execute_script(
        "const style = getComputedStyle(document.documentElement);"
        "return Object.fromEntries(['ink', 'soft', 'accent', 'good', 'bad', 'card', 'ground',"
        " ...Array.from({length: 8}, (_, i) => `series-${i}`)].map("
        "(name) => [name, style.getPropertyValue(`--${name}`).trim()]))"
    )
    for name, color in colors.items():
        for under in ("card", "ground"):
            if name not in ("card", "ground"):
                assert contrast(color, colors[under]) >= 4.5, (name, under)


def contrast(first: str, second: str) -> float:
    """Of two #rrggbb, as WCAG 2 defines it."""

    def luminance(color: str) -> float:
        shares = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_the_slider_moves_by_keyboard_and_by_pointer(browser: Any, page: Path) -> None:
    look_at(browser, page)
    slider, right = browser.find_element(By.ID, "slider"), browser.find_element(By.ID, "layer-b")
    stage = browser.find_element(By.ID, "stage")
    assert shares_of(right) == 50
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert slider.get_property("value") == "52"
    assert shares_of(right) == 52
    slider.send_keys(Keys.HOME)
    assert shares_of(right) == 0
    width = stage.size["width"]
    drag = ActionChains(browser).move_to_element_with_offset(stage, -width // 2 + 10, 0)
    drag.click_and_hold().move_by_offset(width // 4 * 3 - 10, 0).release().perform()
    assert shares_of(right) == pytest.approx(75, abs=2)
    assert slider.get_property("value") == str(round(shares_of(right)))


def test_images_and_layers_can_be_chosen(browser: Any, page: Path) -> None:
    look_at(browser, page)
    buttons = browser.find_elements(By.CSS_SELECTOR, ".thumbs button")
    before = browser.find_element(By.ID, "ground").get_property("src")
    buttons[1].send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "ground").get_property("src") != before
    assert [b.get_attribute("aria-pressed") for b in buttons] == ["false", "true", "false", "false"]
    left = browser.find_element(By.ID, "left")
    options = [o.text for o in left.find_elements(By.TAG_NAME, "option")]
    assert options == [
        *("image", "truth", "slow_0", "slow_0: mistakes", "slow_1", "slow_1: mistakes"),
        *("fast", "fast: mistakes"),
    ]
    left.send_keys("truth")
    assert not browser.find_element(By.ID, "difference-box").is_displayed()
    assert browser.find_element(By.ID, "layer-a").get_property("alt").startswith("truth of ")


def test_the_difference_of_two_runs_is_counted_right(browser: Any, page: Path) -> None:
    look_at(browser, page)
    data = json.loads(browser.find_element(By.ID, "gallery-data").get_property("textContent"))
    mistakes = [pixels(data["images"][0]["mistakes"][run])[..., 3] for run in ("slow_0", "fast")]
    labelled = (mistakes[0] != 110).sum()
    counts = [((mistakes[a] == 0) & (mistakes[1 - a] == 255)).sum() for a in (0, 1)]
    shares = [f"{100 * count / labelled:.1f} %" for count in counts]
    text = f"only slow_0 correct: {shares[0]} of the pixels, only fast correct: {shares[1]}"
    canvas = browser.find_element(By.ID, "difference")
    WebDriverWait(browser, 10).until(lambda _: canvas.get_attribute("aria-label"))
    assert canvas.get_attribute("aria-label") == text
    shown = browser.execute_script(
        "const c = arguments[0];"
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
        canvas,
    )
    colors = np.array(shown, dtype=np.uint8).reshape(*mistakes[0].shape, 4)[..., :3]
    assert (colors == (0x2F, 0x86, 0xFF)).all(axis=-1).sum() == counts[0]
    assert (colors == (0xFF, 0x8A, 0x1F)).all(axis=-1).sum() == counts[1]


def test_tables_sort_by_number_and_what_is_nowhere_comes_last(browser: Any, page: Path) -> None:
    look_at(browser, page)
    table = browser.find_element(By.CSS_SELECTOR, "#classes table")
    button = table.find_elements(By.CSS_SELECTOR, "th button")[1]

    def column() -> list[str]:
        cells = table.find_elements(By.CSS_SELECTOR, "tbody td:nth-child(2)")
        return [cell.get_attribute("data-value") for cell in cells]

    found = column()
    known = sorted((text for text in found if text), key=float)
    missing = [text for text in found if not text]
    assert len(set(known)) > 2
    button.send_keys(Keys.ENTER)
    assert column() == [*reversed(known), *missing]
    head = table.find_elements(By.TAG_NAME, "th")[1]
    assert head.get_attribute("aria-sort") == "descending"
    button.click()
    assert column() == [*known, *missing]
    assert head.get_attribute("aria-sort") == "ascending"
    table.find_elements(By.CSS_SELECTOR, "th button")[0].click()
    names = [cell.text for cell in table.find_elements(By.CSS_SELECTOR, "tbody th")]
    assert names == sorted(names)
    assert head.get_attribute("aria-sort") is None


def test_all_images_are_shown_when_they_are_asked_for(browser: Any, page: Path) -> None:
    look_at(browser, page, PHONE)
    browser.find_element(By.CSS_SELECTOR, "#sheet-box summary").send_keys(Keys.ENTER)
    WebDriverWait(browser, 10).until(
        lambda driver: len(driver.find_elements(By.CSS_SELECTOR, "#sheet img")) == 4 * 4
    )
    assert browser.get_log("browser") == []
