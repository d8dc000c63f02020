"""Time and memory of networks side by side: same weights, same allocator, one run.

SegFormer-B0 beside Hugging Face's; both give logits on the grid of stride 4. HRDA of MiT-B0 on one
window, at half of the usual sizes: its details in one batch, beside one by one. Rounds are
interleaved, and every figure is a median. Memory is measured in a process for each: the most that
was resident during a call, above what was resident before it. Allocator settings are those of the
environment and the same for both; the second command has the ones that `make quickstart` uses.

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
from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.heads.daformer import DAFormerHead
from t2sda.modeling.heads.segformer import SegFormerHead
from t2sda.modeling.hrda import HRDA
from tests.references.huggingface import segformer, with_weights_of

VARIANT, CHANNELS, NUM_CLASSES = "b0", 256, 19
WARMUP = 2
WINDOW, DETAIL = (512, 512), (256, 256)
HRDA_PAIR = ("batched", "one by one")


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    name: str
    size: tuple[int, int]
    pair: tuple[str, str] = ("ours", "theirs")
    """Names of the networks that are compared, ours first."""
    batch: int = 1
    precision: torch.dtype = torch.float32
    backward: bool = False
    target: float = 1.0
    """How many times faster than the peer it is to be."""


CASES = (
    Case("forward, float32, 512x1024", (512, 1024), target=1.8),
    Case("forward, bfloat16, 512x1024", (512, 1024), precision=torch.bfloat16, target=1.8),
    Case("forward + backward, float32, 512x512", (512, 512), backward=True, target=1.3),
    Case("HRDA, forward, float32, 512x512", WINDOW, HRDA_PAIR),
    Case("HRDA, forward, bfloat16, 512x512", WINDOW, HRDA_PAIR, precision=torch.bfloat16),
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


class OneByOne(HRDA):
    """HRDA that sees window after window, as it would in a loop."""

    def _logits_of(self, image: Tensor) -> Tensor:
        return torch.cat([super(OneByOne, self)._logits_of(window) for window in image.split(1)])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory-of", nargs=2, metavar=("NETWORK", "CASE"), help=argparse.SUPPRESS)
    add_ratios_argument(parser)
    args = parser.parse_args()
    networks = build()
    if args.memory_of:
        name, index = args.memory_of
        print(peak_memory(action(networks[name], CASES[int(index)])))
        return 0
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {allocator()}")
    print(f"largest difference of the logits {largest_difference(networks):.1e}")
    ratios: list[Ratio] = []
    for index, case in enumerate(CASES):
        pair = {name: networks[name] for name in case.pair}
        ratios += report(case, times_of(pair, case, args.rounds), memory_of_all(pair, index))
    print(encoder_passes(networks["batched"]))
    save_ratios(args.ratios, ratios)
    return 0


def build() -> dict[str, nn.Module]:
    """All networks; those of a pair have the same random weights."""
    torch.manual_seed(0)
    theirs = segformer(VARIANT, CHANNELS, NUM_CLASSES)
    networks: dict[str, nn.Module] = {
        "ours": Ours(*with_weights_of(theirs, VARIANT)),
        "theirs": Theirs(theirs),
    }
    for name, kind in zip(HRDA_PAIR, (HRDA, OneByOne), strict=True):
        torch.manual_seed(0)
        backbone = MiT(VARIANT)
        head = DAFormerHead(backbone.feature_specs, NUM_CLASSES, CHANNELS)
        attention = SegFormerHead(backbone.feature_specs, NUM_CLASSES, CHANNELS)
        networks[name] = kind(backbone, head, attention, DETAIL, WINDOW)
    return networks


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


def report(
    case: Case, times: dict[str, list[float]], memory: dict[str, int]
) -> tuple[Ratio, Ratio]:
    """One block of lines: milliseconds and MiB of both, and the ratios, which it returns."""
    ours, theirs = case.pair
    seconds = {name: statistics.median(times[name]) for name in case.pair}
    times_faster = seconds[theirs] / seconds[ours]
    print(
        f"{case.name:<38} {ours} {1e3 * seconds[ours]:7.1f} ms, {theirs} "
        f"{1e3 * seconds[theirs]:7.1f} ms, {times_faster:.2f}x (target {case.target}x)"
    )
    print(
        f"{'  peak memory':<38} {ours} {memory[ours] / 2**20:6.0f} MiB, "
        f"{theirs} {memory[theirs] / 2**20:6.0f} MiB, ratio {memory[ours] / memory[theirs]:.2f}"
    )
    in_time = ", ".join(f"{name} {1e3 * seconds[name]:.0f} ms" for name in case.pair)
    in_memory = ", ".join(f"{name} {memory[name] / 2**20:.0f} MiB" for name in case.pair)
    most = 1.0 if theirs == "theirs" else None
    title = case.name if theirs != "theirs" else f"SegFormer-B0, {case.name}"
    return (
        Ratio(f"{title}: times as fast", times_faster, in_time, at_least=case.target),
        Ratio(f"{title}: memory", memory[ours] / memory[theirs], in_memory, at_most=most),
    )


@torch.no_grad()
def encoder_passes(network: nn.Module) -> str:
    """How often the encoder runs for an image of twice the window's width, and on how many."""
    seen: list[int] = []
    encoder = network.get_submodule("backbone")
    handle = encoder.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))
    network.eval()(torch.zeros(1, 3, WINDOW[0], 2 * WINDOW[1]))
    handle.remove()
    return f"HRDA, an image of 2:1: {sum(seen)} images through the encoder in {len(seen)} forwards"


@torch.no_grad()
def largest_difference(networks: dict[str, nn.Module]) -> float:
    """Of the logits in float32; zero up to rounding, or the comparison would be none."""
    image = torch.randn(1, 3, 128, 256, generator=torch.Generator().manual_seed(1))
    pairs = {case.pair for case in CASES}
    for network in networks.values():
        network.eval()
    return max(float((networks[a](image) - networks[b](image)).abs().max()) for a, b in pairs)


def allocator() -> str:
    """The allocator settings of this process."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "default allocator"


if __name__ == "__main__":
    sys.exit(main())
