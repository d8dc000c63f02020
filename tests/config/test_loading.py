"""Configurations out of files, command lines and mappings: what is accepted and what is said."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from t2sda.config import ConfigError, Schema, config_from_mapping, load_config
from t2sda.config import config_to_mapping as to_mapping

Write = Callable[[str, str], Path]


def problems_of(path: Path | None, words: list[str], schema: Schema) -> list[str]:
    """What is wrong, with the folder of the file left out."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, words, schema=schema)
    folder = f"{path.parent}/" if path is not None else ""
    return [problem.replace(folder, "") for problem in caught.value.problems]


def test_a_file_sets_what_it_names_and_leaves_the_rest(schema: Schema, write: Write) -> None:
    path = write("run.yaml", "SOLVER:\n  BASE_LR: 1\n  BETAS: [0.5, 1]\n")
    cfg = load_config(path, schema=schema)
    assert cfg.SOLVER.BASE_LR == 1.0
    assert type(cfg.SOLVER.BASE_LR) is float
    assert cfg.SOLVER.BETAS == (0.5, 1.0)
    assert cfg.SOLVER.NUM_STEPS == 40


def test_a_number_that_yaml_takes_for_text_is_a_float(schema: Schema, write: Write) -> None:
    assert load_config(write("a.yaml", "SOLVER: {BASE_LR: 6e-5}"), schema=schema) == load_config(
        None, schema=schema
    )


@pytest.mark.parametrize("text", ["", "# nothing set\n", "---\n", "null\n"])
def test_an_empty_file_sets_nothing(schema: Schema, write: Write, text: str) -> None:
    assert load_config(write("run.yaml", text), schema=schema) == load_config(None, schema=schema)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "SOLVER:\n  NUM_STEPS: -5",
            "SOLVER.NUM_STEPS: found -5 (run.yaml:2); must be >= 1 iterations",
        ),
        ("SOLVER:\n  NUM_STEPS:", "SOLVER.NUM_STEPS: found null (run.yaml:2); must be an integer"),
        ("SOLVER: {AMP: 1}", "SOLVER.AMP: found 1 (run.yaml:1); must be true or false"),
        (
            "SOLVER:\n  BETAS:\n  - 0.9",
            "SOLVER.BETAS: found [0.9] (run.yaml:2); must be a list of length 2, each element "
            "a number, such as [0.9, 0.999]",
        ),
        (
            "OUTPUT_DIR: 2026-01-31",
            "OUTPUT_DIR: found datetime.date(2026, 1, 31) (run.yaml:1); "
            "must be text; write it in quotes",
        ),
        (
            "MODEL: {BACKBONE: {NAME: mitt}}",
            "MODEL.BACKBONE.NAME: found 'mitt' (run.yaml:1); must be one of 'mit', 'resnet'",
        ),
        (
            "SOLVER: {BASE_LR: .nan}",
            "SOLVER.BASE_LR: found nan (run.yaml:1); must be a finite number",
        ),
        (
            "SOLVER: {BASE_RL: 1}",
            "SOLVER.BASE_RL: unknown key (run.yaml:1); nearest known key: SOLVER.BASE_LR",
        ),
        ("BASE_LR: 1", "BASE_LR: unknown key (run.yaml:1); nearest known key: SOLVER.BASE_LR"),
        (
            "MODEL: {BACKBONE: {AMP: true}}",
            "MODEL.BACKBONE.AMP: unknown key (run.yaml:1); nearest known key: SOLVER.AMP",
        ),
        (
            "SOLVER: {base_lr: 1}",
            "SOLVER.base_lr: unknown key (run.yaml:1); case matters: write SOLVER.BASE_LR",
        ),
        (
            "SOLVR: {A: 1, B: {C: 2}}",
            "SOLVR: unknown section (run.yaml:1); nearest known section: SOLVER",
        ),
        (
            "solver: {AMP: true}",
            "solver: unknown section (run.yaml:1); case matters: write SOLVER",
        ),
        (
            "SOLVER: 3",
            "SOLVER: found 3 (run.yaml:1), but it is a section; "
            "set keys in it, such as SOLVER.BASE_LR",
        ),
        (
            "SOLVER:\nSEED: 1",
            "SOLVER: found null (run.yaml:1), but it is a section; "
            "set keys in it, such as SOLVER.BASE_LR",
        ),
        (
            "SEED: {VALUE: 3}",
            "SEED: found a section with VALUE (run.yaml:1); must be an integer",
        ),
        (
            "SOLVER.AMP: true",
            "SOLVER.AMP: key with a dot (run.yaml:1); nest it: SOLVER: {AMP: ...}",
        ),
        (
            "SOLVER: {_BASE_: a.yaml}",
            "SOLVER._BASE_: found here (run.yaml:1); it belongs at the top level of a config file",
        ),
    ],
)
def test_a_wrong_setting_is_reported_with_value_place_and_advice(
    schema: Schema, write: Write, text: str, problem: str
) -> None:
    assert problems_of(write("run.yaml", text), [], schema) == [problem]


