"""What a plugin registers in a test is forgotten after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from importlib import import_module

from t2sda import registry
from t2sda.config import SCHEMA
from t2sda.data.catalog import DATASETS
from t2sda.plugins import LOADED_FILES
from t2sda.registry import Registry


@contextmanager
def components_restored() -> Iterator[None]:
    """Registries and schema are afterwards as before."""
    import_module("t2sda.builtin")
    registries = [one for one in vars(registry).values() if isinstance(one, Registry)]
    owners = (DATASETS, SCHEMA, *registries)
    before = [{name: copy(value) for name, value in vars(owner).items()} for owner in owners]
    loaded = set(LOADED_FILES)
    try:
        yield
    finally:
        for path in LOADED_FILES.keys() - loaded:
            sys.modules.pop(LOADED_FILES.pop(path).__name__, None)
        for owner, state in zip(owners, before, strict=True):
            vars(owner).update(state)
