"""What all tests share: filled registries, one torch thread, no network."""

from __future__ import annotations

import os

import pytest
import torch

import t2sda.builtin  # noqa: F401  (fills the registries)

os.environ.pop("T2SDA_DATASETS", None)


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


def pytest_configure() -> None:
    """One thread a process: small tensors gain nothing from more, parallel tests lose."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """README's commands take longest, so they go first: no process waits for them at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say what a skipped test would need."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; torch finds none here")
    if item.get_closest_marker("tensorrt"):
        pytest.importorskip("tensorrt", reason="needs TensorRT (pip install 't2sda[tensorrt]')")
