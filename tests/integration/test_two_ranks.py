"""Two gloo processes with half the batch each give the numbers of one with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.conftest import ROOT, TINY_CONFIG, environment

T2SDA_KEYS = """
META_ARCH: {NAME: T2SDA}
TRANSLATION: {NAME: FDA}
HOOKS: {NAMES: [EmaTeacher, DynamicReweighting]}
T2SDA: {NUM_NEGATIVES: 64, QUERIES_PER_CLASS: 16}
"""


def train(config: Path, run: Path, *, processes: int) -> None:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    result = subprocess.run(
        [*launcher, "tools/train_net.py", "--config-file", str(config), "--output-dir", str(run)],
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("method", ["source_only", "t2sda"])
def test_two_ranks_train_as_one(tmp_path: Path, method: str) -> None:
    config = tmp_path / "config.yaml"
    text = TINY_CONFIG.replace("MAX_ITER: 12", "MAX_ITER: 4").replace(
        "BATCH_SIZE: 2", "BATCH_SIZE: 4"
    )
    # Dropout draws one mask a process; BatchNorm is taken over all ranks, so it may stay on.
    text = text.replace("HEAD: {CHANNELS: 16}", "HEAD: {CHANNELS: 16, DROPOUT: 0.0}")
    if method == "t2sda":
        text = text.replace(
            "DATASETS: {SOURCE: streets_clear_train}",
            "DATASETS: {SOURCE: streets_clear_train, TARGET: streets_hazy_train}",
        )
        text += T2SDA_KEYS
    config.write_text(text)
    for name, processes in (("one", 1), ("two", 2)):
        train(config, tmp_path / name, processes=processes)
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert len(one) == len(two) == 4
    for first, second in zip(one, two, strict=True):
        for name in first:
            if name.startswith("loss_"):
                assert second[name] == pytest.approx(first[name], rel=2e-4), name
    states = [
        torch.load(tmp_path / name / "checkpoint_0000004.pth", weights_only=True)["meta_arch"]
        for name in ("one", "two")
    ]
    for name, expected in states[0].items():
        # Four steps of Adam at a rate of 1e-3 turn rounding in a gradient near 0 into a step.
        torch.testing.assert_close(
            states[1][name], expected, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
    differing = torch.cat([(states[1][n] - states[0][n]).flatten().double() for n in states[0]])
    assert differing.abs().median() < 1e-6
