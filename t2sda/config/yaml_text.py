"""YAML text to located entries: plain values only, and every doubtful key is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from t2sda.config.errors import MAX_PROBLEMS, shown
from t2sda.errors import MissingFileError, UserError
from t2sda.files import mistaken_for, read_small_file

Where = Callable[["yaml.Mark | None"], str]
"""Names a place in the text for a message ("base.yaml:3", "command line")."""

_MAPPING_TAG = "tag:yaml.org,2002:map"
_TEXT_TAG = "tag:yaml.org,2002:str"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MAX_DEPTH = 20
"""Of lists and sections in each other; a reader would sooner or later run out of stack."""
MAX_DIGITS = 100
"""Of a number; Python refuses to show integers of thousands."""


@dataclass(frozen=True)
class Entry:
    """A value and where it was set; the value of a section is a Tree."""

    value: Any
    where: str


Tree: TypeAlias = dict[str, Entry]


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases (what a key is set to stands beside the key), of limited depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not supported; repeat the value or use _BASE_",
                problem_mark=self.peek_event().start_mark,
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MAX_DEPTH} lists and sections within each other",
                problem_mark=self.peek_event().start_mark,
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        """The text; what JSON writes as two halves of one letter is joined."""
        text = str(super().construct_scalar(node))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def parse_yaml(text: str | bytes, where: Where, problems: list[str]) -> Entry | None:
    """The one document in `text`; None where a problem was found that hides its content.

    Args:
        text: YAML; empty text gives an Entry of None.
        where: names a place in the text.
        problems: what is wrong is appended here.
    """
    try:
        loader = _PlainLoader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        problems.append(_syntax_problem(error, where))
        return None
    if root is None:
        return Entry(None, where(None))
    return _entry(loader, root, where(root.start_mark), where, problems)


def read_section(path: Path, kind: str, required: Sequence[str], hint: str = "") -> Tree:
    """The `key: value` lines of a YAML file that is no configuration.

    Args:
        kind: what the file is, for messages ("dataset file").
        required: keys, for the message of a file that holds none.
        hint: at what is often wrong in such a file.
    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is no such file; the message names places and remedies.
    """
    try:
        text = read_small_file(path)
    except MissingFileError:
        raise MissingFileError(f"{path}: no such {kind}") from None

    def where(mark: yaml.Mark | None) -> str:
        return str(path) if mark is None else f"{path}:{mark.line + 1}"

    problems: list[str] = []
    root = parse_yaml(text, where, problems)
    if mistaken := mistaken_for(text):
        raise UserError(f"{path}: is {mistaken}")
    if problems:
        title = f"{path}: not a {kind}{f' ({hint})' if hint else ''}:"
        raise UserError("\n  ".join([title, *problems[:MAX_PROBLEMS]]))
    if root is None or not isinstance(root.value, dict):
        raise UserError(
            f"{path}: not a {kind}; it holds `key: value` lines with at least {', '.join(required)}"
        )
    return root.value


def is_plain(value: Any) -> bool:
    """Whether a setting could have this value; YAML knows dates, sets and bytes as well."""
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def plain(tree: Tree) -> dict[str, Any]:
    """The values of a tree, as nested mappings."""
    return {
        name: plain(entry.value) if isinstance(entry.value, dict) else entry.value
        for name, entry in tree.items()
    }


def tree_from_mapping(
    values: Mapping[Any, Any], where: str, problems: list[str], depth: int = 1
) -> Tree:
    """Entries of a nested mapping, all set at `where`; `depth` counts the sections around it."""
    tree: Tree = {}
    for name, value in values.items():
        if not isinstance(name, str):
            problems.append(f"key {shown(name)} is not text ({where}); write it in quotes")
        elif isinstance(value, Mapping) and depth == MAX_DEPTH:
            problems.append(f"{name}: more than {MAX_DEPTH} sections within each other ({where})")
        elif isinstance(value, Mapping):
            tree[name] = Entry(tree_from_mapping(value, where, problems, depth + 1), where)
        else:
            tree[name] = Entry(value, where)
    return tree


def _entry(
    loader: _PlainLoader, node: yaml.Node, place: str, where: Where, problems: list[str]
) -> Entry | None:
    if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING_TAG:
        return Entry(_section(loader, node, where, problems), place)
    if node.tag in _NUMBER_TAGS and len(node.value) > MAX_DIGITS:
        problems.append(f"{place}: a number of {len(node.value)} digits; no setting takes it")
        return None
    try:
        return Entry(loader.construct_object(node, deep=True), place)
    except yaml.constructor.ConstructorError:
        problems.append(
            f"{place}: the YAML tag or value `{node.tag}` is refused; "
            f"use plain numbers, text, true, false, null and lists"
        )
    except Exception:  # the date 2024-99-99, `!!bool x`: each constructor fails in its own way
        problems.append(
            f"{place}: YAML cannot read {shown(node.value)} as {node.tag.rpartition(':')[2]}; "
            f"quote it, or write another value"
        )
    return None


def _section(
    loader: _PlainLoader, node: yaml.MappingNode, where: Where, problems: list[str]
) -> Tree:
    tree: Tree = {}
    first_places: dict[str, str] = {}
    for key_node, value_node in node.value:
        place = where(key_node.start_mark)
        name = _key_text(loader, key_node, place, problems)
        if name is None:
            continue
        if name in first_places:
            problems.append(
                f"{name}: duplicate key ({place}), set before at {first_places[name]}; delete one"
            )
        first_places.setdefault(name, place)
        entry = _entry(loader, value_node, place, where, problems)
        if entry is not None:
            tree[name] = entry
    return tree


def _key_text(loader: _PlainLoader, node: yaml.Node, place: str, problems: list[str]) -> str | None:
    """The key as text, or None (and a problem) where YAML reads it as something else."""
    if node.tag == _TEXT_TAG and isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if node.tag == _MERGE_TAG:
        problems.append(f"`<<`: merge keys are not supported ({place}); use _BASE_")
        return None
    entry = _entry(loader, node, place, lambda mark: place, problems)
    if entry is not None:
        problems.append(
            f"key `{node.value}` was read by YAML as {_in_words(entry.value)} ({place}); "
            f'quote it: "{node.value}"'
            if isinstance(node, yaml.ScalarNode)
            else f"a key must be text, found a list or a section ({place}); name one setting"
        )
    return None


def _in_words(value: Any) -> str:
    if value is None:
        return "null"
    kind = {bool: "boolean", int: "integer", float: "number"}.get(type(value), "value")
    return f"the {kind} {value}"


def _syntax_problem(error: yaml.YAMLError, where: Where) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # of the reader, which works on bytes
        reason = getattr(error, "reason", str(error))
        return f"{where(None)}: not UTF-8 text: {reason}; save the file as UTF-8"
    reason = getattr(error, "problem", "")
    return (
        f"{where(mark)}, column {mark.column + 1}: not valid YAML: {reason}; "
        f"check indentation, quotes and brackets there"
    )
