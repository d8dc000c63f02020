"""What a training step takes with several threads when other processes share the cores.

A worker process for each setting of the OpenMP runtime, which reads it when it starts. The workers
take turns, a step each; idle ones wait and use nothing. Then the same while busy processes keep
cores from them. Medians of seconds, and of seconds of the CPU: what threads spend waiting for each
other by spinning counts there as work.

    python -m benchmarks.threads --others 1
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from benchmarks.train_step import build
from t2sda.config import load_config

CORES = len(os.sched_getaffinity(0))
MANY = {"OMP_NUM_THREADS": str(CORES)}
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    f"{CORES} threads": MANY,
    f"{CORES} threads, OMP_WAIT_POLICY=passive": {**MANY, "OMP_WAIT_POLICY": "passive"},
    f"{CORES} threads, GOMP_SPINCOUNT=10000": {**MANY, "GOMP_SPINCOUNT": "10000"},
    f"{CORES} threads, KMP_BLOCKTIME=0": {**MANY, "KMP_BLOCKTIME": "0"},
}
OF_OPENMP = {name for setting in SETTINGS.values() for name in setting}
BUSY = "while True: pass"
Times = dict[str, list[tuple[float, float]]]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default="quickstart.yaml")
    parser.add_argument("--crop", nargs=2, type=int, default=[64, 96])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--others", type=int, default=1, help="busy processes beside")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.config_file, args.crop)
    options = ["--config-file", args.config_file, "--crop", *map(str, args.crop)]
    with workers(options) as running:
        rounds(running, 1)
        report("as the machine is", rounds(running, args.rounds))
        if args.others:
            with others(args.others):
                report(f"with {args.others} busy process(es) more", rounds(running, args.rounds))
    return 0


def report(title: str, times: Times) -> None:
    """A table of medians."""
    print(f"\n| {title}; load {os.getloadavg()[0]:.1f} on {CORES} cores | s | s of the CPU |")
    print("| --- | ---: | ---: |")
    for name, own in times.items():
        wall, cpu = median(own)
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |", flush=True)


def work(config: str, crop: Sequence[int]) -> int:
    """A step for each line on stdin; answers with its seconds and those of the CPU."""
    overrides = ["DATA.CROP_SIZE", str(list(crop)), "MODEL.BACKBONE.WEIGHTS", "", "DEVICE", "cpu"]
    trainer, batch = build(load_config(config, overrides))
    steps = itertools.count()
    for _ in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        trainer.run_step(next(steps), iter([batch]))
        print(time.perf_counter() - began, time.process_time() - used, flush=True)
    return 0


@contextmanager
def workers(options: Sequence[str]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process for each setting; they end with the block."""
    clean = {name: value for name, value in os.environ.items() if name not in OF_OPENMP}
    command = [sys.executable, "-m", "benchmarks.threads", "--worker", *options]
    pipe = subprocess.PIPE
    running = {
        name: subprocess.Popen(
            command, env={**clean, **setting}, stdin=pipe, stdout=pipe, text=True
        )
        for name, setting in SETTINGS.items()
    }
    try:
        yield running
    finally:
        for worker in running.values():
            worker.kill()
            worker.wait()


@contextmanager
def others(count: int) -> Iterator[None]:
    """So many processes that compute, until the block ends."""
    busy = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def rounds(running: Mapping[str, subprocess.Popen[str]], count: int) -> Times:
    """Steps of all, in turns."""
    times: Times = {name: [] for name in running}
    for _ in range(count):
        for name, worker in running.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            wall, cpu = map(float, worker.stdout.readline().split())
            times[name].append((wall, cpu))
            print(f"{name}: {wall:.2f} s, {cpu:.2f} s of the CPU", file=sys.stderr, flush=True)
    return times


def median(times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of both."""
    walls, cpus = zip(*times, strict=True)
    return statistics.median(walls), statistics.median(cpus)


if __name__ == "__main__":
    sys.exit(main())
