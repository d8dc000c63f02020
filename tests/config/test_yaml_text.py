"""YAML that is broken, doubtful or dangerous is reported with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from t2sda.config import ConfigError, Schema, load_config
from t2sda.config.yaml_text import parse_yaml

Write = Callable[[str, str], Path]


def problems_of(path: Path, schema: Schema) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, schema=schema)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("ON", "the boolean True"),
        ("no", "the boolean False"),
        ("null", "null"),
        ("3", "the integer 3"),
        ("1.5", "the number 1.5"),
        ("2026-01-31", "the value 2026-01-31"),
    ],
)
def test_a_key_that_yaml_does_not_read_as_text_is_reported(
    schema: Schema, write: Write, key: str, words: str
) -> None:
    path = write("run.yaml", f"SOLVER:\n  {key}: 1\n")
    assert problems_of(path, schema) == [
        f'key `{key}` was read by YAML as {words} (run.yaml:2); quote it: "{key}"'
    ]


@pytest.mark.parametrize("key", ["? [SEED]\n", "? {SEED: 1}\n"])
def test_a_key_that_is_a_list_or_a_section_is_reported(
    schema: Schema, write: Write, key: str
) -> None:
    assert problems_of(write("run.yaml", f"{key}: 1\n"), schema) == [
        "a key must be text, found a list or a section (run.yaml:1); name one setting"
    ]


def test_a_duplicate_key_is_reported_with_both_lines(schema: Schema, write: Write) -> None:
    path = write("run.yaml", "SEED: 1\nSOLVER:\n  AMP: true\nSEED: 2\n")
    assert problems_of(path, schema) == [
        "SEED: duplicate key (run.yaml:4), set before at run.yaml:1; delete one"
    ]


def test_a_duplicate_section_is_reported_too(schema: Schema, write: Write) -> None:
    path = write("run.yaml", "SOLVER:\n  AMP: true\nSOLVER:\n  NUM_STEPS: 3\n")
    assert problems_of(path, schema) == [
        "SOLVER: duplicate key (run.yaml:3), set before at run.yaml:1; delete one"
    ]


@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:os.getcwd []", "!!python/name:os.getcwd", "!include a.yaml", "!x {}"],
)
def test_a_tag_is_refused_and_not_run(schema: Schema, write: Write, value: str) -> None:
    (problem,) = problems_of(write("run.yaml", f"SEED: 1\nOUTPUT_DIR: {value}\n"), schema)
    assert problem.startswith("run.yaml:2: the YAML tag or value `")
    assert problem.endswith("` is refused; use plain numbers, text, true, false, null and lists")


def test_a_tag_on_a_key_is_refused(schema: Schema, write: Write) -> None:
    (problem,) = problems_of(write("run.yaml", "!!python/name:os.getcwd '': 1\n"), schema)
    assert "is refused" in problem


def test_a_syntax_error_is_reported_with_line_and_column(schema: Schema, write: Write) -> None:
    assert problems_of(write("run.yaml", "SEED: 1\nSOLVER: AMP: true\n"), schema) == [
        "run.yaml:2, column 12: not valid YAML: mapping values are not allowed here; "
        "check indentation, quotes and brackets there"
    ]


def test_a_second_document_is_reported(schema: Schema, write: Write) -> None:
    (problem,) = problems_of(write("run.yaml", "SEED: 1\n---\nSEED: 2\n"), schema)
    assert problem.startswith("run.yaml:2, column 1: not valid YAML: but found another document")


def test_an_alias_is_refused(schema: Schema, write: Write) -> None:
    path = write("run.yaml", "SOLVER: &s\n  AMP: true\nMODEL: *s\n")
    (problem,) = problems_of(path, schema)
    assert problem.startswith("run.yaml:3, column 8: not valid YAML: aliases (*name) are not")


def test_a_merge_key_is_refused(schema: Schema, write: Write) -> None:
    assert problems_of(write("run.yaml", "SOLVER:\n  <<: {AMP: true}\n"), schema) == [
        "`<<`: merge keys are not supported (run.yaml:2); use _BASE_"
    ]


def test_a_value_that_looks_like_a_date_but_is_none_is_reported(
    schema: Schema, write: Write
) -> None:
    (problem,) = problems_of(write("run.yaml", "OUTPUT_DIR: 2024-99-99\n"), schema)
    assert problem.startswith("run.yaml:1: YAML cannot read '2024-99-99' as timestamp")
    assert problem.endswith("; quote it, or write another value")


@pytest.mark.parametrize(("text", "found"), [("- SEED\n", "['SEED']"), ("SEED\n", "'SEED'")])
def test_a_file_that_is_no_mapping_is_reported(
    schema: Schema, write: Write, text: str, found: str
) -> None:
    assert problems_of(write("run.yaml", text), schema) == [
        f"run.yaml: found {found} at the top level; write settings as `KEY: value`"
    ]


def test_a_file_that_is_not_utf8_is_reported(schema: Schema, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"OUTPUT_DIR: caf\xe9\n")
    (problem,) = problems_of(path, schema)
    assert problem.startswith("run.yaml: not UTF-8 text: ")
    assert problem.endswith("; save the file as UTF-8")


def test_a_byte_order_mark_is_no_problem(schema: Schema, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("SEED: 3\n".encode("utf-8-sig"))
    assert load_config(path, schema=schema).SEED == 3


@pytest.mark.parametrize(
    "value",
    [
        *("!!bool x", "!!bool 3", "!!int ''", "!!int x", "!!int 1:x", "!!float ''", "!!float 1:x"),
        *("!!timestamp x", "!!timestamp ''", "2024-02-30", "2024-01-01T99:00:00", "!!binary é"),
        *("[1, !!bool x]", "!!set 1", "!!omap [1]", "!!pairs 2", "!!python/name:os.system x"),
        *(
            "!!python/object/apply:os.getcwd []",
            "!own x",
            "{a: !!int ''}",
            "[!!int '', 2024-99-99]",
        ),
    ],
)
def test_values_that_yaml_itself_fails_on_are_reported(
    schema: Schema, write: Write, value: str
) -> None:
    problems = problems_of(write("run.yaml", f"OUTPUT_DIR: {value}\n"), schema)
    assert problems
    assert all("run.yaml:1" in problem for problem in problems)


@pytest.mark.parametrize(
    "text",
    [
        "SEED: " + "[" * 500 + "]" * 500,
        "SEED: " + "[" * 100_000,
        "{a: " * 500 + "1" + "}" * 500,
        "\n".join(" " * depth + "a:" for depth in range(500)),
        "- " * 500 + "1",
    ],
)
def test_deep_nesting_is_reported_not_followed(schema: Schema, write: Write, text: str) -> None:
    (problem,) = problems_of(write("run.yaml", text), schema)
    assert "more than 20 lists and sections within each other" in problem
    assert problem.startswith("run.yaml:")


@pytest.mark.parametrize(
    "number",
    ["9" * 5000, "0x" + "f" * 5000, "1" + ":1" * 5000, "0b" + "1" * 20000, "9" * 5000 + ".0"],
)
@pytest.mark.parametrize("key", ["SEED", "BETAS", "UNKNOWN"])
def test_numbers_of_thousands_of_digits_are_reported(
    schema: Schema, write: Write, number: str, key: str
) -> None:
    value = f"[{number}, 1]" if key == "BETAS" else number
    section = "SOLVER:\n  " if key == "BETAS" else ""
    assert all(
        len(problem) < 300
        for problem in problems_of(write("run.yaml", f"{section}{key}: {value}"), schema)
    )


def test_a_text_with_a_nul_character_is_no_path(schema: Schema, write: Write) -> None:
    path = write("run.yaml", 'OUTPUT_DIR: "a\\0b"\nMODEL: {BACKBONE: {WEIGHTS: "\\0"}}\n')
    assert [problem.split("; ")[1] for problem in problems_of(path, schema)] == [
        "must not hold a NUL character"
    ] * 2


@pytest.mark.parametrize("text", ["runs/\U0001f600", "\udce4", "\ufeffa", "\ud83d-\ude00"])
def test_text_in_json_is_text_in_yaml(text: str) -> None:
    problems: list[str] = []
    entry = parse_yaml(json.dumps([text]), lambda mark: "here", problems)
    assert entry is not None
    assert (entry.value, problems) == ([text], [])
