"""From located entries to a checked configuration: every problem is found before one is raised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode

from t2sda.config.errors import MAX_PROBLEMS, ConfigError, shown
from t2sda.config.files import BASE_KEY
from t2sda.config.schema import Schema, join_key
from t2sda.config.yaml_text import Entry, Tree
from t2sda.registry import nearest_first


@dataclass(frozen=True)
class _Setting:
    value: Any
    where: str


def resolve(schema: Schema, trees: Iterable[Tree], problems: list[str]) -> CfgNode:
    """The frozen configuration that `trees` describe; a later tree overrides an earlier one.

    Args:
        schema: the settings there are.
        trees: the sources, the most basic first.
        problems: what was found wrong with the sources already.

    Raises:
        ConfigError: with all problems. Rules between settings are asked only when every single
            setting is valid.
    """
    settings: dict[str, _Setting] = {}
    for tree in trees:
        _collect(schema, tree, "", settings, problems)
    if problems:
        raise ConfigError(problems)
    cfg = schema.build({key: setting.value for key, setting in settings.items()})
    problems = [*_settings_without_effect(schema, cfg, settings), *_broken_rules(schema, cfg)]
    if problems:
        raise ConfigError(problems)
    return cfg


def resolve_section(schema: Schema, tree: Tree, section: str, problems: list[str]) -> CfgNode:
    """The frozen configuration of one section of a tree, and of all else what is valid.

    Raises:
        ConfigError: with all problems of that section, and those that were there already.
    """
    settings: dict[str, _Setting] = {}
    elsewhere: list[str] = []
    for name, entry in tree.items():
        found = problems if name == section else elsewhere
        _collect(schema, {name: entry}, "", settings, found)
    if problems:
        raise ConfigError(problems)
    return schema.build({key: setting.value for key, setting in settings.items()})


def _collect(
    schema: Schema, tree: Tree, prefix: str, settings: dict[str, _Setting], problems: list[str]
) -> None:
    """Add the valid settings of `tree` to `settings`, and what is wrong to `problems`."""
    sections = schema.sections
    for name, entry in tree.items():
        key = join_key(prefix, name)
        if "." in name or not (key in schema.fields or key in sections):
            # Looking for the nearest key takes a millisecond; nobody reads thousands of them.
            is_shown = len(problems) < MAX_PROBLEMS
            problems.append(_unknown(schema, key, name, entry) if is_shown else f"{key}: unknown")
        elif key in sections and isinstance(entry.value, dict):
            _collect(schema, entry.value, key, settings, problems)
        elif key in sections:
            problems.append(_not_a_section(schema, key, entry))
        else:
            _collect_value(schema, key, entry, settings, problems)


def _collect_value(
    schema: Schema, key: str, entry: Entry, settings: dict[str, _Setting], problems: list[str]
) -> None:
    field = schema.fields[key]
    if isinstance(entry.value, dict):
        names = ", ".join(entry.value) or "nothing"
        problems.append(
            f"{key}: found a section with {names} ({entry.where}); must be {field.type_text}"
        )
        return
    try:
        settings[key] = _Setting(field.convert(entry.value), entry.where)
    except ValueError as error:
        problems.append(f"{key}: found {shown(entry.value)} ({entry.where}); {error}")


def _not_a_section(schema: Schema, key: str, entry: Entry) -> str:
    members = [other for other in schema.fields if other.startswith(f"{key}.")]
    return (
        f"{key}: found {shown(entry.value)} ({entry.where}), but it is a section; "
        f"set keys in it, such as {members[0]}"
    )


def _unknown(schema: Schema, key: str, name: str, entry: Entry) -> str:
    if name == BASE_KEY:
        return f"{key}: found here ({entry.where}); it belongs at the top level of a config file"
    if "." in name:
        parts = ": {".join(name.split(".")) + ": ..." + "}" * name.count(".")
        return f"{key}: key with a dot ({entry.where}); nest it: {parts}"
    kind, known = "key", sorted(schema.fields)
    if isinstance(entry.value, dict):
        kind, known = "section", sorted(schema.sections)
    nearest = _nearest(key, known)
    if nearest is None:
        return f"{key}: unknown {kind} ({entry.where}); there is none to set"
    if nearest.lower() == key.lower():
        return f"{key}: unknown {kind} ({entry.where}); case matters: write {nearest}"
    return f"{key}: unknown {kind} ({entry.where}); nearest known {kind}: {nearest}"


def _nearest(key: str, known: list[str]) -> str | None:
    """The most similar key; one of the same name in another section comes first."""
    name = key.rpartition(".")[2].lower()
    same_name = [other for other in known if other.rpartition(".")[2].lower() == name]
    return next(iter(nearest_first(key, same_name or known)), None)


def _settings_without_effect(
    schema: Schema, cfg: CfgNode, settings: dict[str, _Setting]
) -> list[str]:
    problems = []
    for group in schema.groups:
        changed = [
            key
            for key, field in group.fields.items()
            if key in settings and settings[key].value != field.default
        ]
        if changed and group.when is not None and not group.when(cfg):
            problems += [
                f"{key} is set but has no effect in this run: only used when {group.when_text}; "
                f"found {shown(settings[key].value)} ({settings[key].where})"
                for key in changed
            ]
    return problems


def _broken_rules(schema: Schema, cfg: CfgNode) -> list[str]:
    problems: list[str] = []
    for rule in schema.rules:
        found = rule(cfg)
        problems += [found] if isinstance(found, str) else found or []
    return problems