def test_all_problems_of_all_sources_are_in_one_message(schema: Schema, write: Write) -> None:
    write("base.yaml", "SEED: -1\nSPEED: 3\n")
    path = write("run.yaml", "_BASE_: base.yaml\nSOLVER:\n  AMP: 'yes'\nON: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["SOLVER.NUM_STEPS", "0.5", "SEEED=4"], schema=schema)
    folder = path.parent
    assert str(caught.value).splitlines() == [
        "the configuration has 6 problems:",
        f'  key `ON` was read by YAML as the boolean True ({folder}/run.yaml:4); quote it: "ON"',
        f"  SEED: found -1 ({folder}/base.yaml:1); must be >= 0",
        f"  SPEED: unknown key ({folder}/base.yaml:2); nearest known key: SEED",
        f"  SOLVER.AMP: found 'yes' ({folder}/run.yaml:3); must be true or false",
        "  SOLVER.NUM_STEPS: found 0.5 (command line); must be an integer",
        "  SEEED: unknown key (command line); nearest known key: SEED",
    ]


def test_a_missing_file_does_not_hide_wrong_overrides(schema: Schema, tmp_path: Path) -> None:
    problems = problems_of(tmp_path / "no.yaml", ["SEED", "-1"], schema)
    assert problems[0].startswith("no.yaml: no such file")
    assert problems[1] == "SEED: found -1 (command line); must be >= 0"


def test_one_problem_is_counted_in_the_singular_and_survives_pickling(schema: Schema) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["SEED=-1"], schema=schema)
    assert str(caught.value).startswith("the configuration has 1 problem:\n  SEED: found -1")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_long_value_is_cut_in_the_message(schema: Schema) -> None:
    (problem,) = problems_of(None, [f"SEED={'x' * 500}"], schema)
    assert len(problem) < 150
    assert "xxx... (command line)" in problem


# Overrides ----------------------------------------------------------------------------------


