"""The schema: every setting there is, declared beside the component that owns it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from t2sda.config.fields import Field

Condition = Callable[[CfgNode], bool]
Rule = Callable[[CfgNode], "str | list[str] | None"]


@dataclass(frozen=True)
class Group:
    """Settings that were declared together and have an effect in the same runs."""

    prefix: str
    fields: Mapping[str, Field]
    """By dotted key, in the order of declaration."""
    when: Condition | None
    when_text: str


class Schema:
    """Typed fields by dotted key, and the rules that hold between them."""

    def __init__(self) -> None:
        self.fields: dict[str, Field] = {}
        self.groups: list[Group] = []
        self.rules: list[Rule] = []

    def declare(
        self,
        prefix: str,
        fields: Mapping[str, Field],
        when: Condition | None = None,
        when_text: str = "",
    ) -> None:
        """Add the settings of one component.

        Args:
            prefix: their section, dotted ("MODEL.BACKBONE"); "" for the top level.
            fields: by name, without the prefix.
            when: whether the settings have an effect in a run with this configuration.
            when_text: the same in words; completes "only used when ...".

        Raises:
            ValueError: if a key exists already, is a section, or is no key YAML reads as text.
        """
        if (when is None) != (when_text == ""):
            raise ValueError(f"{prefix}: when and when_text belong together; give both or none")
        for name in [*filter(None, prefix.split(".")), *fields]:
            _refuse_misread(name)
        keyed = {join_key(prefix, name): field for name, field in fields.items()}
        for key in keyed:
            self._refuse_taken(key)
        self.fields.update(keyed)
        self.groups.append(Group(prefix, keyed, when, when_text))

    def check(self, rule: Rule) -> Rule:
        """Decorator for a rule between settings: it returns what is wrong, or None.

        Rules run once every single setting is known to be valid, on the frozen configuration.
        """
        self.rules.append(rule)
        return rule

    @property
    def sections(self) -> set[str]:
        """Every dotted prefix of a key ("MODEL", "MODEL.BACKBONE")."""
        return {section for key in self.fields for section in _parents(key)}

    def build(self, values: Mapping[str, Any]) -> CfgNode:
        """The frozen configuration of `values` by dotted key, defaults elsewhere."""
        nested: dict[str, Any] = {}
        for key, field in self.fields.items():
            *parents, name = key.split(".")
            section = nested
            for parent in parents:
                section = section.setdefault(parent, {})
            section[name] = values.get(key, field.default)
        cfg = CfgNode(nested)
        cfg.freeze()
        return cfg

    def _refuse_taken(self, key: str) -> None:
        if key in self.fields:
            raise ValueError(f"{key} is declared already; give the new setting another name")
        clash = [other for other in self.fields if key in _parents(other) or other in _parents(key)]
        if clash:
            raise ValueError(f"{key} clashes with {clash[0]}: one would be a section and a value")


SCHEMA = Schema()
"""The settings of this process; components declare theirs when they are imported."""


def join_key(prefix: str, name: str) -> str:
    """The dotted key of `name` in the section `prefix` ("" is the top level)."""
    return f"{prefix}.{name}" if prefix else name


def flat_items(cfg: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every setting in a nested configuration."""
    for name, value in cfg.items():
        key = join_key(prefix, name)
        if isinstance(value, Mapping):
            yield from flat_items(value, key)
        else:
            yield key, value


def _refuse_misread(name: str) -> None:
    if not (name.isidentifier() and name.isupper() and name == yaml.safe_load(name)):
        raise ValueError(
            f"'{name}' cannot be a key: use capitals, digits and _, and no word that YAML reads "
            f"as a boolean or null"
        )


def _parents(key: str) -> list[str]:
    names = key.split(".")
    return [".".join(names[:count]) for count in range(1, len(names))]
