"""Log messages: on a command's console, in a run's file, of several ranks."""

from __future__ import annotations

import io
import logging
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from t2sda.logs import LogFile, log_to_console, log_to_file

LOGGER = logging.getLogger("t2sda.some.module")


def shown() -> tuple[str, str]:
    """Standard output and error of one message of each kind."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), log_to_console():
        LOGGER.debug("details")
        LOGGER.info("100 %")
        LOGGER.warning("mind %s", "this")
    return out.getvalue(), err.getvalue()


def test_messages_go_to_standard_output_and_warnings_to_standard_error() -> None:
    assert shown() == ("100 %\n", "warning: mind this\n")


def test_other_ranks_show_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert shown() == ("", "warning: mind this\n")


def test_afterwards_the_logger_is_as_it_was(tmp_path: Path) -> None:
    root = logging.getLogger("t2sda")
    before = (root.level, list(root.handlers))
    with log_to_console(), log_to_file(tmp_path):
        assert root.level == logging.INFO
    assert (root.level, root.handlers) == before


def test_the_file_has_one_line_a_message_with_time_and_module(tmp_path: Path) -> None:
    for text in ("first", "two\nlines"):  # a resumed run goes on in the same file
        with log_to_file(tmp_path):
            LOGGER.info(text)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ INFO t2sda\.some\.module: first", lines[0])
    assert lines[1].endswith("two | lines")


def test_the_error_that_ends_a_run_is_in_the_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="not finite"), log_to_console(), log_to_file(tmp_path):
        raise ValueError("iteration 3: not finite")
    assert "ERROR t2sda: ValueError: iteration 3: not finite" in (tmp_path / "log.txt").read_text()
    assert capsys.readouterr() == ("", "")


def test_without_a_console_warnings_are_still_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest has some
    with log_to_file(tmp_path):
        LOGGER.info("for the file")
        LOGGER.warning("for everybody")
    assert capsys.readouterr() == ("", "warning: for everybody\n")


def test_a_full_disk_is_reported_once_and_nothing_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(self: LogFile, record: logging.LogRecord) -> str:
        raise OSError(28, "No space left on device")

    with log_to_console(), log_to_file(tmp_path):
        monkeypatch.setattr(LogFile, "format", no_space)
        LOGGER.info("one")
        LOGGER.info("two")
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n"
    assert err.count("No space left on device") == 1
    assert "Traceback" not in err
