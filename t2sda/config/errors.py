"""The error of a configuration: everything that is wrong with it, in one message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from t2sda.errors import UserError

MAX_PROBLEMS = 50
_LONGEST = 1000  # characters of one problem


class ConfigError(UserError):
    """A configuration that cannot be used; the message lists its problems, one per line."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))  # a base read twice is reported once
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        title = f"the configuration has {count} problem{'s' if count != 1 else ''}:"
        lines = [_clipped(problem, _LONGEST) for problem in self.problems[:MAX_PROBLEMS]]
        more = [f"… and {count - MAX_PROBLEMS} more"] if count > MAX_PROBLEMS else []
        return "\n  ".join([title, *lines, *more])


def spelled(value: Any) -> str:
    """A value on one line; null and booleans as YAML spells them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def shown(value: Any) -> str:
    """A value in a message: spelled out, but not longer than a line."""
    try:
        text = "a section" if isinstance(value, dict) else spelled(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        text = f"a {type(value).__name__} too large to show"
    return _clipped(text, 80)


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
