"""Kill training at random moments, resume it, and compare with a run that nobody disturbed.

Every trial starts a run in a process of its own, kills it (SIGKILL, loader workers too), resumes it
to the end and compares the final checkpoint bit for bit: student, teacher, optimizer, buffers.
Every third kill comes while a checkpoint is being written. Prints a table; exits with 1 if any
outcome differs.

    python benchmarks/resume_after_kill.py --kills 30 --num-workers 2
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

CONFIG = """
META_ARCH: {NAME: T2SDA}
DATASETS: {SOURCE: streets_clear_train, TARGET: streets_hazy_train}
TRANSLATION: {NAME: FDA}
HOOKS: {NAMES: [EmaTeacher, DynamicReweighting]}
DATA: {CROP_SIZE: [64, 96]}
MODEL: {BACKBONE: {TIMM_NAME: test_resnet}, HEAD: {CHANNELS: 64}}
SOLVER: {MAX_ITER: 24, BATCH_SIZE: 2, WARMUP_ITERS: 4, BASE_LR: 1.0e-3}
T2SDA: {NUM_NEGATIVES: 64, QUERIES_PER_CLASS: 16}
CHECKPOINT: {PERIOD: 4}
EVALUATION: {PERIOD: 0}
LOGGING: {PERIOD: 1, TENSORBOARD: false}
DEVICE: cpu
"""
FINAL = "checkpoint_0000024.pth"


def main() -> int:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    dice = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(CONFIG)
        began = time.perf_counter()
        start(folder, "undisturbed", args.num_workers).wait()
        duration = time.perf_counter() - began
        print(f"undisturbed: {duration:.1f} s, {args.num_workers} loader workers", flush=True)
        print(f"{'kill':>4}  {'moment':>8}  {'logged':>6}  {'while':<18}  outcome", flush=True)
        same = [
            trial(folder, index, args.num_workers, duration, dice) for index in range(args.kills)
        ]
    print(f"{sum(same)} of {len(same)} bit-identical")
    return 0 if all(same) else 1


def trial(folder: Path, index: int, num_workers: int, duration: float, dice: random.Random) -> bool:
    """Start, kill, resume, compare; prints a row."""
    run = folder / "killed"
    shutil.rmtree(run, ignore_errors=True)
    began = time.perf_counter()
    process = start(folder, "killed", num_workers)
    if index % 3 == 0:
        skip_checkpoints(run, process, dice.randrange(5))
    else:
        moment = dice.uniform(0, duration)
        while process.poll() is None and time.perf_counter() - began < moment:
            time.sleep(0.001)
    writing = bool(list(run.glob("*.partial"))) and process.poll() is None
    moment, logged = time.perf_counter() - began, iterations(run)
    os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    process.wait()
    code = start(folder, "killed", num_workers).wait()
    same = code == 0 and identical(folder / "undisturbed" / FINAL, run / FINAL)
    state = "writing checkpoint" if writing else "starting" if logged == 0 else "training"
    state = "finished" if logged == 24 and not writing else state
    print(
        f"{index:>4}  {moment:>6.2f} s  {logged:>6}  {state:<18}  "
        f"{'bit-identical' if same else 'DIFFERENT'}",
        flush=True,
    )
    return same


def skip_checkpoints(run: Path, process: subprocess.Popen[bytes], skipped: int) -> None:
    """Wait until checkpoint number `skipped` + 1 is half-written."""
    while process.poll() is None:
        whole = len(list(run.glob("*.pth"))) if run.exists() else 0
        if whole >= min(skipped, 3) and any(run.glob("*.partial")):
            return


def start(folder: Path, run: str, num_workers: int) -> subprocess.Popen[bytes]:
    """Train or resume, in a process group of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "t2sda", "train", "--resume", "--config-file"),
            *(folder / "config.yaml", "--output-dir", folder / run),
            *("DATA.NUM_WORKERS", str(num_workers)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def iterations(run: Path) -> int:
    """Steps in the log."""
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def identical(first: Path, second: Path) -> bool:
    """Whether all tensors and numbers of two checkpoints agree, bit for bit."""
    one, two = (torch.load(path, weights_only=True) for path in (first, second))
    return all(
        same(one[key], two[key]) for key in ("meta_arch", "optimizer", "scaler", "iteration")
    )


def same(one: object, two: object) -> bool:
    """Equality of nested containers of tensors."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return one == two


if __name__ == "__main__":
    sys.exit(main())
