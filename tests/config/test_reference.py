"""The generated reference page says everything that a field declares."""

from __future__ import annotations

from t2sda.config import Field, Schema, reference_markdown


def test_every_section_is_a_table_with_all_that_is_declared(schema: Schema) -> None:
    lines = reference_markdown(schema).splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        "## Top level",
        "## MODEL.BACKBONE",
        "## SOLVER",
    ]
    for row in (
        "| `SEED` | int | `0` | >= 0 | Seed. | always |",
        "| `SOLVER.NUM_STEPS` | int | `40` | >= 1 iterations | Steps. | always |",
        "| `SOLVER.AMP` | bool | `false` |  | Mixed precision. | always |",
        "| `SOLVER.BETAS` | list of 2 float | `[0.9, 0.999]` | in [0.0, 1.0] | Momenta. | always |",
        "| `MODEL.BACKBONE.NAME` | str | `'resnet'` | `'resnet'`, `'mit'` | Which. | always |",
        "| `MODEL.BACKBONE.WEIGHTS` | str or null | `null` |  | Checkpoint. | always |",
        "| `MODEL.BACKBONE.DROP_PATH` | float | `0.1` | in [0.0, 1.0] | Rate. "
        "| MODEL.BACKBONE.NAME is mit |",
    ):
        assert row in lines


def test_the_page_does_not_depend_on_the_order_of_imports() -> None:
    groups = [("B", "X"), ("A", "Y"), ("B", "Z")]
    pages = set()
    for order in (groups, groups[::-1]):
        schema = Schema()
        for prefix, name in order:
            schema.declare(prefix, {name: Field(1, "Meaning.")})
        pages.add(reference_markdown(schema))
    assert len(pages) == 1


def test_a_meaning_cannot_break_the_table_and_a_long_default_is_not_cut() -> None:
    schema = Schema()
    schema.declare("A", {"X": Field(tuple(range(99)), "One | two\n  lines.", unit="pixels")})
    (row,) = [line for line in reference_markdown(schema).splitlines() if "`A.X`" in line]
    assert row.endswith("97, 98]` | pixels | One \\| two lines. | always |")
