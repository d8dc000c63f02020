"""Loader processes that die, hang, are asked to end, or are left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import resource_sharer
from pathlib import Path

import pytest

from t2sda.data.catalog import DatasetSpec
from t2sda.data.datasets import FileDataset
from t2sda.data.loader import DomainLoader
from t2sda.data.transforms import AS_STORED
from t2sda.errors import UserError
from tests.data.test_loader import loader_of, pairs_of

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than cores


class Awkward(FileDataset):
    """At one file it does what `happens` says."""

    happens = staticmethod(lambda: None)

    def load_image(self, index, resize=AS_STORED, window=None):  # type: ignore[no-untyped-def]
        """Loads, unless it is the one."""
        if self.pairs[index][0].name == "3.png":
            self.happens()
        return super().load_image(index, resize, window)


def awkward_loader(
    harbour: DatasetSpec, happens: Callable[[], object], num_workers: int = 1, timeout: float = 0
) -> DomainLoader:
    source = harbour.open()
    source.__class__ = Awkward
    source.happens = happens  # type: ignore[attr-defined]
    return loader_of(pairs_of(source), num_workers, timeout=timeout)


def send_myself(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie, which nobody waited for, has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def assert_all_gone(loader: DomainLoader) -> None:
    assert loader._watch.workers
    assert all(gone(process.pid or 0) for process in loader._watch.workers)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            signal.SIGKILL,
            r"process died \(SIGKILL\) while it was on .*images/3\.png; .*NUM_WORKERS",
        ),
        (signal.SIGBUS, r"\(SIGBUS\) while it was on .*images/3\.png; .*shared memory in /dev/shm"),
    ],
)
def test_a_process_that_dies_is_reported_with_its_file(
    harbour: DatasetSpec, number: signal.Signals, message: str
) -> None:
    loader = awkward_loader(harbour, send_myself(number), num_workers=2)
    with pytest.raises(UserError, match=message):
        list(loader)
    assert_all_gone(loader)


@pytest.mark.parametrize("happens", [lambda: time.sleep(1000), send_myself(signal.SIGSTOP)])
def test_a_process_that_hangs_or_is_frozen_is_reported_with_its_file_and_ended(
    harbour: DatasetSpec, happens: Callable[[], None]
) -> None:
    loader = awkward_loader(harbour, happens, timeout=1)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"hangs: no batch for 1 s .* on .*images/3\.png\. .*raise"):
        list(loader)
    assert time.monotonic() - began < 5
    assert_all_gone(loader)


def test_a_process_that_is_frozen_while_it_hands_over_is_noticed(
    harbour: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accept_and_freeze(self: resource_sharer._ResourceSharer) -> None:  # type: ignore[name-defined]
        with self._listener.accept():
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1000)  # another thread may be stopped first

    monkeypatch.setattr(resource_sharer._ResourceSharer, "_serve", accept_and_freeze)
    loader = awkward_loader(harbour, lambda: None, timeout=1)
    began = time.monotonic()
    with pytest.raises(UserError, match="hangs: no batch for 1 s"):
        list(loader)
    assert time.monotonic() - began < 5
    assert_all_gone(loader)


def test_signals_to_the_whole_group_are_left_to_the_training_process(harbour: DatasetSpec) -> None:
    loader = awkward_loader(harbour, lambda: None, num_workers=2)
    batches = iter(loader)
    first = [next(batches), next(batches)]  # one of each process: both have begun
    for process in loader._watch.workers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(process.pid or 0, number)
    assert len([*first, *batches]) == len(loader)


def test_closing_in_the_midst_ends_the_processes_quietly(harbour: DatasetSpec) -> None:
    loader = awkward_loader(harbour, lambda: time.sleep(0.2), num_workers=2)
    next(iter(loader))
    began = time.monotonic()
    loader.close()
    assert time.monotonic() - began < 3
    assert_all_gone(loader)
    assert len(list(loader)) == len(loader)  # torch still watches over those of the next round


def test_other_errors_stay_as_they_are(harbour: DatasetSpec) -> None:
    error = RuntimeError("CUDA out of memory")
    assert awkward_loader(harbour, lambda: None, num_workers=0).explained(error) is error


def test_the_end_of_a_long_name_is_kept(harbour: DatasetSpec) -> None:
    watch = awkward_loader(harbour, lambda: None, num_workers=2)._watch
    watch.announce(1, "ä" * 600 + "/street.png")
    assert watch._files[1].value.decode(errors="replace").endswith("ä/street.png")


SCRIPT = """
import sys, time
from multiprocessing import active_children
from pathlib import Path
from tests.data.test_worker_watch import awkward_loader
from t2sda.data.catalog import DatasetSpec
from t2sda.data.taxonomies import CITYSCAPES_19

root, then = sys.argv[1:]
spec = DatasetSpec("harbour", root, "images/*.png", "labels/{stem}.png", CITYSCAPES_19)
slow = (lambda: None) if then == "raise" else (lambda: time.sleep(1000))
loader = awkward_loader(spec, slow, num_workers=2)
if then == "raise":
    batches = iter(loader)
    next(batches)
else:
    batches = loader._watch.started(loader._loader)
    while not loader._watch._files_of(loader._watch.workers):
        time.sleep(0.1)
print(*(child.pid for child in active_children()), flush=True)
if then == "raise":
    raise KeyError("a bug")
time.sleep(1000)
"""


def started(harbour: DatasetSpec, then: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with two loader processes, and their pids."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, harbour.root, then],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_an_error_elsewhere_ends_the_process_and_its_loaders(harbour: DatasetSpec) -> None:
    process, pids = started(harbour, "raise")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "KeyError: 'a bug'" in errors
    assert errors.count("Traceback") == 1
    assert len(pids) == 2
    assert all(map(gone, pids))


def test_processes_end_with_the_training_process_even_while_they_are_busy(
    harbour: DatasetSpec,
) -> None:
    process, pids = started(harbour, "wait")
    assert len(pids) == 2
    process.kill()
    process.communicate()
    assert wait_until(lambda: all(map(gone, pids)), seconds=5)
