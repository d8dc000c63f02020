"""Hostile YAML: values that YAML itself, Python or a file system fails on, and damaged text."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from hypothesis import strategies as st

from tests.fuzz.byte_inputs import RANDOM

# By kind, so that a hundred inputs meet each of them.
DEEP = ("[" * 1000 + "]" * 1000, "{a: " * 600 + "1" + "}" * 600)
NUMBERS = (
    *("9" * 5000, "0x" + "f" * 5000, "1" + ":1" * 2000, "1e400", ".nan", "-.inf", "0x1F", "017"),
    *("0", "-1", "0.5", "true", "on", "null", "~", ""),
)
TAGS = (
    *("!!bool x", "!!int ''", "!!int x", "!!float ''", "!!timestamp x", "2024-99-99", "!!set {a}"),
    *("!!python/object/apply:os.system ['touch it_ran']", "!!binary x", "!own x", "&a [1]", "*a"),
)
SYNTAX = ("{<<: {a: 1}}", "[[]]", "{}", "[", "}", "'", '"', "|", "%", "?", "- -", "[1, x]", "a: b")
TEXTS = ('"a\\0b"', '"\\e[31m"', '"\\udce4"', '"\\ud83d"', "\ufeff", "\u202e", "a" * 5000)
PLACEHOLDERS = (
    *("'{stem}_{city}'", "'{stem}{0}'", "'{stem}{}'", "'{stem}{stem:>9}'", "'{stem!r}'", "'{stem'"),
    *("'{stem}{stem.__class__}'", "'{split}'", "'{1}'", "'images/{stem}.png'"),
)
FOLDERS = ("./", ".", "'**'", "'***'", "/", "'*/../*'", "a/" * 600 + "a", "'../*/*'", "'**/*.png'")
BRACKETS = ("'[z-a]*'", "'[]*'", "'[!]*'", "'[^a]*'", "'[]]*'", "'images/[!b]*'", "'?mages/*'")
ITEMS = ("a", "b", "road", "3", "-1", "''", "[1, 2, 999]")
NAMES = (
    *("b" * 300, "~nosuchuser/x", "/dev/zero", '"a\\0b"', "'\\$x^{{'", "list.txt", "images"),
    *("set.yaml", "harbour", '"\\udce4*"'),
)
PATHS = (PLACEHOLDERS, FOLDERS, BRACKETS, NAMES)
VALUES = (DEEP, NUMBERS, TAGS, SYNTAX, TEXTS, *PATHS)


def path(dice: random.Random) -> str:
    """A hostile name or pattern of a file."""
    return dice.choice(dice.choice(PATHS))


def value(dice: random.Random) -> str:
    """A hostile value of any kind."""
    own = (
        lambda: str(dice.randint(-300, 300)),
        lambda: repr(dice.uniform(-1, 1) * 10 ** dice.randint(-30, 30)),
        lambda: repr("".join(chr(dice.randrange(0x2FFF)) for _ in range(dice.randrange(20)))),
        lambda: f"[{', '.join(dice.choices(ITEMS, k=dice.randrange(5)))}]",
    )
    kind = dice.choice((*VALUES, own))
    found = dice.choice(kind)
    return found if isinstance(found, str) else found()


Choose = Callable[[random.Random], "str | None"]


def changed_lines(text: str, values: Mapping[str, Choose]) -> st.SearchStrategy[bytes]:
    """A valid file of `key: value` lines in which up to three keys get a hostile value.

    A key whose value becomes None is left out.
    """
    lines = dict(line.split(": ", 1) for line in text.splitlines())

    def changed(dice: random.Random) -> bytes:
        keys = dice.sample(tuple(values), dice.randint(1, 3))
        return _join({**lines, **{key: values[key](dice) for key in keys}})

    return RANDOM.map(changed)


def _join(lines: Mapping[str, str | None]) -> bytes:
    kept = (f"{key}: {value}\n" for key, value in lines.items() if value is not None)
    return "".join(kept).encode("utf-8", "surrogatepass")
