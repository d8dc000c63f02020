"""Images larger than what a graph takes, where the file says so: window by window, logits averaged.

`t2sda/modeling/hrda.py` does the same in torch, and so does `infer --window` with files of logits;
with files of labels every pixel has the label of one window alone there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2sda.data.transforms import Box
from t2sda.errors import UserError
from t2sda.inference.windows import average_windows

from .metadata import Layout, Metadata
from .opened import Runner


def sliding(run: Runner, metadata: Metadata) -> Runner:
    """`run`, or what slides it over batches of any size of at least one window."""
    if metadata.window_step is None:
        return run
    assert metadata.image_size is not None
    return Slides(run, metadata.image_size, metadata.window_step, metadata.layout)


@dataclass(frozen=True)
class Slides:
    """A graph of one size, slid over larger images.

    Args:
        run: batches of windows, as the graph takes them -> logits (B, C, h, w).
        window: (height, width) of them.
        step: (height, width) from one to the next; the last of a row ends at the border.
        layout: of the images.
    """

    run: Runner
    window: tuple[int, int]
    step: tuple[int, int]
    layout: Layout

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits (B, C, H, W), the mean where windows overlap.

        Raises:
            UserError: if the graph gives logits of another size than its window.
        """
        size = images.shape[1:3] if self.layout == "nhwc" else images.shape[2:4]
        if size == self.window:
            return self.run(images)

        def logits_of(seen: Box) -> np.ndarray:
            rows = slice(seen.top, seen.top + seen.height)
            columns = slice(seen.left, seen.left + seen.width)
            part = images[:, rows, columns] if self.layout == "nhwc" else images[..., rows, columns]
            logits = self.run(np.ascontiguousarray(part))
            if logits.shape[-2:] != self.window:
                raise UserError(
                    f"the graph gives {logits.dtype} of shape {logits.shape} for a window of "
                    f"{self.window[0]}x{self.window[1]}; export the checkpoint again"
                )
            return logits

        return average_windows(logits_of, (size[0], size[1]), self.window, self.step)
