"""Every declared setting is read by the code, and every setting the code reads is declared."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from t2sda.config import SCHEMA

ROOT = Path(__file__).parents[2]
PACKAGES = ("t2sda", "export", "tools")


def settings_read(code: ast.AST, *, in_declarations: bool) -> Iterator[str]:
    """Dotted key of every `cfg.UPPER.CASE` chain, with or without those of schema and rules."""
    for node in ast.iter_child_nodes(code):
        if _is_declaration(node) and not in_declarations:
            continue
        names = _chain(node)
        if names:
            yield ".".join(names)
        else:
            yield from settings_read(node, in_declarations=in_declarations)


def _is_declaration(node: ast.AST) -> bool:
    """A call of SCHEMA.declare, or a function under @SCHEMA.check."""
    if isinstance(node, ast.FunctionDef):
        return any(ast.unparse(decorator) == "SCHEMA.check" for decorator in node.decorator_list)
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "SCHEMA.declare"


def _chain(node: ast.AST) -> list[str]:
    """["SOLVER", "AMP"] for `cfg.SOLVER.AMP` and `self.cfg.SOLVER.AMP`; [] for whatever else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute) and node.attr.isupper():
        names.insert(0, node.attr)
        node = node.value
    owner = getattr(node, "id", getattr(node, "attr", None))  # of a Name or an Attribute
    return names if owner == "cfg" else []


def _read_in_the_project(*, in_declarations: bool) -> dict[str, str]:
    """Key to one file that reads it."""
    return {
        key: str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for key in settings_read(
            ast.parse(path.read_text(encoding="utf-8")), in_declarations=in_declarations
        )
    }


def test_every_declared_key_is_read() -> None:
    import_module("t2sda.builtin")  # declares every setting
    dead = SCHEMA.fields.keys() - _read_in_the_project(in_declarations=False).keys()
    assert not dead, f"declared, but read nowhere as cfg.KEY: {', '.join(sorted(dead))}"


def test_every_key_that_is_read_is_declared() -> None:
    import_module("t2sda.builtin")
    known = SCHEMA.fields.keys() | SCHEMA.sections
    unknown = {
        key: path
        for key, path in _read_in_the_project(in_declarations=True).items()
        if key not in known
    }
    assert not unknown, f"read, but not declared: {unknown}"


SAMPLE = """
SCHEMA.declare("A", {"B": Field(1, "")}, when=lambda cfg: cfg.ONLY.DECLARED > 0)

@SCHEMA.check
def rule(cfg):
    return None if cfg.ONLY.CHECKED else f"{cfg.ONLY.SHOWN}"

def from_config(cls, cfg):
    section = cfg.SECTION
    other.SOLVER.IGNORED = 1
    self.cfg.OF_SELF = checkpoint.cfg.freeze()
    return cls(cfg.A.B, name=cfg.A.NAME.lower(), rest=[f"{cfg.DEEP.DEEPER.KEY[0]}", cfg.freeze()])
"""


def test_the_walk_finds_chains_outside_declarations() -> None:
    found = set(settings_read(ast.parse(SAMPLE), in_declarations=False))
    assert found == {"SECTION", "OF_SELF", "A.B", "A.NAME", "DEEP.DEEPER.KEY"}


def test_the_walk_finds_chains_inside_declarations_when_asked() -> None:
    found = set(settings_read(ast.parse(SAMPLE), in_declarations=True))
    assert {"ONLY.DECLARED", "ONLY.CHECKED", "ONLY.SHOWN", "A.B"} <= found
