"""Configurations in and out: files, command lines, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from t2sda.config.checking import resolve, resolve_section
from t2sda.config.errors import ConfigError, shown
from t2sda.config.files import find_config, read_trees
from t2sda.config.schema import SCHEMA, Schema, flat_items
from t2sda.config.yaml_text import (
    Entry,
    Tree,
    is_plain,
    parse_yaml,
    plain,
    read_section,
    tree_from_mapping,
)
from t2sda.errors import UserError

COMMAND_LINE = "command line"
_SCALARS = (str, int, float)


def load_config(
    source: str | os.PathLike[str] | Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    schema: Schema = SCHEMA,
) -> CfgNode:
    """The frozen, checked configuration of a run.

    Args:
        source: a YAML file or the name of a shipped one; a nested mapping or a configuration; None
            for the defaults.
        overrides: ["KEY", "VALUE", ...] or ["KEY=VALUE", ...], values are YAML; or {"KEY": value}.
        schema: the settings there are.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems: list[str] = []
    trees: list[Tree] = []
    if isinstance(source, Mapping):
        values = config_to_mapping(source) if isinstance(source, CfgNode) else source
        trees = [tree_from_mapping(values, "configuration", problems)]
    elif source is not None:
        trees = _file_trees(source, problems)
    if isinstance(overrides, Mapping):
        trees += [_nested(key, Entry(value, "overrides")) for key, value in overrides.items()]
    else:
        trees += _override_trees(overrides, schema, problems)
    return resolve(schema, trees, problems)


def config_from_mapping(
    values: Mapping[str, Any], origin: str, *, schema: Schema = SCHEMA
) -> CfgNode:
    """The frozen, checked configuration of a nested mapping; `origin` names it in messages.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems: list[str] = []
    tree = tree_from_mapping(values, origin, problems)
    return resolve(schema, [tree], problems)


def network_config(values: Mapping[str, Any], origin: str, *, schema: Schema = SCHEMA) -> CfgNode:
    """What running a trained network needs of a nested mapping: MODEL must be known and valid.

    Elsewhere settings that no loaded component owns are left out, and what does not fit gets its
    default; rules between settings are not asked.

    Raises:
        ConfigError: with everything that is wrong in MODEL.
    """
    problems: list[str] = []
    tree = tree_from_mapping(values, origin, problems)
    return resolve_section(schema, tree, "MODEL", problems)


def read_config_file(path: Path) -> dict[str, Any]:
    """The nested values of a run's configuration file, whatever version of the schema wrote it.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is none, with line and remedy.
    """
    values = plain(read_section(path, "configuration of a run", ("META_ARCH", "MODEL")))
    for key, value in flat_items(values):
        if not is_plain(value):
            raise UserError(f"{path}: {key}: found {shown(value)}, which no setting takes")
    return values


def plugins_named(path: str | os.PathLike[str]) -> list[str]:
    """PLUGINS of a configuration file and its bases, before anything else of it is understood.

    What is wrong with the file is said by `load_config`.
    """
    for tree in reversed(_file_trees(path, [])):
        names = plain(tree).get("PLUGINS") or []
        if isinstance(names, list) and names:
            return [name for name in names if isinstance(name, str)]
    return []


def config_to_mapping(cfg: CfgNode) -> dict[str, Any]:
    """Nested plain dict of YAML-safe values; tuples become lists."""
    mapping: dict[str, Any] = {}
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            mapping[name] = config_to_mapping(value)
        else:
            mapping[name] = list(value) if isinstance(value, tuple) else value
    return mapping


def dump_config(cfg: CfgNode) -> str:
    """YAML text that `load_config` reads back to an equal configuration."""
    return yaml.dump(config_to_mapping(cfg), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def changed_keys(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, value in `a`, value in `b`) where they differ; None where one lacks the key."""
    in_a, in_b = dict(flat_items(a)), dict(flat_items(b))
    both = ((key, in_a.get(key), in_b.get(key)) for key in in_a | in_b)
    return [(key, old, new) for key, old, new in both if old != new]


def _file_trees(path: str | os.PathLike[str], problems: list[str]) -> list[Tree]:
    try:
        return read_trees(find_config(path), problems)
    except ConfigError as error:  # no such file: the overrides are still looked at
        problems += error.problems
        return []


class _Dumper(yaml.SafeDumper):
    """Lists on one line, as people write them."""


_Dumper.add_representer(
    list,
    lambda dumper, values: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", values, flow_style=True
    ),
)


def _override_trees(overrides: Sequence[str], schema: Schema, problems: list[str]) -> list[Tree]:
    trees: list[Tree] = []
    words = iter(overrides)
    for word in words:
        key, equals, text = word.partition("=")
        value = text if equals else next(words, None)
        if value is None:
            problems.append(
                f"{key}: found no value ({COMMAND_LINE}); give pairs KEY VALUE, or KEY=VALUE"
            )
        elif (entry := _override_entry(key, value, schema, problems)) is not None:
            trees.append(_nested(key, entry))
    return trees


def _override_entry(key: str, text: str, schema: Schema, problems: list[str]) -> Entry | None:
    entry = parse_yaml(text, lambda mark: f"{key}, {COMMAND_LINE}", problems)
    if entry is None:
        return None
    field = schema.fields.get(key)
    takes_a_word = field is not None and (
        field.type is str or (field.one_or_several and field.element is str)
    )
    if takes_a_word and not isinstance(entry.value, (list, dict)):
        # A word of a shell is text: OUTPUT_DIR 2024 needs no quotes within quotes.
        is_null = entry.value is None and text.strip()
        value = entry.value if isinstance(entry.value, str) or is_null else text
        return Entry(value, COMMAND_LINE)
    takes_a_list = field is not None and field.type is tuple and not field.one_or_several
    if takes_a_list and isinstance(entry.value, _SCALARS) and entry.value != "":
        value = text if field and field.scalar_type is str else entry.value
        return Entry([value], COMMAND_LINE)  # a list of one needs no brackets
    return Entry(entry.value, COMMAND_LINE)


def _nested(key: str, entry: Entry) -> Tree:
    for name in reversed(key.split(".")[1:]):
        entry = Entry({name: entry}, entry.where)
    return {key.split(".")[0]: entry}
