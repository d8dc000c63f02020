"""The cost of a training step over the bare forwards and backwards it is made of.

Bare: the teacher's forwards and every pass's student forward and backward, called directly on the
same tensors, in the same precision. Step: `Trainer.run_step`, which adds hooks, gradient norm,
finite check, AdamW and the moving average. Rounds are interleaved. Memory is the peak above what
the model and its gradients hold, of the whole step and of its largest pass.

    python benchmarks/train_step.py --config-file configs/quickstart.yaml
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

import t2sda.builtin  # noqa: F401  (fills the registries)
from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.config import load_config
from t2sda.data.domains import DomainPairs
from t2sda.data.samples import collate
from t2sda.engine.device import choose_device, lay_out_
from t2sda.engine.hooks import RunObjects, build_hooks
from t2sda.engine.optim import build_owners
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import Trainer, TrainerSettings
from t2sda.meta_arch.base import build_meta_arch
from t2sda.structures import DomainBatch, RandomStreams, Step

MOST = 1.1
"""Of what a step may cost, in time and memory, beside what it is made of."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default="configs/quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=10)
    add_ratios_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    args = parser.parse_args()
    cfg = load_config(args.config_file, args.overrides)
    trainer, batch = build(cfg)
    bare = Bare(trainer, batch)
    steps = itertools.count()

    def whole() -> None:
        trainer.run_step(next(steps), iter([batch]))

    times: dict[str, list[float]] = {"bare": [], "step": []}
    for round_ in range(args.rounds + 2):  # two to warm up
        for name, action in (("bare", bare.run), ("step", whole)):
            seconds = timed(action)
            if round_ >= 2:
                times[name].append(seconds)
    bare_time, step_time = (statistics.median(times[name]) for name in ("bare", "step"))
    print(f"{cfg.META_ARCH.NAME}, {cfg.SOLVER.PRECISION}, crop {cfg.DATA.CROP_SIZE}")
    print(f"bare forwards and backwards  {bare_time:8.3f} s (median of {args.rounds})")
    print(f"training step                {step_time:8.3f} s  ratio {step_time / bare_time:.3f}")
    passes = {name: peak(lambda name=name: bare.run_pass(name)) for name in bare.passes}  # type: ignore[misc]
    for name, size in passes.items():
        print(f"peak memory of pass {name:<9} {size / 2**20:8.1f} MiB")
    step_peak = peak(whole)
    largest = max(passes.values())
    print(
        f"peak memory of the step      {step_peak / 2**20:8.1f} MiB  "
        f"ratio {step_peak / largest:.3f}"
    )
    name = f"{cfg.META_ARCH.NAME}, a step beside its forwards and backwards"
    times_of = f"{step_time:.3f} s, bare {bare_time:.3f} s"
    memory = f"{step_peak / 2**20:.0f} MiB, largest pass {largest / 2**20:.0f} MiB"
    save_ratios(
        args.ratios,
        [
            Ratio(f"{name}: time", step_time / bare_time, times_of, at_most=MOST),
            Ratio(f"{name}: memory", step_peak / largest, memory, at_most=MOST),
        ],
    )
    return 0


class Bare:
    """The forwards and backwards of a step, and nothing else."""

    def __init__(self, trainer: Trainer, batch: DomainBatch) -> None:
        self.meta_arch = trainer.meta_arch.train()
        self.precision = trainer.precision
        self.step = Step(0, 0, batch, RandomStreams(0, 0, 0))
        self.passes = trainer.meta_arch.pass_names
        self.teach()
        for hook in trainer.hooks:
            hook.after_teacher(self.step)

    def teach(self) -> None:
        """The teacher's forwards."""
        with torch.no_grad(), self.precision.autocast():
            self.step.teacher = self.meta_arch.teach(self.step)

    def run_pass(self, name: str) -> None:
        """One student forward and backward."""
        with self.precision.autocast():
            losses = self.meta_arch(name, self.step)
        sum(losses.values()).backward()

    def run(self) -> None:
        """All of them."""
        self.meta_arch.zero_grad(set_to_none=True)
        self.teach()
        for name in self.passes:
            self.run_pass(name)


def build(cfg: CfgNode) -> tuple[Trainer, DomainBatch]:
    """A trainer as the command builds it, and one batch."""
    device = choose_device(cfg.DEVICE)
    pairs = DomainPairs.from_config(cfg)
    torch.manual_seed(cfg.SEED)
    meta_arch = build_meta_arch(cfg, pairs.source.taxonomy).to(device)
    lay_out_(meta_arch.student, cfg)
    trainer = Trainer(
        meta_arch,
        build_owners(cfg, meta_arch),
        Precision(cfg.SOLVER.PRECISION, device),
        list(build_hooks(cfg, RunObjects(meta_arch, Path(cfg.OUTPUT_DIR))).values()),
        TrainerSettings.from_config(cfg),
        device,
    )
    for hook in trainer.hooks:
        hook.before_train(0)
    batch = collate([pairs[position] for position in range(cfg.SOLVER.BATCH_SIZE)])
    assert isinstance(batch, DomainBatch)
    return trainer, batch.to(device)


def timed(action: Callable[[], None]) -> float:
    """Seconds of one call; on a GPU until it has finished."""
    began = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak(action: Callable[[], None]) -> int:
    """Most bytes of tensors alive at once during a call, above those before it."""
    action()  # so that gradients and optimizer state exist already
    gc.collect()
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        action()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profile:
        action()
    return most_allocated(profile)


def most_allocated(profile: torch.profiler.profile) -> int:
    """The maximum of the running sum of allocations on the CPU."""
    results: Any = profile.profiler.kineto_results if profile.profiler else None
    changes = [
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU
    ]
    total = highest = 0
    for _, change in sorted(changes, key=lambda item: item[0]):
        total += change
        highest = max(highest, total)
    return highest


if __name__ == "__main__":
    sys.exit(main())
