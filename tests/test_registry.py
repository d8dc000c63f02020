"""Registries: what they hand out, and what they say when they cannot."""

from __future__ import annotations

from typing import Any

import pytest

from t2sda.registry import BACKBONES, Registry, UnknownNameError, nearest_first


@pytest.fixture
def registry() -> Registry[Any]:
    return Registry("backbone", "MODEL.BACKBONE.NAME")


def test_a_component_is_registered_under_its_own_name(registry: Registry[Any]) -> None:
    @registry.register()
    class TinyNet:
        pass

    assert registry.get("TinyNet") is TinyNet


def test_a_component_is_registered_under_a_given_name_only(registry: Registry[Any]) -> None:
    @registry.register("tiny")
    def build_tiny_net() -> None: ...

    assert registry.get("tiny") is build_tiny_net
    assert "build_tiny_net" not in registry


def test_names_are_in_alphabetical_order(registry: Registry[Any]) -> None:
    for name in ("resnet101", "mit_b5", "hrnet"):
        registry.add(name, object())
    assert registry.names() == ["hrnet", "mit_b5", "resnet101"]
    assert list(registry) == registry.names()


def test_a_duplicate_is_refused_and_both_origins_are_named(registry: Registry[Any]) -> None:
    registry.add("net", Registry)
    with pytest.raises(ValueError, match="give the one of") as caught:
        registry.add("net", UnknownNameError)
    assert str(caught.value) == (
        "backbone 'net' is registered already, by t2sda.registry.Registry; "
        "give the one of t2sda.registry.UnknownNameError another name"
    )
    assert registry.get("net") is Registry


def test_an_instance_is_named_by_its_class_in_the_message(registry: Registry[Any]) -> None:
    registry.add("net", BACKBONES)
    with pytest.raises(ValueError, match=r"by t2sda\.registry\.Registry; "):
        registry.add("net", BACKBONES)


def test_an_unknown_name_lists_the_setting_and_the_known_names_nearest_first(
    registry: Registry[Any],
) -> None:
    for name in ("mit_b5", "resnet50", "resnet101"):
        registry.add(name, object())
    with pytest.raises(UnknownNameError) as caught:
        registry.get("ResNet-101")
    assert str(caught.value) == (
        "MODEL.BACKBONE.NAME: no backbone is called 'ResNet-101'; known, nearest first: "
        "resnet101, resnet50, mit_b5. A component of your own is loaded with --plugin MODULE"
    )


def test_an_unknown_name_in_an_empty_registry_says_none(registry: Registry[Any]) -> None:
    with pytest.raises(UnknownNameError, match="known, nearest first: none"):
        registry.get("resnet101")


def test_nearest_first_ignores_case() -> None:
    assert nearest_first("SEGFORMER", ["daformer", "segformer"]) == ["segformer", "daformer"]


def test_nearest_first_breaks_ties_alphabetically() -> None:
    assert nearest_first("x", ["c", "a", "b"]) == ["a", "b", "c"]
