"""What an exported file says about itself, edited."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.runtime import metadata
from t2sda.runtime.metadata import KEYS, Metadata, check_seal, sealed
from tests.fuzz.byte_inputs import RANDOM
from tests.fuzz.harness import Target

CONTENT = (b"graph", b"weights")
WHOLE = Metadata(
    taxonomy=CITYSCAPES_19,
    image_size=(64, 96),
    image_bound=None,
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
    layout="nhwc",
    output_kind="labels",
    precision="fp32",
    origin={"run": "a", "iteration": 3},
    versions={"t2sda": "0"},
).to_properties()
TEXTS = (
    *(
        "",
        "[",
        "[" * 20_000,
        '{"a":' * 5000,
        "null",
        "true",
        "0",
        "-1",
        "1e400",
        "NaN",
        '"x"',
        "[]",
    ),
    *(
        "{}",
        "[[999, 0, 0]]",
        "[0, 0]",
        "[1000000, 1000000]",
        "[1e3, 5]",
        "[true, true]",
        "9" * 5000,
    ),
    *("[0, 0, 0]", "[NaN, 1, 1]", '["a", "a"]', '["\\u001b[31m", "b"]', '{"a": [99]}', '{"a": 1}'),
    *('"logit"', '"nhcw"', '"dynamic"', '"\\ud800"', "[-5, -5, -5]", "[[1, 2, 3, 4]]", "\0"),
)

LETTERS = '0159-.,[]{}"\\ \0\x1baN'


def edited(dice: random.Random) -> dict[str, str]:
    """Up to two values replaced, removed, cut short, or with one character changed."""
    properties = dict(WHOLE)
    for key in dice.sample(KEYS, dice.randint(1, 2)):
        text = properties[key]
        place = dice.randrange(len(text))
        ways: tuple[Callable[[], str | None], ...] = (
            lambda: None,
            lambda: dice.choice(TEXTS),
            lambda: dice.choice(TEXTS),
            lambda before=text[:place]: before,
            lambda text=text, place=place: _changed(text, place, dice.choice(LETTERS)),
        )
        new = dice.choice(ways)()
        if new is None:
            del properties[key]
        else:
            properties[key] = new
    return properties


def _changed(text: str, place: int, letter: str) -> str:
    return f"{text[:place]}{letter}{text[place + 1 :]}"


def run(properties: dict[str, str], folder: Path) -> None:
    """What is read is usable and reads back the same; what was edited does not pass the seal."""
    seal = sealed(WHOLE, CONTENT)
    found = Metadata.from_properties(properties, "m.onnx")
    assert len(found.taxonomy.palette) == found.taxonomy.num_classes
    assert all(type(part) is int and 0 <= part <= 255 for c in found.taxonomy.palette for part in c)
    for subset in found.taxonomy.subsets.values():
        assert all(0 <= index < found.taxonomy.num_classes for index in subset)
    assert all(0 < value < 1e300 for value in found.pixel_std)
    assert all(abs(value) < 1e300 for value in found.pixel_mean)
    for size in (found.image_size, found.image_bound):
        assert size is None or all(1 <= side <= 1 << 15 for side in size)
    assert found.letterbox
    assert Metadata.from_properties(found.to_properties(), "m.onnx") == found
    check_seal({**seal, **properties}, CONTENT, "m.onnx")
    assert {**WHOLE, **properties} == WHOLE


def _take_any_integer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metadata, "_integer", lambda value, *_: value)


def _break_the_seal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tests.fuzz.target_metadata.check_seal", lambda *_: None)


def _read_numbers_as_they_come(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metadata, "_numbers", tuple)


TARGET = Target(
    RANDOM.map(edited), run, (_take_any_integer, _break_the_seal, _read_numbers_as_they_come)
)
