"""How far long work is: a bar where a person looks, a log message now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

from rich.console import Console

from t2sda.engine.metrics import advancing, progress_bar

SECONDS_BETWEEN_LINES = 10.0

logger = logging.getLogger(__name__)


class ConsoleProgress:
    """Wraps the indices of long work; a `t2sda.data.parallel.Progress`.

    Args:
        console: where to show it.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, indices: Sequence[int], what: str) -> Iterator[int]:
        """The indices one by one, while bar or lines say how many are done."""
        if self.console.is_terminal:
            with progress_bar(self.console) as bar:
                yield from advancing(bar, indices, what)
        else:
            yield from self._with_lines(indices, what)

    def _with_lines(self, indices: Sequence[int], what: str) -> Iterator[int]:
        begin = said = time.perf_counter()
        for done, index in enumerate(indices):
            now = time.perf_counter()
            if done and now - said > SECONDS_BETWEEN_LINES:
                said = now
                left = (now - begin) / done * (len(indices) - done)
                logger.info("%s: %d/%d, %.0f s left", what, done, len(indices), left)
            yield index
        logger.info("%s: %d in %.1f s", what, len(indices), time.perf_counter() - begin)