def test_overrides_win_over_the_file_and_the_last_one_wins(schema: Schema, write: Write) -> None:
    path = write("run.yaml", "SOLVER: {NUM_STEPS: 7, AMP: true}")
    words = ["SOLVER.NUM_STEPS", "8", "SOLVER.NUM_STEPS=9"]
    cfg = load_config(path, words, schema=schema)
    assert (cfg.SOLVER.NUM_STEPS, cfg.SOLVER.AMP) == (9, True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["SOLVER.BASE_LR", "1e-4"], ("SOLVER.BASE_LR", 1e-4)),
        (["SOLVER.BASE_LR=1"], ("SOLVER.BASE_LR", 1.0)),
        (["SOLVER.BETAS", "[0.5, 0.6]"], ("SOLVER.BETAS", (0.5, 0.6))),
        (["SOLVER.AMP", "true"], ("SOLVER.AMP", True)),
        (["SOLVER", "{AMP: true}"], ("SOLVER.AMP", True)),
        (["MODEL.BACKBONE.LEVELS=[]"], ("MODEL.BACKBONE.LEVELS", ())),
        (["MODEL.BACKBONE.WEIGHTS", "null"], ("MODEL.BACKBONE.WEIGHTS", None)),
        (["MODEL.BACKBONE.WEIGHTS", "a=b.pt"], ("MODEL.BACKBONE.WEIGHTS", "a=b.pt")),
        (["MODEL.BACKBONE.WEIGHTS=a=b.pt"], ("MODEL.BACKBONE.WEIGHTS", "a=b.pt")),
        (["OUTPUT_DIR", "0012"], ("OUTPUT_DIR", "0012")),
        (["OUTPUT_DIR", "2026-01-31"], ("OUTPUT_DIR", "2026-01-31")),
        (["OUTPUT_DIR", "on"], ("OUTPUT_DIR", "on")),
        (["OUTPUT_DIR", "'null'"], ("OUTPUT_DIR", "null")),
        (["OUTPUT_DIR="], ("OUTPUT_DIR", "")),
    ],
)
def test_override_values_are_yaml_and_words_are_text_where_text_is_wanted(
    schema: Schema, words: list[str], expected: tuple[str, Any]
) -> None:
    key, value = expected
    node: Any = load_config(None, words, schema=schema)
    for name in key.split("."):
        node = node[name]
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["SEED", "1", "SOLVER.AMP"],
            "SOLVER.AMP: found no value (command line); give pairs KEY VALUE, or KEY=VALUE",
        ),
        (["SEED", ""], "SEED: found null (command line); must be an integer"),
        (["OUTPUT_DIR", "null"], "OUTPUT_DIR: found null (command line); must be text"),
        (
            ["OUTPUT_DIR", "[a]"],
            "OUTPUT_DIR: found ['a'] (command line); must be text; write it in quotes",
        ),
        (
            ["_BASE_", "a.yaml"],
            "_BASE_: found here (command line); it belongs at the top level of a config file",
        ),
        (
            ["SOLVER", "{AMP: true, AMP: false}"],
            "AMP: duplicate key (SOLVER, command line), set before at SOLVER, command line; "
            "delete one",
        ),
        (
            ["MODEL.BACKBONE.LEVELS", "[1, 2"],
            "MODEL.BACKBONE.LEVELS, command line, column 6: not valid YAML: expected ',' or ']', "
            "but got '<stream end>'; check indentation, quotes and brackets there",
        ),
    ],
)
def test_a_wrong_override_is_reported(schema: Schema, words: list[str], problem: str) -> None:
    assert problems_of(None, words, schema) == [problem]


# Mappings -----------------------------------------------------------------------------------


def test_a_mapping_gets_the_same_check_and_its_origin_is_named(schema: Schema) -> None:
    values = {"SOLVER": {"BETAS": [0.5], "NUM_STEP": 1, 3: 4}, "SEED": -1}
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(values, "student.pt", schema=schema)
    assert caught.value.problems == [
        "key 3 is not text (student.pt); write it in quotes",
        "SOLVER.BETAS: found [0.5] (student.pt); must be a list of length 2, each element "
        "a number, such as [0.9, 0.999]",
        "SOLVER.NUM_STEP: unknown key (student.pt); nearest known key: SOLVER.NUM_STEPS",
        "SEED: found -1 (student.pt); must be >= 0",
    ]


def test_a_partial_mapping_is_completed_with_defaults(schema: Schema) -> None:
    cfg = config_from_mapping({"SOLVER": {"AMP": True}}, "student.pt", schema=schema)
    expected = load_config(None, ["SOLVER.AMP=true"], schema=schema)
    assert cfg == expected
    assert cfg.is_frozen()


def test_the_mapping_of_a_configuration_is_plain_and_reads_back(schema: Schema) -> None:
    cfg = load_config(None, ["SOLVER.AMP=true", "MODEL.BACKBONE.LEVELS=[1, 2]"], schema=schema)
    mapping = to_mapping(cfg)
    assert type(mapping["MODEL"]["BACKBONE"]) is dict
    assert mapping["MODEL"]["BACKBONE"]["LEVELS"] == [1, 2]
    assert config_from_mapping(mapping, "student.pt", schema=schema) == cfg
