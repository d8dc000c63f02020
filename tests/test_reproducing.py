"""docs/reproducing.md and configs/ stay in step, and no number of ours is invented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reproducing.md"
FOLDERS = (
    *("gta5_to_cityscapes", "synthia_to_cityscapes", "cityscapes_to_acdc"),
    *("dg", "ablations"),
)
LINK = re.compile(r"\[`([\w./]+)`\]\(\.\./configs/([\w./]+)\.yaml\)")
PAPER = re.compile(r"\d\d\.\d( ± \d\.\d)?|-|not in our copy")
TABLES = (
    *("Table 1", "Table 2", "Table 3", *(f"Table S{number}" for number in range(1, 12))),
    *("pairings", "objectives", "sampling", "dynamic re-weighting", "translation engines"),
)


class Row(NamedTuple):
    """One row of a table, cells by kind."""

    name: str
    configuration: str
    paper: list[str]
    ours: list[str]


def rows() -> list[Row]:
    found = []
    head: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| "):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == "row":
            head = cells
        elif head and set(cells[0]) != {"-"}:
            named = list(zip(head, cells, strict=True))
            paper = [cell for name, cell in named if name.startswith("paper")]
            ours = [cell for name, cell in named if name.startswith("ours")]
            found.append(Row(cells[0], cells[1], paper, ours))
    return found


def test_every_row_has_a_configuration_that_exists_or_says_that_it_is_not_hosted() -> None:
    for row in rows():
        link = LINK.fullmatch(row.configuration)
        if link is None:
            assert row.configuration == "not hosted", row
        else:
            assert link[1] == link[2], row
            assert (ROOT / "configs" / f"{link[2]}.yaml").is_file(), row


def test_every_configuration_of_the_benchmarks_is_on_the_page() -> None:
    linked = {link[2] for row in rows() if (link := LINK.fullmatch(row.configuration))}
    shipped = {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix()
        for folder in FOLDERS
        for path in (ROOT / "configs" / folder).rglob("*.yaml")
        if not path.name.startswith("base_")  # what the ablations change, a run of Table 1
    }
    assert shipped == linked & shipped
    assert linked <= shipped


def test_cells_of_the_paper_are_numbers_or_say_why_not() -> None:
    for row in rows():
        assert row.paper, row
        assert all(PAPER.fullmatch(cell) for cell in row.paper), row


def test_cells_of_ours_are_empty_or_numbers_with_their_spread() -> None:
    for row in rows():
        assert len(row.ours) == len(row.paper), row
        assert all(re.fullmatch(r"|\d\d\.\d( ± \d\.\d)?", cell) for cell in row.ours), row


def test_every_section_with_a_table_of_the_paper_has_one_of_rows() -> None:
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title = section.splitlines()[0]
        assert ("\n| row |" in section) == (title != "Rows that are not hosted"), title


def test_every_row_that_is_not_hosted_has_its_reason() -> None:
    section = PAGE.read_text(encoding="utf-8").split("\n## Rows that are not hosted\n")[1]
    reasons = dict(
        re.findall(r"^\| (\w+) \| .+ \| (.+) \|$", section.split("\n## ")[0], re.MULTILINE)
    )
    named = {row.name.split(", ")[-1] for row in rows() if row.configuration == "not hosted"}
    assert named == reasons.keys() - {"rival"}


def test_every_table_of_the_paper_is_there() -> None:
    titles = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for table in TABLES:
        assert any(re.search(rf"{table}\b", title) for title in titles), table
