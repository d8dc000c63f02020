"""Labels as images: color map, overlay, legend, and all of it side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2sda.constants import IGNORE_INDEX
from t2sda.data.taxonomies import Taxonomy
from t2sda.inference.marks import draw_numbers_, draw_outlines_

OVERLAY_ALPHA = 0.55
BORDER_ALPHA = 0.75
PIXELS_PER_BORDER = 900
"""The shorter side of an image whose borders are one pixel wide; larger ones get wider borders."""
PIXELS_AT_ONCE = 1 << 20
"""What is counted at once: NumPy widens it to 64 bits first."""

WIDEST = 4
"""Width to height of a panel's halves, at most."""

INK = (38, 42, 48)
FAINT_INK = (120, 126, 134)
PAPER = (255, 255, 255)


def color_map(labels: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Train ids (H, W) -> (H, W, 3) uint8 in the taxonomy's colors; what is no class is black."""
    table = np.zeros((IGNORE_INDEX + 1, 3), dtype=np.uint8)
    table[: taxonomy.num_classes] = taxonomy.palette
    return np.take(table, labels, axis=0)  # several times as fast as an index


@dataclass(frozen=True)
class OverlayStyle:
    """How an overlay looks.

    Attributes:
        opacity: share of the classes' colors, 0 to 1.
        outlines: broad lines in light shades of the classes' colors, for dark images, instead of
            thin light lines.
        numbers: train ids in regions and legends, for readers who cannot distinguish the colors.
    """

    opacity: float = OVERLAY_ALPHA
    outlines: bool = False
    numbers: bool = False


PLAIN = OverlayStyle()


def overlay(
    image: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy, style: OverlayStyle = PLAIN
) -> np.ndarray:
    """The image under its classes' colors, with lines where one class ends.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) train ids; what is no class shows the image alone.
        taxonomy: names and colors.
        style: opacity, kind of lines, numbers.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    colors = color_map(labels, taxonomy)
    drawn = cv2.addWeighted(image, 1 - style.opacity, colors, style.opacity, 0)
    cv2.copyTo(image, _as_mask(labels >= taxonomy.num_classes), drawn)
    if style.outlines:
        draw_outlines_(drawn, labels, taxonomy)
    else:
        drawn = _with_light_lines(drawn, labels)
    if style.numbers:
        draw_numbers_(drawn, labels, taxonomy)
    return drawn


def _with_light_lines(drawn: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Thin, and lighter than what they lie on."""
    tones = np.arange(256, dtype=np.float32)
    light = (tones + (255 - tones) * np.float32(BORDER_ALPHA) + 0.5).astype(np.uint8)
    return cv2.copyTo(cv2.LUT(drawn, light), _as_mask(_borders(labels)), drawn)


def _as_mask(chosen: np.ndarray) -> np.ndarray:
    """Bool as OpenCV takes it."""
    return np.ascontiguousarray(chosen).view(np.uint8)


def _borders(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: where the class to the right or below is another one, as a line."""
    borders = np.zeros(labels.shape, dtype=bool)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    width = max(round(min(labels.shape) / PIXELS_PER_BORDER), 1)
    if width == 1:
        return borders
    kernel = np.ones((width, width), dtype=np.uint8)
    return cv2.dilate(borders.astype(np.uint8), kernel).astype(bool)


def class_counts(labels: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Train ids (H, W) -> pixels of every class, (C,) int64."""
    counts = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
    for rows in np.array_split(labels, -(-labels.size // PIXELS_AT_ONCE)):
        counts += np.bincount(rows.ravel(), minlength=IGNORE_INDEX + 1)
    return counts[: taxonomy.num_classes]


@dataclass(frozen=True)
class _Entry:
    """A line of a legend."""

    name: str
    color: tuple[int, int, int]
    share: str


def legend(
    counts: np.ndarray,
    taxonomy: Taxonomy,
    width: int,
    font_size: int = 16,
    numbers: bool = False,
) -> np.ndarray:
    """The classes that are there with their shares, the largest first, in as many columns as fit.

    Args:
        counts: pixels of every class, (C,).
        taxonomy: names and colors.
        width: of the image; it becomes wider only if one column needs more.
        font_size: in pixels.
        numbers: train ids before the names.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    entries = _entries(counts, taxonomy, numbers)
    font = ImageFont.load_default(size=font_size)
    margin, gap, line = font_size, round(0.5 * font_size), round(1.75 * font_size)
    text_width = max(round(font.getlength(entry.name)) for entry in entries)
    share_width = round(font.getlength("100.0 %"))
    cell = line + gap + text_width + gap + share_width
    pitch = cell + 2 * gap
    columns = min(max((width - 2 * margin + 2 * gap) // pitch, 1), len(entries))
    rows = -(-len(entries) // columns)
    columns = -(-len(entries) // rows)
    width = max(width, 2 * margin + cell)
    pitch = max(pitch, (width - 2 * margin + 2 * gap) // columns) if columns > 1 else pitch
    canvas = Image.new("RGB", (width, 2 * margin + rows * line), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, entry in enumerate(entries):
        left = margin + index // rows * pitch
        middle = margin + index % rows * line + line // 2
        _draw_entry(draw, entry, (left, middle), (line, gap, text_width, share_width), font)
    return np.asarray(canvas)


def _entries(counts: np.ndarray, taxonomy: Taxonomy, numbers: bool) -> list[_Entry]:
    total = counts.sum()
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    return [
        _Entry(
            f"{index}  {taxonomy.class_names[index]}" if numbers else taxonomy.class_names[index],
            taxonomy.palette[index],
            _percent(counts[index], total),
        )
        for index in order
    ] or [_Entry("no class", (0, 0, 0), "")]


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"


def _draw_entry(
    draw: ImageDraw.ImageDraw,
    entry: _Entry,
    left_middle: tuple[int, int],
    widths: Sequence[int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, middle = left_middle
    swatch, gap, text_width, share_width = widths
    half = round(0.36 * swatch)
    box = (left, middle - half, left + round(1.0 * swatch), middle + half)
    draw.rounded_rectangle(box, radius=half // 2, fill=entry.color, outline=FAINT_INK)
    text_left = left + swatch + gap
    draw.text((text_left, middle), entry.name, INK, font, anchor="lm")
    right = text_left + text_width + gap + share_width
    draw.text((right, middle), entry.share, FAINT_INK, font, anchor="rm")


def side_by_side(
    image: np.ndarray,
    labels: np.ndarray,
    taxonomy: Taxonomy,
    style: OverlayStyle = PLAIN,
    *,
    height: int = 540,
) -> np.ndarray:
    """Image and overlay beside each other, the legend below them.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) train ids.
        taxonomy: names and colors.
        style: of the overlay.
        height: of the two; 540 gives a sheet that fits a screen and a README. Panoramas of more
            than WIDEST to 1 become lower instead of wider.

    Returns:
        (height + legend, ..., 3) uint8 RGB.
    """
    scale = min(height / image.shape[0], WIDEST * height / image.shape[1])
    height = max(round(image.shape[0] * scale), 1)
    size = (max(round(image.shape[1] * scale), 1), height)
    shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    # Lines are drawn at the final size: scaled ones would be ragged.
    shown_labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    panels = (shown, overlay(shown, shown_labels, taxonomy, style))
    margin = 16
    counts = class_counts(labels, taxonomy)
    below = legend(counts, taxonomy, 2 * size[0] + 3 * margin, numbers=style.numbers)
    sheet = np.full((height + margin + below.shape[0], below.shape[1], 3), 255, dtype=np.uint8)
    for index, panel in enumerate(panels):
        left = margin + index * (size[0] + margin)
        sheet[margin : margin + height, left : left + size[0]] = panel
    sheet[margin + height :] = below
    return sheet


def comparison(
    rows: Sequence[tuple[np.ndarray, Mapping[str, np.ndarray]]], taxonomy: Taxonomy
) -> np.ndarray:
    """A sheet with a row for each image: the image, then the overlay of every named labelling.

    Args:
        rows: ((H, W, 3) uint8 RGB, {title: (H, W) train ids}), all of one size and with one set of
            titles.
        taxonomy: names and colors.

    Returns:
        (rows, titles above, legend below) as one uint8 RGB image.
    """
    titles = ("image", *rows[0][1])
    counts = sum(class_counts(labels, taxonomy) for _, named in rows for labels in named.values())
    panels = [
        [image, *(overlay(image, labels, taxonomy) for labels in named.values())]
        for image, named in rows
    ]
    return titled_rows(titles, panels, np.asarray(counts), taxonomy)


def titled_rows(
    titles: Sequence[str],
    rows: Sequence[Sequence[np.ndarray]],
    counts: np.ndarray | None,
    taxonomy: Taxonomy,
) -> np.ndarray:
    """A sheet of panels in rows, a title above every column, the legend below.

    Args:
        titles: one a column.
        rows: (H, W, 3) uint8 RGB panels, all of one size.
        counts: pixels of every class, (C,), for the legend; None: there is none.
        taxonomy: names and colors.

    Returns:
        One uint8 RGB image.
    """
    height, width = rows[0][0].shape[:2]
    margin, title_height = 12, 34
    sheet_width = len(titles) * (width + margin) + margin
    below = np.full((0, sheet_width, 3), 255, dtype=np.uint8)
    if counts is not None:
        below = legend(counts, taxonomy, sheet_width, font_size=20)
    above = title_height + len(rows) * (height + margin)
    sheet = np.full((above + below.shape[0], below.shape[1], 3), 255, dtype=np.uint8)
    for row, panels in enumerate(rows):
        top = title_height + row * (height + margin)
        for column, panel in enumerate(panels):
            left = margin + column * (width + margin)
            sheet[top : top + height, left : left + width] = panel
    sheet[above:] = below
    canvas = Image.fromarray(sheet)
    font = ImageFont.load_default(size=20)
    for column, title in enumerate(titles):
        left = margin + column * (width + margin)
        ImageDraw.Draw(canvas).text((left, title_height // 2), title, INK, font, anchor="lm")
    return np.asarray(canvas)


def heat_map(values: np.ndarray) -> np.ndarray:
    """Shares (H, W) in [0, 1] -> (H, W, 3) uint8 RGB, from dark blue over green to yellow."""
    levels = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1])
