"""The error of a configuration: everything that is wrong with it, in one message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from t2sda.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot be used; the message lists all problems, one per line."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))  # a base read twice is reported once
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        title = f"the configuration has {count} problem{'s' if count != 1 else ''}:"
        return "\n  ".join([title, *self.problems])


def spelled(value: Any) -> str:
    """A value on one line; null and booleans as YAML spells them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def shown(value: Any) -> str:
    """A value in a message: spelled out, but not longer than a line."""
    text = "a section" if isinstance(value, dict) else spelled(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
