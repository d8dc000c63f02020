"""Registries: the names that configurations use, and the components that stand behind them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from t2sda.errors import UserError

if TYPE_CHECKING:  # exported files run without fvcore
    from fvcore.common.config import CfgNode

Component = TypeVar("Component")
Registered = TypeVar("Registered", bound=Any)


class UnknownNameError(UserError):
    """A name that nobody registered; the message lists the known ones, nearest first."""


_COMPARED = 100  # characters of a name; comparing takes the square of them


def nearest_first(name: str, known: list[str]) -> list[str]:
    """Known names, the most similar to `name` first (case ignored), ties in alphabetical order."""
    name = name[:_COMPARED].lower()

    def distance(candidate: str) -> tuple[float, str]:
        ratio = difflib.SequenceMatcher(None, name, candidate[:_COMPARED].lower()).ratio()
        return (-ratio, candidate)

    return sorted(known, key=distance)


class Registry(Generic[Component]):
    """Components of one kind by name.

    Args:
        kind: what is registered, in words; used in messages ("backbone").
        setting: the configuration key that chooses one, used in messages ("MODEL.BACKBONE.NAME").
        advice: what to do about an unknown name, in messages.
    """

    def __init__(
        self,
        kind: str,
        setting: str,
        advice: str = "A component of your own is loaded with --plugin MODULE",
    ) -> None:
        self.kind = kind
        self.setting = setting
        self.advice = advice
        self._components: dict[str, Component] = {}

    def register(self, name: str | None = None) -> Callable[[Registered], Registered]:
        """Decorator that registers a class or function under `name` (default: its own name).

        Raises:
            ValueError: if the name is taken by another component.
        """

        def decorate(component: Registered) -> Registered:
            self.add(name if name is not None else str(component.__name__), component)
            return component

        return decorate

    def add(self, name: str, component: Any) -> None:
        """Register `component` under `name`; raises ValueError if the name is taken."""
        if name in self._components:
            raise ValueError(
                f"{self.kind} '{name}' is registered already, by "
                f"{_origin(self._components[name])}; give the one of {_origin(component)} "
                f"another name"
            )
        self._components[name] = component

    def remove(self, name: str) -> None:
        """Forget the component called `name`."""
        del self._components[name]

    def get(self, name: str) -> Component:
        """The component called `name`; raises UnknownNameError with the known names."""
        if name not in self._components:
            known = ", ".join(nearest_first(name, self.names())) or "none"
            raise UnknownNameError(
                f"{self.setting}: no {self.kind} is called '{name}'; known, nearest first: "
                f"{known}. {self.advice}"
            )
        return self._components[name]

    def is_a(self, name: str, *kinds: type) -> bool:
        """Whether the component called `name` is one of the classes `kinds` or derived from it."""
        component = self._components.get(name)
        return isinstance(component, type) and issubclass(component, kinds)

    def names(self) -> list[str]:
        """All registered names in alphabetical order."""
        return sorted(self._components)

    def __contains__(self, name: object) -> bool:
        return name in self._components

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


def _origin(component: object) -> str:
    module = getattr(component, "__module__", type(component).__module__)
    return f"{module}.{getattr(component, '__qualname__', type(component).__qualname__)}"


BACKBONES: Registry[Any] = Registry("backbone", "MODEL.BACKBONE.NAME")
HEADS: Registry[Any] = Registry("head", "MODEL.HEAD.NAME")
MODELS: Registry[Any] = Registry("segmentation model", "MODEL.NAME")
META_ARCHS: Registry[Any] = Registry("meta-architecture", "META_ARCH.NAME")
PASSES: Registry[Any] = Registry("student pass", "META_ARCH.PASSES")
HOOKS: Registry[Any] = Registry("hook", "HOOKS.NAMES")
TRANSLATORS: Registry[Any] = Registry("translator", "TRANSLATION.NAME")
OBJECTIVES: Registry[Any] = Registry("pull objective", "T2SDA.OBJECTIVE")
OPTIMIZERS: Registry[Any] = Registry("optimizer of the student", "SOLVER.OPTIMIZER")
AUGMENTATIONS: Registry[Any] = Registry(
    "augmentation", "STRONG_AUGMENTATION.NAME and SOURCE_AUGMENTATION.NAME"
)


def check_registered(cfg: CfgNode) -> None:
    """Raise UnknownNameError for a component that a configuration names and nobody registered.

    Without it a wrong name would be found when the component is built, after the data was read.
    """
    for registry in (META_ARCHS, BACKBONES, HEADS, PASSES, HOOKS, TRANSLATORS):
        value: Any = cfg
        for name in registry.setting.split("."):
            value = value[name]
        for name in [value] if isinstance(value, str) else value:
            if name:  # empty where there is none to be
                registry.get(name)
