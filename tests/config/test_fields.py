"""What a single setting accepts, and how it says what it wants."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from t2sda.config import Field

NUMBER = Field(0.5, "A number.")
PAIR = Field((512, 512), "A size.", length=2, low=1)


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (2.5, 2.5), ("6e-5", 6e-5), ("1e-4", 1e-4), ("-3E2", -300.0), (".5", 0.5)],
)
def test_a_float_accepts_integers_and_numbers_that_yaml_reads_as_text(
    value: Any, number: float
) -> None:
    converted = NUMBER.convert(value)
    assert converted == number
    assert type(converted) is float


@pytest.mark.parametrize("value", [True, "fast", "nan", "0x10", "", None, [1.0], (1.0,)])
def test_a_float_refuses_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be a number$"):
        NUMBER.convert(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1e999", 10**400])
def test_a_float_must_be_finite(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be a finite number$"):
        NUMBER.convert(value)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1]])
def test_an_integer_accepts_integers_only(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be an integer$"):
        Field(3, "A count.").convert(value)


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_a_boolean_accepts_booleans_only(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be true or false$"):
        Field(False, "A switch.").convert(value)


@pytest.mark.parametrize("value", [1, 1.5, True])
def test_text_accepts_text_only_and_advises_quotes(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be text; write it in quotes$"):
        Field("a", "A name.").convert(value)


def test_null_is_refused_unless_optional() -> None:
    assert Field(None, "A path.", type=str, optional=True).convert(None) is None
    assert Field(1, "A limit.", optional=True).convert(None) is None
    with pytest.raises(ValueError, match=r"^must be text$"):
        Field("a", "A name.").convert(None)


def test_a_tuple_accepts_lists_and_tuples_and_converts_the_elements() -> None:
    assert PAIR.convert([256, 128]) == (256, 128)
    assert PAIR.convert((256, 128)) == (256, 128)
    assert Field((0.5,), "Ratios.").convert([1, "1e-3"]) == (1.0, 1e-3)


@pytest.mark.parametrize("value", [[512], [1, 2, 3], [], 512, "512", None, {"a": 1}])
def test_a_tuple_of_wrong_length_or_no_list_is_refused_with_an_example(value: Any) -> None:
    with pytest.raises(ValueError, match="must be a list") as caught:
        PAIR.convert(value)
    assert str(caught.value) == (
        "must be a list of length 2, each element an integer, such as [512, 512]"
    )


def test_every_wrong_element_of_a_tuple_is_named() -> None:
    with pytest.raises(ValueError, match="element") as caught:
        PAIR.convert([0, "x"])
    assert str(caught.value) == "element 0 (0) must be >= 1, element 1 ('x') must be an integer"


def test_a_tuple_without_length_accepts_any() -> None:
    field = Field((), "Levels.", element=int)
    assert field.convert([]) == ()
    assert field.convert([1, 2, 3]) == (1, 2, 3)


@pytest.mark.parametrize(
    ("field", "accepted", "refused", "text"),
    [
        (Field(1, "", low=0), [0, 1], [-1], ">= 0"),
        (Field(1.0, "", low=0, exclusive_low=True), [0.1], [0, -1.0], "> 0"),
        (Field(1, "", high=5), [5], [6], "<= 5"),
        (Field(0.5, "", low=0, high=1), [0, 1], [-0.1, 1.1], "in [0, 1]"),
        (Field(0.5, "", low=0, high=1, exclusive_low=True), [1], [0, 2], "in (0, 1]"),
        (Field(9, "", unit="iterations", low=1), [1], [0], ">= 1 iterations"),
    ],
)
def test_ranges(field: Field, accepted: list[Any], refused: list[Any], text: str) -> None:
    for value in accepted:
        assert field.convert(value) == value
    for value in refused:
        with pytest.raises(ValueError, match="must be") as caught:
            field.convert(value)
        assert str(caught.value) == f"must be {text}"


def test_choices_are_listed_nearest_first() -> None:
    field = Field("auto", "Device.", choices=("auto", "cpu", "cuda"))
    assert field.convert("cuda") == "cuda"
    with pytest.raises(ValueError, match="must be one of 'cuda', "):
        field.convert("CUDA")


def test_choices_hold_for_every_element_of_a_tuple() -> None:
    field = Field(("a",), "Names.", choices=("a", "b"))
    assert field.convert(["b", "a"]) == ("b", "a")
    with pytest.raises(ValueError, match=r"^element 1 \('c'\) must be one of 'a', 'b'$"):
        field.convert(["a", "c"])


def test_the_default_is_converted_like_a_value() -> None:
    assert Field(1, "A rate.", type=float).default == 1.0
    assert type(Field(1, "A rate.", type=float).default) is float
    assert Field([1, 2], "A size.").default == (1, 2)
    assert Field([1, 2], "A size.").type is tuple


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"default": None}, "does not show the type; give type="),
        ({"default": ()}, "does not show one element type; element="),
        ({"default": (1, 0.5)}, "does not show one element type; element="),
        ({"default": None, "type": tuple, "optional": True}, "does not show one element type"),
        ({"default": None, "type": str}, "must be text"),
        ({"default": -1, "low": 0}, "must be >= 0"),
        ({"default": "c", "choices": ("a", "b")}, "must be one of 'a', 'b'"),
        ({"default": (1, 2, 3), "length": 2}, "must be a list of length 2"),
        ({"default": 1, "length": 2}, "length, element and one_or_several are for tuples"),
        ({"default": "a", "low": 0}, "str has no range"),
        ({"default": 1, "exclusive_low": True}, "exclusive_low needs low"),
        ({"default": {}}, "dict is no type of a setting"),
        ({"default": ((1, 2),)}, "tuple is no type of a setting"),
    ],
)
def test_a_contradictory_declaration_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Field(doc="", **arguments)


NAMES = Field((), "Names.", element=str, one_or_several=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", ("a",)), ("", ()), ([], ()), (["a", "b"], ("a", "b")), (("a",), ("a",))],
)
def test_one_value_stands_for_a_list_of_one_and_empty_text_for_none(
    value: Any, expected: tuple[str, ...]
) -> None:
    assert NAMES.convert(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "must be text, or a list, each element text"),
        (3, "must be text, or a list, each element text; write it in quotes"),
        (["a", 3], "element 1 (3) must be text"),
    ],
)
def test_neither_one_nor_several_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        NAMES.convert(value)
