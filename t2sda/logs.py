"""Where log messages go: the console of a command, and a file in a run's folder."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from t2sda.errors import UserError, printable
from t2sda.files import open_regular

ROOT = logging.getLogger("t2sda")
"""Every module logs to `logging.getLogger(__name__)`, below this one."""
LOG_NAME = "log.txt"
_LONGEST_LINE = 1 << 16
FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class ConsoleHandler(logging.Handler):
    """Messages on standard output, warnings and errors on standard error.

    A message with the attribute `in_bar` is left out: a progress bar shows the same.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        if getattr(record, "in_bar", False):
            return
        try:
            text = printable(self.format(record))
            if record.levelno >= logging.WARNING:
                print(f"{record.levelname.lower()}: {text}", file=sys.stderr)
            else:
                print(text, flush=True)
        except Exception:
            self.handleError(record)


class LogFile(logging.FileHandler):
    """Appends one line a message, with the time and the module; a full disk is reported once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter(FILE_FORMAT))
        self._failed = False

    def format(self, record: logging.LogRecord) -> str:
        """The message as one line."""
        return printable(" | ".join(super().format(record).splitlines()))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """A log that cannot be written is no reason to stop."""
        if not self._failed:
            self._failed = True
            ROOT.warning("%s: cannot be written (%s)", self.baseFilename, sys.exc_info()[1])


@contextmanager
def log_to_console() -> Iterator[None]:
    """Show what is logged in the block; of ranks other than 0 the warnings alone."""
    is_main = os.environ.get("RANK", "0") == "0"
    with _attached(ConsoleHandler(), logging.INFO if is_main else logging.WARNING):
        yield


@contextmanager
def log_to_file(folder: Path) -> Iterator[None]:
    """Append what is logged in the block to `log.txt`, and the error that ends it.

    Where nothing shows log messages, as in a notebook, warnings go to standard error all the same.
    """
    handler = LogFile(folder / LOG_NAME)
    shown = nullcontext() if ROOT.hasHandlers() else _attached(ConsoleHandler(), logging.WARNING)
    with shown, _attached(handler, logging.INFO):
        try:
            yield
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            record = ROOT.makeRecord(ROOT.name, logging.ERROR, __file__, 0, text, (), None)
            handler.handle(record)  # the console gets it from whoever catches the error
            raise
        finally:
            handler.close()


def last_error(path: Path) -> str:
    """The error that a log file ends with; empty if it ends otherwise, or is not there."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, path.stat().st_size - _LONGEST_LINE))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except (OSError, UserError):
        return ""
    _, is_error, message = (lines[-1] if lines else "").partition(f" ERROR {ROOT.name}: ")
    return message if is_error else ""


@contextmanager
def _attached(handler: logging.Handler, level: int) -> Iterator[None]:
    previous = ROOT.level
    handler.setLevel(level)
    ROOT.addHandler(handler)
    ROOT.setLevel(min(level, ROOT.getEffectiveLevel()))
    try:
        yield
    finally:
        ROOT.removeHandler(handler)
        ROOT.setLevel(previous)
