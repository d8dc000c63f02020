"""An empty figure of matplotlib that depends on nothing but its size."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, with space for what is written beside its axes."""
    # Not pyplot: it keeps a state of its own and may look for a display. Not from here: a file
    # called matplotlibrc in the working directory would be obeyed.
    with contextlib.chdir("/"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
