"""What is dumped reads back equal; differences are listed flat."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2sda.config import Schema, changed_keys, config_from_mapping, dump_config, load_config

# Whatever a path may hold; surrogates and control characters are in no YAML file.
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=120)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "OUTPUT_DIR": TEXT | st.sampled_from(["null", "on", "1e-4", "=", "<<", "0x1", " a ", "~"]),
        "SEED": st.integers(min_value=0),
        "SOLVER": st.fixed_dictionaries(
            {},
            optional={
                "BASE_LR": st.floats(0, exclude_min=True, allow_infinity=False),
                "AMP": st.booleans(),
                "BETAS": st.tuples(st.floats(0, 1), st.floats(0, 1)),
            },
        ),
        "MODEL": st.fixed_dictionaries(
            {
                "BACKBONE": st.fixed_dictionaries(
                    {"NAME": st.just("mit")},
                    optional={
                        "WEIGHTS": st.none() | TEXT,
                        "LEVELS": st.lists(st.integers(min_value=0), max_size=30),
                        "DROP_PATH": st.floats(0, 1),
                    },
                )
            }
        ),
    },
)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the schema is not changed
)
@given(changes=CHANGES)
def test_a_dumped_configuration_reads_back_equal(schema: Schema, changes: dict[str, Any]) -> None:
    cfg = config_from_mapping(changes, "test", schema=schema)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(dump_config(cfg), encoding="utf-8", newline="\n")
        again = load_config(path, schema=schema)
    assert again == cfg
    assert changed_keys(again, cfg) == []


def test_a_dump_is_plain_yaml_as_people_write_it(schema: Schema) -> None:
    text = dump_config(load_config(None, ["OUTPUT_DIR=läufe"], schema=schema))
    assert "OUTPUT_DIR: läufe\n" in text
    assert "  BETAS: [0.9, 0.999]\n" in text
    assert yaml.safe_load(text)["MODEL"]["BACKBONE"]["WEIGHTS"] is None


def test_changed_keys_are_flat_with_both_values(schema: Schema) -> None:
    a = load_config(None, schema=schema)
    b = load_config(None, ["SEED=2", "MODEL.BACKBONE.LEVELS=[1]"], schema=schema)
    assert changed_keys(a, b) == [("SEED", 0, 2), ("MODEL.BACKBONE.LEVELS", (), (1,))]
    assert changed_keys(a, a) == []


def test_a_key_that_only_one_configuration_has_differs(schema: Schema) -> None:
    a = load_config(None, schema=Schema())
    b = load_config(None, schema=schema)
    assert ("SEED", None, 0) in changed_keys(a, b)
    assert ("SEED", 0, None) in changed_keys(b, a)
