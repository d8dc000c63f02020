"""docs/combinations.md says what the schema answers today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import combinations_page
from benchmarks.combinations_page import METHODS, TABLES, TEXT, answers, table_of

PAGE = Path(__file__).parents[1] / "docs/combinations.md"
ADVICE = (
    "docs/combinations.md is stale: run `python -m benchmarks.combinations_page > "
    "docs/combinations.md`"
)
TABLE = re.compile(r"^\| method \|.*?(?=\n\n(?:#|Every|\Z)|\Z)", re.MULTILINE | re.DOTALL)


def printed() -> dict[str, dict[str, list[str]]]:
    """Of every table of the page its cells by method, numbers replaced by their sentences."""
    found = {}
    texts = TABLE.findall(PAGE.read_text(encoding="utf-8").rstrip("\n"))
    for table, text in zip(TABLES, texts, strict=True):
        notes = dict(re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE))
        head, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
        assert cells_of(head)[1:] == list(TABLES[table]), ADVICE
        rows = {name: cells for name, *cells in map(cells_of, lines)}
        found[table] = {n: [notes.get(cell, cell) for cell in row] for n, row in rows.items()}
    return found


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize("name", METHODS)
def test_cells_of_a_method_are_what_the_schema_answers(name: str) -> None:
    rows = {table: of_method[name] for table, of_method in printed().items()}
    today: dict[str, list[str]] = {table: [] for table in TABLES}
    for table, _, said in answers(name):
        today[table].append(said)
    assert rows == today, ADVICE


def test_page_has_the_text_of_its_template_and_no_other_methods() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for part in re.split(r"\{\w+\}\n?", TEXT.read_text(encoding="utf-8")):
        assert part in text, ADVICE
    assert all(list(rows) == list(METHODS) for rows in printed().values()), ADVICE


def test_a_refused_combination_has_its_number_and_one_sentence() -> None:
    rows = {"one": ["yes", "HOOKS.NAMES: no"], "two": ["HOOKS.NAMES: no", "own"]}
    assert table_of(["a", "b"], rows).splitlines() == [
        *("| method | a | b |", "| --- | :---: | :---: |", "| one | yes | 1 |"),
        *("| two | 1 | own |", "", "1. HOOKS.NAMES: no"),
    ]
    answer = combinations_page.answer("SePiCo", TABLES["training"]["running prototypes"])
    assert answer.startswith("T2SDA.PROTOTYPES is set but has no effect in this run: only used")
    assert "command line" not in answer
