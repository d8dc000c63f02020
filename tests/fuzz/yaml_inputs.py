"""Hostile YAML: values that YAML itself, Python or a file system fails on, and damaged text."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

# By kind, so that a hundred inputs meet each of them.
DEEP = ("[" * 500 + "]" * 500, "{a: " * 300 + "1" + "}" * 300)
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
NAMES = (
    *("b" * 300, "~nosuchuser/x", "/dev/zero", '"a\\0b"', "'\\$x^{{'", "list.txt", "images"),
    *("set.yaml", "harbour", '"\\udce4*"'),
)
PATHS = st.one_of(*map(st.sampled_from, (PLACEHOLDERS, FOLDERS, BRACKETS, NAMES)))
VALUES = st.one_of(
    *map(st.sampled_from, (DEEP, NUMBERS, TAGS, SYNTAX, TEXTS)),
    PATHS,
    st.integers().map(str) | st.floats().map(str) | st.text(max_size=20).map(repr),
    st.lists(st.sampled_from(("a", "b", "road", "3", "-1", "''", "[1, 2, 999]")), max_size=4).map(
        lambda items: f"[{', '.join(items)}]"
    ),
)

_CUT = st.tuples(st.integers(0, 10**6), st.integers(0, 40), st.binary(max_size=12))
_FLIP = st.tuples(st.integers(0, 10**6), st.integers(0, 7))


def damaged(texts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes with up to three places overwritten, cut out or filled in."""
    return st.builds(_cut, texts, st.lists(_CUT, min_size=1, max_size=3))


def flipped(texts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes of which some bits are others."""
    return st.builds(_flip, texts, st.lists(_FLIP, min_size=1, max_size=5))


def _cut(text: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, inserted in places:
        begin = place % (len(text) + 1)
        text = text[:begin] + inserted + text[begin + length :]
    return text


def _flip(text: bytes, places: list[tuple[int, int]]) -> bytes:
    changed = bytearray(text)
    for place, bit in places:
        changed[place % len(changed)] ^= 1 << bit
    return bytes(changed)


def changed_lines(
    text: str, values: Mapping[str, st.SearchStrategy[str | None]]
) -> st.SearchStrategy[bytes]:
    """A valid file of `key: value` lines in which up to three keys get a hostile value.

    A key whose value becomes None is left out.
    """
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    change = st.sampled_from(tuple(values)).flatmap(
        lambda key: values[key].map(lambda value: (key, value))
    )
    changes = st.lists(change, min_size=1, max_size=3)
    return changes.map(lambda changed: _join({**lines, **dict(changed)}))


def _join(lines: Mapping[str, str | None]) -> bytes:
    kept = (f"{key}: {value}\n" for key, value in lines.items() if value is not None)
    return "".join(kept).encode("utf-8", "surrogatepass")
