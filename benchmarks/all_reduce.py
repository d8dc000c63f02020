"""The share of a step that averaging gradients takes, with two gloo processes of one thread.

Before the averaging both wait for each other, so that its seconds are those of the operation alone,
not of the slower process's backward. What could hide it is the backward of the last pass; gloo
copies with the CPU that this backward needs, so the seconds of the CPU are shown as well.

    python -m benchmarks.all_reduce
    python -m benchmarks.all_reduce --config-file quickstart.yaml MODEL.BACKBONE.NAME MiT
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.multiprocessing as mp
from fvcore.common.config import CfgNode
from torch import nn

from benchmarks.train_step import build
from t2sda.config import load_config
from t2sda.distributed import average_gradients_, barrier, process_group
from t2sda.engine import trainer as engine

WORLD_SIZE = 2
NETWORKS: dict[str, list[str]] = {
    "efficientnet-lite0": [],
    "MiT-B0": ["MODEL.BACKBONE.NAME", "MiT", "MODEL.BACKBONE.VARIANT", "b0"],
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default="quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    args = parser.parse_args()
    print("| network | MB | step ms | averaged in ms | share | step CPU ms | averaged | share |")
    print("| --- |" + " ---: |" * 7)
    for name, own in NETWORKS.items():
        overrides = ["MODEL.BACKBONE.WEIGHTS", "", *own, *args.overrides]
        megabytes, *seconds = measured(args.config_file, overrides, args.rounds)
        cells = [f"{megabytes:.1f}"]
        for step, averaged in (seconds[:2], seconds[2:]):
            cells += [
                f"{1000 * step:.0f}",
                f"{1000 * averaged:.1f}",
                f"{100 * averaged / step:.1f} %",
            ]
        print(f"| {name} | {' | '.join(cells)} |")
    return 0


def measured(config: str, overrides: Sequence[str], rounds: int) -> list[float]:
    """MB of gradients, and the first process's medians: seconds of a step, of averaging, CPU's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.pt"
        mp.spawn(_measure, (config, list(overrides), rounds, folder, path), nprocs=WORLD_SIZE)
        return torch.load(path)


def _measure(
    rank: int, config: str, overrides: list[str], rounds: int, folder: str, path: Path
) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(WORLD_SIZE), MASTER_ADDR="127.0.0.1", MASTER_PORT="29511"
    )
    cfg = load_config(config, [*overrides, "DEVICE", "cpu", "OUTPUT_DIR", folder])
    with process_group(torch.device("cpu")):
        times = steps_of(cfg, rounds)
    if rank == 0:
        torch.save(times, path)


def steps_of(cfg: CfgNode, rounds: int) -> list[float]:
    """As `measured`, in a process that has joined the others."""
    trainer, batch = build(cfg)
    times: list[tuple[float, ...]] = []
    averaging: list[tuple[float, float]] = []

    def watched(parameters: Iterable[nn.Parameter]) -> None:
        barrier()
        began = now()
        average_gradients_(parameters)
        averaging.append(since(began))

    engine.average_gradients_ = watched
    for iteration in range(rounds + 2):  # two to warm up
        barrier()
        began = now()
        trainer.run_step(iteration, iter([batch]))
        (step, cpu), (averaged, own_cpu) = since(began), averaging[-1]
        times.append((step, averaged, cpu, own_cpu))
    size = sum(p.numel() for owner in trainer.owners for p in owner.parameters) * 4 / 1e6
    return [size, *(statistics.median(column) for column in zip(*times[2:], strict=True))]


def now() -> tuple[float, float]:
    """Seconds of the clock, and of the CPU in all threads of this process."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    """Both, from then on."""
    ended = now()
    return ended[0] - began[0], ended[1] - began[1]


if __name__ == "__main__":
    sys.exit(main())
