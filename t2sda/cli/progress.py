"""How far long work is: a bar where a person looks, a line now and then in a pipe or a file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Console

from t2sda.cli.infer_progress import SECONDS_BETWEEN_LINES
from t2sda.engine.metrics import advancing, progress_bar


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
                self._say(f"{what}: {done}/{len(indices)}, {left:.0f} s left")
            yield index
        self._say(f"{what}: {len(indices)} in {time.perf_counter() - begin:.1f} s")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)
