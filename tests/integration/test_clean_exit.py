"""However a run fails, it ends within seconds, says one thing, and leaves no process behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.components import components_restored
from tests.integration.conftest import ROOT, Run, environment

FAILING_HOOK = """
from t2sda.distributed import rank, world_size
from t2sda.engine.hooks import HOOKS, Hook


@HOOKS.register()
class Failing(Hook):
    def after_step(self, step):
        if step.iteration == 1 and rank() == world_size() - 1:
            {statement}
"""
LIMIT = 30
"""Seconds from the failure to the end of the last process."""


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_bug_in_a_hook_ends_the_whole_job_with_its_traceback(
    tiny_config: Path, tmp_path: Path, ranks: int
) -> None:
    marker, plugin = tmp_path / "failed", tmp_path / "failing.py"
    note = f"open({str(marker)!r}, 'w').close()"
    plugin.write_text(FAILING_HOOK.format(statement=f"{note}; raise KeyError('a bug')"))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    result = subprocess.run(  # reads its output until no process holds it any more
        [
            *(sys.executable, *(launcher if ranks > 1 else ())),
            *("tools/train_net.py", "--config-file", str(tiny_config), "--plugin", str(plugin)),
            *("--output-dir", str(tmp_path / "run"), "HOOKS.NAMES", "[Failing]"),
            *("DATA.NUM_WORKERS", "2"),
        ],
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert time.time() - marker.stat().st_mtime < LIMIT
    assert result.returncode == 1
    assert result.stderr.count("KeyError: 'a bug'") == 1
    # torchrun adds a traceback of its own; the other rank says one line, if it is given the time.
    assert result.stderr.count("Traceback") == ranks
    assert result.stderr.count("error: another process of this run failed; see its") <= ranks - 1
    assert "gloo" not in result.stderr


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("raise MemoryError('16 GB')", "not enough memory (16 GB); set a smaller SOLVER.BATCH_"),
        ("raise OSError(24, 'Too many open files')", "raise the limit (`ulimit -n 65536` before"),
    ],
)
def test_what_runs_out_is_named(
    t2sda_inline: Run,
    tiny_config: Path,
    tmp_path: Path,
    statement: str,
    message: str,
) -> None:
    plugin = tmp_path / "failing.py"
    plugin.write_text(FAILING_HOOK.format(statement=statement))
    with components_restored():
        result = t2sda_inline(
            *("train", "--config-file", tiny_config, "--plugin", plugin),
            *("--output-dir", tmp_path / "run", "HOOKS.NAMES", "[Failing]"),
        )
    assert result.returncode == 2
    assert message in result.stderr
