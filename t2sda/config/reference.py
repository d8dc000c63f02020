"""The page that documents every setting, generated from the schema."""

from __future__ import annotations

from itertools import groupby

from t2sda.config.errors import spelled
from t2sda.config.fields import Field
from t2sda.config.schema import SCHEMA, Group, Schema

_INTRODUCTION = """\
# Configuration reference

Generated from the schema by `t2sda show-config --reference > docs/config.md`; do not edit.
A key is set in a YAML file, section by section, or on the command line as `KEY VALUE`.
Setting a key that has no effect in a run is an error: see "used when".
"""
_TABLE_HEAD = """\
| key | type | default | allowed | meaning | used when |
| --- | --- | --- | --- | --- | --- |
"""


def reference_markdown(schema: Schema = SCHEMA) -> str:
    """One table per section; the order does not depend on the order of imports."""
    groups = sorted(schema.groups, key=_order)
    sections = [
        f"\n## {prefix or 'Top level'}\n\n{_TABLE_HEAD}{''.join(map(_rows, members))}"
        for prefix, members in groupby(groups, key=lambda group: group.prefix)
    ]
    return _INTRODUCTION + "".join(sections)


def _order(group: Group) -> tuple[str, str, list[str]]:
    return group.prefix, group.when_text, list(group.fields)


def _rows(group: Group) -> str:
    rows = []
    for key, field in group.fields.items():
        cells = [
            f"`{key}`",
            _type(field),
            f"`{_default(field)}`",
            _allowed(field),
            field.doc,
            group.when_text or "always",
        ]
        rows.append(f"| {' | '.join(map(_cell, cells))} |\n")
    return "".join(rows)


def _type(field: Field) -> str:
    text = field.scalar_type.__name__
    if field.type is tuple:
        one = f"{text} or " if field.one_or_several else ""
        text = f"{one}list of {'' if field.length is None else f'{field.length} '}{text}"
    return f"{text} or null" if field.optional else text


def _default(field: Field) -> str:
    return spelled(list(field.default) if isinstance(field.default, tuple) else field.default)


def _allowed(field: Field) -> str:
    choices = ", ".join(f"`{spelled(choice)}`" for choice in field.choices or ())
    limits = field.range_text or field.unit
    return ", ".join(part for part in (choices, limits) if part)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
