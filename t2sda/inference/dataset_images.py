"""A dataset at a glance: class frequencies as bars, and a contact sheet of overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2sda.data.datasets import Sample
from t2sda.data.taxonomies import Taxonomy
from t2sda.files import atomic_writer
from t2sda.inference.plotting import blank_figure
from t2sda.inference.visualisation import INK, class_counts, legend, overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHEET_COLUMNS = 4
THUMBNAIL_WIDTH, HIGHEST_THUMBNAIL = 400, 800
SMALLEST_SHARE, WIDEST_SHARE = 1e-6, 1e-2
"""Between these the axis of shares begins."""
PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
"""Behind a bar's numbers, so that no grid line crosses them."""
EDGE, GRID = "#44484f", "#d8dade"
MARGIN, CAPTION_HEIGHT = 12, 20


def write_frequencies(path: Path, title: str, pixels: np.ndarray, taxonomy: Taxonomy) -> None:
    """Write a bar plot: share of the labelled pixels of every class, and in how many images.

    Args:
        path: of the PNG.
        title: above the bars.
        pixels: (N, C + 1) counts, ignored ones last.
        taxonomy: names and colors.
    """
    totals = pixels[:, :-1].sum(axis=0)
    shares = totals / max(totals.sum(), 1)
    order = np.argsort(-shares, kind="stable")
    figure = blank_figure(9, 1.3 + 0.28 * len(order))
    axes = figure.subplots()
    _draw_bars(axes, pixels, shares, order, np.array(taxonomy.palette)[order] / 255)
    names = [taxonomy.class_names[index] for index in order]
    axes.set_yticks(range(len(order)), names, parse_math=False)  # a $ is a $
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_writer(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _draw_bars(
    axes: Axes, pixels: np.ndarray, shares: np.ndarray, order: np.ndarray, colors: np.ndarray
) -> None:
    """Bars on a logarithmic axis that begins below the rarest class, with numbers behind them."""
    from matplotlib.ticker import NullLocator

    rarest = shares[shares > 0].min(initial=WIDEST_SHARE)
    left = 10.0 ** np.floor(np.log10(max(rarest, SMALLEST_SHARE)) - 0.01)
    lengths = np.maximum(shares[order], left) - left
    axes.barh(range(len(order)), lengths, left=left, color=colors, edgecolor=EDGE, linewidth=0.6)
    images = (pixels[:, :-1] > 0).sum(axis=0)
    for row, index in enumerate(order):
        text = "never occurs"
        if shares[index]:
            text = f"{_percent(shares[index])}   {images[index]} of {len(pixels)} images"
        place = max(shares[index], left) * 1.12
        axes.text(place, row, text, va="center", fontsize=8, bbox=PLAIN)
    axes.set_xscale("log")
    axes.set_xlim(left, left**-0.25)  # a quarter more, for the numbers behind a full bar
    axes.set_xticks([tick for tick in 10.0 ** np.arange(-6, 1) if tick >= left])
    axes.xaxis.set_major_formatter(lambda value, _: _percent(value))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("share of the labelled pixels (logarithmic)")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def contact_sheet(
    samples: Sequence[Sample], taxonomy: Taxonomy, columns: int = SHEET_COLUMNS
) -> np.ndarray:
    """Small overlays in rows, each with its file's name below it; the legend at the bottom.

    Args:
        samples: images, labelled or not; at least one.
        taxonomy: names and colors.
        columns: thumbnails in a row.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    columns = min(columns, len(samples))
    rows = [samples[first : first + columns] for first in range(0, len(samples), columns)]
    parts = [_sheet_row(row, columns, taxonomy) for row in rows]
    labels = [sample.label for sample in samples if sample.label is not None]
    if labels:
        counts = np.sum([class_counts(label, taxonomy) for label in labels], axis=0)
        parts.append(legend(counts, taxonomy, parts[0].shape[1]))
    width = max(part.shape[1] for part in parts)
    return np.concatenate([_widened(part, width) for part in parts])


def _sheet_row(samples: Sequence[Sample], columns: int, taxonomy: Taxonomy) -> np.ndarray:
    """Thumbnails beside each other, names below them."""
    thumbnails = [_thumbnail(sample, taxonomy) for sample in samples]
    height = max(thumbnail.shape[0] for thumbnail in thumbnails)
    pitch = THUMBNAIL_WIDTH + MARGIN
    size = (MARGIN + height + CAPTION_HEIGHT, columns * pitch + MARGIN, 3)
    row = np.full(size, 255, dtype=np.uint8)
    for column, thumbnail in enumerate(thumbnails):
        left = MARGIN + column * pitch
        row[MARGIN : MARGIN + thumbnail.shape[0], left : left + thumbnail.shape[1]] = thumbnail
    canvas = Image.fromarray(row)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=14)
    for column, sample in enumerate(samples):
        place = (MARGIN + column * pitch, MARGIN + height + CAPTION_HEIGHT // 2)
        draw.text(place, _fitting(sample.name, font), INK, font, anchor="lm")
    return np.asarray(canvas)


def _widened(part: np.ndarray, width: int) -> np.ndarray:
    return np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255)


def _thumbnail(sample: Sample, taxonomy: Taxonomy) -> np.ndarray:
    height, width = sample.image.shape[:2]
    scale = min(THUMBNAIL_WIDTH / width, HIGHEST_THUMBNAIL / height)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    shrinks = scale < 1
    image = cv2.resize(
        sample.image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    if sample.label is None:
        return image
    label = cv2.resize(sample.label, size, interpolation=cv2.INTER_NEAREST)
    return overlay(image, label, taxonomy)


def _fitting(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a path that fits under a thumbnail."""
    shown = Path(name).name
    while font.getlength(shown) > THUMBNAIL_WIDTH:
        shown = "…" + shown[2:]
    return shown


def _percent(share: float) -> str:
    """Two digits below 10 %, tenths above."""
    if share < 0.0995:
        return f"{100 * share:.2g} %"
    return f"{100 * share:.1f} %".replace(".0 ", " ")
