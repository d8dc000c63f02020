"""Charts of matplotlib as elements of a page: in its colors, in light and dark, and small.

matplotlib knows no CSS variables, so it draws in colors that stand for them.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

NUM_SERIES = 8
"""Colors of the page for groups; further ones begin again, in other dashes."""
INK, FAINT, ON_HEAT, HEAT = "#fe0101", "#fe0102", "#fe0103", "#fe0104"
SERIES = [f"#fe02{index:02x}" for index in range(NUM_SERIES)]
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    ON_HEAT: "var(--on-heat)",
    HEAT: "var(--heat)",
    **{color: f"var(--series-{index})" for index, color in enumerate(SERIES)},
}
_STYLE: Any = {  # its keys are one type of a thousand words
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "t2sda",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_ID = re.compile(r'(\bid="|url\(#|href="#)')
_TAG = re.compile(r"<[^>]*>")
_DIGITS = re.compile(r"(\.\d\d)\d+")
"""A hundredth of a point is far below a pixel."""
_FONT_SIZE = re.compile(r'"font: ([\d.]+)px [^";]*')
_FONT_FAMILY = re.compile(r' ?font-family: [^";]*;?')
"""The page has its own."""
_NEEDLESS = re.compile(
    r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>"
    r'|<path d="[^"]*"(?: clip-path="[^"]*")? style="fill: none"/>',
    re.DOTALL,
)
_SPACE = re.compile(r"(?<=[> ])\s+")


@contextmanager
def chart(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one plot in the look of the page, to draw and to write within the block.

    Args:
        width, height: in inches.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def svg_of(figure: Figure, label: str) -> str:
    """A figure as an element of a page, with ids that no other one has.

    Args:
        figure: of `chart`.
        label: what it shows, for the screen reader.
    """
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = _NEEDLESS.sub("", text[text.index("<svg") :])
    text = _SPACE.sub("", _TAG.sub(_shorter_tag, text))
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    own = hashlib.sha256(f"{label}{text}".encode()).hexdigest()[:8]
    text = _ID.sub(rf"\g<1>c{own}-", text)
    name = html.escape(label, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _shorter_tag(tag: re.Match[str]) -> str:
    """Without needless digits and fonts; what stands between tags stays as it is."""
    text = _DIGITS.sub(r"\1", tag[0])
    return _FONT_FAMILY.sub("", _FONT_SIZE.sub(r'"font-size: \1px', text))
