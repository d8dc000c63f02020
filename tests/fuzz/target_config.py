"""Configurations: a file, its base, and overrides on the command line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import strategies as st

from t2sda.config import SCHEMA, dump_config, load_config, yaml_text
from t2sda.config.fields import Field
from t2sda.config.schema import flat_items
from tests.fuzz.byte_inputs import RANDOM, damaged
from tests.fuzz.harness import Target
from tests.fuzz.yaml_inputs import value

KEYS = (*SCHEMA.fields, *SCHEMA.sections, "_BASE_", "SOLVER.LR", "x", "ON", "3", "K" * 9000)
VALID = """\
META_ARCH: {NAME: SourceOnly}
DATASETS: {SOURCE: streets_clear_train}
MODEL: {BACKBONE: {NAME: TimmCNN, WEIGHTS: ''}, HEAD: {CHANNELS: 16}}
DATA: {CROP_SIZE: [64, 64], NUM_WORKERS: 0}
SOLVER: {MAX_ITER: 3, BATCH_SIZE: 2, WARMUP_ITERS: 0, BASE_LR: 1.0e-3}
"""


def nested(key: str, text: str) -> str:
    """One line that sets a dotted key."""
    *sections, name = key.split(".")
    opened = "".join(f"{section}: {{" for section in sections)
    return f"{opened}{name}: {text}{'}' * len(sections)}"


def lines(dice: random.Random) -> bytes:
    """Up to three lines that set something."""
    found = (nested(dice.choice(KEYS), value(dice)) for _ in range(dice.randrange(4)))
    return "\n".join(found).encode("utf-8", "surrogatepass")


def pairs(dice: random.Random) -> list[str]:
    """Up to four KEY VALUE pairs of a command line."""
    return [word for _ in range(dice.randrange(5)) for word in (dice.choice(KEYS), value(dice))]


LINES = RANDOM.map(lines)
FILES = st.one_of(st.just(VALID.encode()), LINES, damaged(LINES | st.just(VALID.encode())))
OVERRIDES = RANDOM.map(pairs)


def run(sources: tuple[bytes, bytes, list[str]], folder: Path) -> None:
    """What is read is valid, field by field, and reads back equal from its own dump."""
    file, base, overrides = sources
    (folder / "base.yaml").write_bytes(base)
    (folder / "run.yaml").write_bytes(b"_BASE_: base.yaml\n" + file)
    cfg = load_config(folder / "run.yaml", overrides)
    for key, found in flat_items(cfg):
        assert_fits(SCHEMA.fields[key], found)
    (folder / "dump.yaml").write_text(dump_config(cfg), encoding="utf-8")
    assert load_config(folder / "dump.yaml") == cfg


def assert_fits(field: Field, value: object) -> None:
    """The value has the type and range of its field."""
    if value is None:
        assert field.optional
        return
    assert type(value) is field.type
    for item in value if isinstance(value, tuple) else (value,):
        assert type(item) is field.scalar_type
        assert "\0" not in str(item)
        assert field.choices is None or item in field.choices
        assert field.low is None or item >= field.low
        assert field.high is None or item <= field.high


def _follow_any_depth(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(yaml_text, "MAX_DEPTH", 10**6)


def _take_any_value(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Field, "convert", lambda self, value: value)


TARGET: Target = Target(
    st.tuples(FILES, FILES, OVERRIDES), run, (_follow_any_depth, _take_any_value)
)
