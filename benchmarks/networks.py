"""SegFormer-B0 beside Hugging Face's: time and memory, same weights, same allocator, one run.

Both give logits on the grid of stride 4. Rounds are interleaved, and every figure is a median.
Memory is measured in a process for each: the most that was resident during a call, above what was
resident before it. Allocator settings are those of the environment and the same for both; the
second command has the ones that `make quickstart` uses.

    python -m benchmarks.networks
    env MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 \
        MALLOC_TOP_PAD_=268435456 python -m benchmarks.networks
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401  (fills the registries)
from tests.references.huggingface import segformer, with_weights_of

VARIANT, CHANNELS, NUM_CLASSES = "b0", 256, 19
WARMUP = 2


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    name: str
    size: tuple[int, int]
    batch: int = 1
    precision: torch.dtype = torch.float32
    backward: bool = False
    target: float = 1.0
    """How many times faster than the peer it is to be."""


CASES = (
    Case("forward, float32, 512x1024", (512, 1024), target=1.8),
    Case("forward, bfloat16, 512x1024", (512, 1024), precision=torch.bfloat16, target=1.8),
    Case("forward + backward, float32, 512x512", (512, 512), backward=True, target=1.3),
)


class Ours(nn.Module):
    """Encoder and head, logits on the grid of stride 4."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        return self.head(self.backbone(image))


class Theirs(nn.Module):
    """The same of Hugging Face."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        return self.network(image).logits


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory-of", nargs=2, metavar=("NETWORK", "CASE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    networks = build()
    if args.memory_of:
        name, index = args.memory_of
        print(peak_memory(action(networks[name], CASES[int(index)])))
        return 0
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {allocator()}")
    print(f"largest difference of the logits {largest_difference(networks):.1e}")
    for index, case in enumerate(CASES):
        report(case, times_of(networks, case, args.rounds), memory_of_all(networks, index))
    return 0


def build() -> dict[str, nn.Module]:
    """Both networks with the same random weights."""
    torch.manual_seed(0)
    theirs = segformer(VARIANT, CHANNELS, NUM_CLASSES)
    return {"ours": Ours(*with_weights_of(theirs, VARIANT)), "theirs": Theirs(theirs)}


def action(network: nn.Module, case: Case) -> Callable[[], None]:
    """One forward, or one forward and backward in training mode."""
    image = torch.randn(case.batch, 3, *case.size, generator=torch.Generator().manual_seed(0))
    low = case.precision != torch.float32

    def run() -> None:
        network.train(case.backward)
        network.zero_grad(set_to_none=True)
        precision: Any = torch.autocast("cpu", case.precision) if low else nullcontext()
        with torch.set_grad_enabled(case.backward), precision:
            logits = network(image)
            if case.backward:
                logits.logsumexp(dim=1).mean().backward()

    return run


def times_of(networks: dict[str, nn.Module], case: Case, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round; the networks take turns."""
    actions = {name: action(network, case) for name, network in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    for round_ in range(rounds + WARMUP):
        for name, run in actions.items():
            began = time.perf_counter()
            run()
            if round_ >= WARMUP:
                times[name].append(time.perf_counter() - began)
    return times


def memory_of_all(networks: dict[str, nn.Module], index: int) -> dict[str, int]:
    """Peak bytes of one call of each network, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.networks", "--memory-of"]
    return {
        name: int(subprocess.check_output([*command, name, str(index)], text=True).split()[-1])
        for name in networks
    }


def peak_memory(run: Callable[[], None]) -> int:
    """Most bytes resident during two calls above those resident before; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    run()
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """Bytes that the kernel reports for this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def report(case: Case, times: dict[str, list[float]], memory: dict[str, int]) -> None:
    """One block of lines: milliseconds and MiB of both, and the ratios."""
    ours, theirs = (statistics.median(times[name]) for name in ("ours", "theirs"))
    print(
        f"{case.name:<38} ours {1e3 * ours:7.1f} ms, theirs {1e3 * theirs:7.1f} ms, "
        f"{theirs / ours:.2f}x (target {case.target}x)"
    )
    print(
        f"{'  peak memory':<38} ours {memory['ours'] / 2**20:6.0f} MiB, "
        f"theirs {memory['theirs'] / 2**20:6.0f} MiB, "
        f"{memory['ours'] / memory['theirs']:.2f} of theirs (target 1)"
    )


@torch.no_grad()
def largest_difference(networks: dict[str, nn.Module]) -> float:
    """Of the logits in float32; zero up to rounding, or the comparison would be none."""
    image = torch.randn(1, 3, 128, 256, generator=torch.Generator().manual_seed(1))
    return float((networks["ours"](image) - networks["theirs"](image)).abs().max())


def allocator() -> str:
    """The allocator settings of this process."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "default allocator"


if __name__ == "__main__":
    sys.exit(main())
