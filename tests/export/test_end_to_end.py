"""The stages of `t2sda benchmark --end-to-end` add up, and each is what it says."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2sda.cli.benchmark_files import load_job
from t2sda.errors import UserError
from t2sda.export import end_to_end
from t2sda.export.end_to_end import STAGES, Job, copied, measure, street_files
from tests.tiny_onnx import write_tiny

SLOW = 0.03


@pytest.fixture
def job(tmp_path: Path) -> Job:
    path = write_tiny(tmp_path / "tiny.onnx")
    load = partial(load_job, str(path), "onnxruntime", "cpu", None, ())
    return Job(str(path), load, "onnxruntime", street_files(tmp_path, (40, 60), 2), 2, 1)


def test_every_image_is_timed_in_every_stage_and_overlapped(job: Job) -> None:
    found = measure(job)
    assert found.size == (40, 60)
    assert {stage: len(own) for stage, own in found.seconds.items()} == dict.fromkeys(STAGES, 4)
    assert min(min(own) for own in found.seconds.values()) > 0
    assert len(found.overlapped_seconds) == 2
    medians = [found.median(stage) for stage in STAGES]
    assert max(medians) < found.one_by_one < 10 * sum(medians)


@pytest.mark.parametrize("stage", STAGES)
def test_what_takes_long_is_seen_in_its_own_stage(
    job: Job, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(function: Any) -> Any:
        def slow(*arguments: Any) -> Any:
            time.sleep(SLOW)
            return function(*arguments)

        return slow

    def load(threads: int, streams: int) -> Any:
        model = job.load(threads, streams)
        if stage == "copy":
            model.letterbox = slowly(model.letterbox)
        if stage == "network":
            model.run = slowly(model.run)  # type: ignore[attr-defined]
        return model

    def write(path: Path, labels: np.ndarray) -> None:
        path.write_bytes(labels.tobytes())  # without waiting for the disk

    monkeypatch.setattr(end_to_end, "write_png", slowly(write) if stage == "write" else write)
    if stage == "decode":
        monkeypatch.setattr(end_to_end, "read_image", slowly(end_to_end.read_image))
    found = measure(job._replace(load=load, rounds=1))
    assert np.argmax([found.median(name) for name in STAGES]) == STAGES.index(stage)
    assert found.median(stage) >= SLOW


def test_an_image_that_cannot_be_read_is_called_by_its_users_name(job: Job, tmp_path: Path) -> None:
    damaged = tmp_path / "mine.png"
    damaged.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"/mine\.png: cannot be decoded"):
        measure(job._replace(files=copied([damaged], tmp_path / "links")))
