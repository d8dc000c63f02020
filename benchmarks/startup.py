"""What every command costs before it does anything: `t2sda VERB --help` in processes of their own.

Seconds, seconds of the CPU (of all threads) and peak memory; medians of interleaved rounds. A bare
Python and the import of torch are there to compare with.

    python -m benchmarks.startup
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.cli.main import COMMANDS

LOAD_MODEL = "import of load_model"
SECOND = 1.0
"""What importing `load_model` may take."""


class Cost(NamedTuple):
    """Of a process."""

    wall: float
    cpu: float
    peak_mib: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    add_ratios_argument(parser)
    args = parser.parse_args()
    commands = programs()
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            costs[name].append(cost_of(command))
    medians = {name: median(own) for name, own in costs.items()}
    print("| command | s | s of the CPU | peak MiB |\n| --- | ---: | ---: | ---: |")
    for name, cost in medians.items():
        print(f"| {name} | {cost.wall:.2f} | {cost.cpu:.2f} | {cost.peak_mib:.0f} |")
    save_ratios(args.ratios, [ratio_of(name, cost) for name, cost in medians.items()])
    return 0


def programs() -> dict[str, list[str]]:
    """By name: what is started."""
    python = sys.executable
    return {
        "python": [python, "-c", "pass"],
        "import torch": [python, "-c", "import torch"],
        LOAD_MODEL: [python, "-c", "from t2sda import load_model"],
        **{f"t2sda {verb}": [python, "-m", "t2sda", verb, "--help"] for verb in COMMANDS},
    }


def cost_of(command: list[str]) -> Cost:
    """Of one process, alone; what this one has in memory is the least that can be measured."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median(costs: Sequence[Cost]) -> Cost:
    """Of each number."""
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def ratio_of(name: str, cost: Cost) -> Ratio:
    """Seconds of the CPU: they are the same on a machine that does other work."""
    limit = SECOND if name == LOAD_MODEL else None
    detail = f"{cost.wall:.2f} s wall, {cost.peak_mib:.0f} MiB"
    return Ratio(f"start-up: {name}", cost.cpu, detail, at_most=limit, unit="s of the CPU")


if __name__ == "__main__":
    sys.exit(main())
