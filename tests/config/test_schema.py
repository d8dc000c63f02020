"""Declaring settings and rules, and what the schema refuses to declare."""

from __future__ import annotations

import pytest
from fvcore.common.config import CfgNode

from t2sda.config import ConfigError, Field, Schema, load_config


def test_defaults_are_carried_by_a_frozen_cfg_node(schema: Schema) -> None:
    cfg = load_config(None, schema=schema)
    assert isinstance(cfg, CfgNode)
    assert cfg.MODEL.BACKBONE.NAME == "resnet"
    assert cfg.SOLVER.BETAS == (0.9, 0.999)
    with pytest.raises(AttributeError, match="immutable"):
        cfg.SOLVER.NUM_STEPS = 1


def test_several_components_share_a_section(schema: Schema) -> None:
    schema.declare("SOLVER", {"WARMUP": Field(10, "Warm-up.")})
    cfg = load_config(None, schema=schema)
    assert (cfg.SOLVER.WARMUP, cfg.SOLVER.NUM_STEPS) == (10, 40)


def test_a_duplicate_key_is_refused(schema: Schema) -> None:
    with pytest.raises(ValueError, match=r"SOLVER\.AMP is declared already"):
        schema.declare("SOLVER", {"AMP": Field(True, "Again.")})


@pytest.mark.parametrize(
    ("prefix", "name", "other"),
    [("", "SOLVER", "SOLVER.BASE_LR"), ("SEED", "VALUE", "SEED")],
)
def test_a_key_cannot_be_a_section_too(schema: Schema, prefix: str, name: str, other: str) -> None:
    with pytest.raises(ValueError, match=f"clashes with {other}: one would be a section"):
        schema.declare(prefix, {name: Field(1, "Both.")})


@pytest.mark.parametrize("name", ["ON", "NO", "NULL", "base_lr", "1X", "A.B", "A-B", ""])
def test_a_name_that_yaml_or_python_would_misread_is_refused(schema: Schema, name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' cannot be a key"):
        schema.declare("SOLVER", {name: Field(1, "Bad.")})


def test_a_refused_group_leaves_nothing_behind(schema: Schema) -> None:
    before = dict(schema.fields)
    with pytest.raises(ValueError, match="declared already"):
        schema.declare("SOLVER", {"NEW": Field(1, "New."), "AMP": Field(True, "Again.")})
    assert schema.fields == before


def test_a_condition_without_words_is_refused(schema: Schema) -> None:
    with pytest.raises(ValueError, match="when and when_text belong together"):
        schema.declare("X", {"Y": Field(1, "")}, when=lambda cfg: True)
    with pytest.raises(ValueError, match="when and when_text belong together"):
        schema.declare("X", {"Y": Field(1, "")}, when_text="never")


def test_a_setting_without_effect_is_an_error(schema: Schema) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["MODEL.BACKBONE.DROP_PATH", "0.3"], schema=schema)
    assert caught.value.problems == [
        "MODEL.BACKBONE.DROP_PATH is set but has no effect in this run: only used when "
        "MODEL.BACKBONE.NAME is mit; found 0.3 (command line)"
    ]


def test_a_setting_is_accepted_where_it_has_an_effect(schema: Schema) -> None:
    words = ["MODEL.BACKBONE.DROP_PATH", "0.3", "MODEL.BACKBONE.NAME", "mit"]
    assert load_config(None, words, schema=schema).MODEL.BACKBONE.DROP_PATH == 0.3


def test_the_default_may_be_written_out_where_it_has_no_effect(schema: Schema) -> None:
    cfg = load_config(None, ["MODEL.BACKBONE.DROP_PATH=0.1"], schema=schema)
    assert cfg.MODEL.BACKBONE.DROP_PATH == 0.1


def test_all_broken_rules_and_settings_without_effect_are_reported_together(
    schema: Schema,
) -> None:
    @schema.check
    def amp_needs_mit(cfg: CfgNode) -> str | None:
        if cfg.SOLVER.AMP and cfg.MODEL.BACKBONE.NAME != "mit":
            return "SOLVER.AMP: needs the mit backbone; set MODEL.BACKBONE.NAME mit"
        return None

    @schema.check
    def seeds_are_even(cfg: CfgNode) -> list[str]:
        return [f"SEED: {cfg.SEED} is odd", "SEED: add one"] if cfg.SEED % 2 else []

    words = ["SOLVER.AMP=true", "SEED=3", "MODEL.BACKBONE.DROP_PATH=0.5"]
    with pytest.raises(ConfigError) as caught:
        load_config(None, words, schema=schema)
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "MODEL.BACKBONE.DROP_PATH",
        "SOLVER.AMP:",
        "SEED:",
        "SEED:",
    ]
    assert load_config(None, ["SEED=4"], schema=schema).SEED == 4


def test_rules_run_only_when_every_single_setting_is_valid(schema: Schema) -> None:
    @schema.check
    def relies_on_types(cfg: CfgNode) -> str | None:
        return "the rule ran"

    with pytest.raises(ConfigError) as caught:
        load_config(None, ["SOLVER.NUM_STEPS", "-1"], schema=schema)
    assert "the rule ran" not in str(caught.value)


def test_a_rule_cannot_change_the_configuration(schema: Schema) -> None:
    @schema.check
    def meddles(cfg: CfgNode) -> None:
        cfg.SEED = 1

    with pytest.raises(AttributeError, match="immutable"):
        load_config(None, schema=schema)
