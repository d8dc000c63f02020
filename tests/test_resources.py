"""What runs out is recognised by what the libraries really raise, and nothing else is."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from t2sda.data.catalog import DatasetSpec
from t2sda.errors import UserError
from t2sda.images import read_header, read_image
from t2sda.resources import named_shortages, shortage
from tests.data.conftest import harbour  # noqa: F401  (a fixture)
from tests.data.test_loader import loader_of, pairs_of
from tests.data.test_worker_watch import awkward_loader
from tests.full_disk import file_size_limit

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than cores
FILES = r"too many open files .*ulimit -n"


@contextmanager
def no_more_files() -> Iterator[None]:
    """No further file can be opened by this process, nor by one that is forked from it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open() as file:
        free = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_by_what_numpy_and_torch_raise() -> None:
    for allocate in (lambda: np.empty(1 << 60, np.uint8), lambda: torch.empty(1 << 60)):
        message = "not enough memory .*DATA.NUM_WORKERS"
        with pytest.raises(UserError, match=message), named_shortages():
            allocate()


def test_memory_that_a_loader_process_lacks(harbour: DatasetSpec) -> None:  # noqa: F811
    loader = awkward_loader(harbour, lambda: np.empty(1 << 60, np.uint8))
    message = r"not enough memory \(.*Unable to allocate"
    with pytest.raises(UserError, match=message), named_shortages():
        list(loader)
    loader.close()


def test_an_image_is_not_to_blame_for_too_many_open_files(harbour: DatasetSpec) -> None:  # noqa: F811
    path = Path(harbour.root) / "images/0.png"
    for read in (read_image, read_header):
        with pytest.raises(UserError, match=FILES), no_more_files(), named_shortages():
            read(path)


def test_files_that_run_out_where_batches_arrive(harbour: DatasetSpec) -> None:  # noqa: F811
    batches = iter(loader_of(pairs_of(harbour.open()), 2))
    kept = [next(batches)]  # its memory is held by open files
    with pytest.raises(UserError, match=FILES), no_more_files(), named_shortages():
        kept += batches


def test_shared_memory_that_is_full(harbour: DatasetSpec) -> None:  # noqa: F811
    message = r"shared memory is full .*enlarge /dev/shm"
    loader = loader_of(pairs_of(harbour.open()), 1)  # takes shared memory of its own
    with pytest.raises(UserError, match=message), file_size_limit(1000):  # files cannot grow
        list(loader)


def test_other_errors_are_none() -> None:
    assert shortage(RuntimeError("shapes do not match")) is None
    with pytest.raises(KeyError), named_shortages():
        raise KeyError("x")
    error = UserError("a path with 'out of memory' in it")
    with pytest.raises(UserError) as caught, named_shortages():
        raise error
    assert caught.value is error
