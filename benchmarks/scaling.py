"""What a training step costs, from its forwards and backwards: counted, fitted, predicted.

Operations and kept bytes are counted on torch's meta device, where tensors have shapes and no
numbers, for each forward of a method's passes and of its teacher. `--tables` prints them for the
paper's setting. Otherwise seconds = overhead + operations / rate is fitted to steps of two crops on
this machine and compared with a third: seconds of this process with one thread, medians of
interleaved rounds. docs/scaling.md says what follows.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --tables
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from benchmarks.saved_memory import attention_counted, kept_bytes
from benchmarks.train_step import build
from t2sda.config import load_config
from t2sda.meta_arch.base import pass_names, teacher_views
from t2sda.meta_arch.feature_distance import carrying_pass
from t2sda.modeling.branch import Branch
from t2sda.modeling.meta_device import on_meta_device
from t2sda.modeling.projector import Projector
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import META_ARCHS, PASSES

NUM_CLASSES = 19
BACKWARD = 2
"""Times the operations of its forward."""
FLOAT, LABEL = 4, 8
"""Bytes."""
CONFIGS = Path(__file__).parents[1] / "configs/gta5_to_cityscapes"
METHODS = ("source_only", "fda", "minent", "dacs", "daformer", "t2sda", "mic", "t2sda_mic")
NETWORKS = ("deeplabv2_r101", "daformer_mit_b5")
FITTED, CHECKED = ((64, 96), (128, 160)), (160, 224)
WITHIN = 0.2


class Forward(NamedTuple):
    """One batch of images through some networks.

    Attributes:
        who: "student", "teacher" or "ImageNet".
        image: in words.
        networks: of "backbone", "head", "projector".
    """

    who: str
    image: str
    networks: tuple[str, ...]

    @property
    def trained(self) -> bool:
        """Whether a backward follows."""
        return self.who == "student"


@dataclass(frozen=True)
class Cost:
    """Of a step of one process.

    Attributes:
        forwards: in their order.
        operations: of all forwards and backwards; a multiplication and an addition are two.
        kept: bytes that the largest pass keeps for its backward.
        held: bytes that are there all the time: weights, gradients, moments, teacher, encoder.
        reduced: bytes of gradients that ranks average.
        gathered: bytes of keys and labels that each rank gives to all others.
    """

    forwards: tuple[Forward, ...]
    operations: float
    kept: int
    held: int
    reduced: int
    gathered: int

    def count(self, who: str) -> int:
        """Forwards of a network."""
        return sum(forward.who == who for forward in self.forwards)


def main() -> int:
    """Count, or measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="count for the paper's setting")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--configs", nargs="+", default=["quickstart.yaml"], metavar="FILE")
    add_ratios_argument(parser)
    args = parser.parse_args()
    if args.tables:
        print(paper_tables())
        return 0
    torch.set_num_threads(1)
    ratios = [check(config, args.rounds) for config in args.configs]
    save_ratios(args.ratios, ratios)
    return 0


def forwards_of(cfg: CfgNode) -> list[Forward]:
    """Whose forwards a step has, by the configuration alone."""
    found = []
    for image, views in groupby(teacher_views(cfg), key=lambda view: view.image_name):
        needed = {"embeddings": "projector", "probs": "head"}
        parts = tuple(needed[view.output] for view in views)
        found.append(Forward("teacher", image, ("backbone", *parts)))
    for name in pass_names(cfg):
        image, _, parts_text = PASSES.get(name).forward_of.partition(": ")
        found.append(Forward("student", image, tuple(parts_text.split(", "))))
    if cfg.FEATURE_DISTANCE.WEIGHT > 0 and carrying_pass(cfg) is not None:
        found.append(Forward("ImageNet", "source image", ("backbone",)))
    return found


class Counted:
    """A network on the meta device; each of its forwards is counted once.

    Args:
        cfg: its weights are not loaded.
    """

    def __init__(self, cfg: CfgNode) -> None:
        untrained = cfg.clone()
        untrained.defrost()
        untrained.MODEL.BACKBONE.WEIGHTS = ""
        with on_meta_device():
            model = build_segmentation_model(untrained, NUM_CLASSES)
            self.branch = Branch(model)
            if META_ARCHS.get(cfg.META_ARCH.NAME).has_projector:
                projector = Projector.from_config(cfg, model.feature_specs)
                self.branch = Branch(model, projector, cfg.MODEL.PROJECTOR.LEVEL)
            self.image = torch.empty(cfg.SOLVER.BATCH_SIZE, 3, *cfg.DATA.CROP_SIZE)
        self._operations: dict[tuple[str, ...], float] = {}
        self._kept: dict[tuple[str, ...], int] = {}

    def operations(self, networks: tuple[str, ...], trained: bool) -> float:
        """Of one forward; with its backward, which takes twice as many, if it is trained.

        Each product of a forward has two in the backward, by its input and by its weights. They
        are not counted one by one: there PyTorch's counter takes grouped convolutions for full
        ones.
        """
        if networks not in self._operations:
            self.branch.eval()
            with (
                torch.no_grad(),
                sdpa_kernel(SDPBackend.MATH),
                FlopCounterMode(display=False) as counter,
            ):
                self._outputs(networks)
            self._operations[networks] = float(counter.get_total_flops())
        return self._operations[networks] * (1 + BACKWARD * trained)

    def kept(self, networks: tuple[str, ...]) -> int:
        """Bytes that a pass keeps for its backward, attention by a fused kernel."""
        if networks not in self._kept:
            with attention_counted():
                run = partial(self._outputs, networks)
                self._kept[networks] = kept_bytes(self.branch.train(), run)
        return self._kept[networks]

    def gathered(self, num_domains: int) -> int:
        """Bytes of embeddings and labels of so many domains, on the projector's grid."""
        if not isinstance(self.branch.projector, Projector):
            return 0
        stride, (batch, _, height, width) = self.branch.embedding_spec.stride, self.image.shape
        cells = batch * (height // stride) * (width // stride)
        return num_domains * cells * (FLOAT * self.branch.projector.channels + LABEL)

    def _outputs(self, networks: tuple[str, ...]) -> list[Tensor]:
        features = self.branch.model.features(self.image, torch.Generator().manual_seed(0))
        outputs = [self.branch.model.logits(features)] if "head" in networks else []
        if "projector" in networks:
            outputs.append(self.branch.embed(features))
        return outputs or [features.deepest]


_counted: dict[str, Counted] = {}


def counted(cfg: CfgNode) -> Counted:
    """The same for configurations of the same network, batch and crop."""
    has_projector = META_ARCHS.get(cfg.META_ARCH.NAME).has_projector
    key = str((cfg.MODEL, cfg.SOLVER.BATCH_SIZE, cfg.DATA.CROP_SIZE, has_projector))
    if key not in _counted:
        _counted[key] = Counted(cfg)
    return _counted[key]


def cost_of(cfg: CfgNode) -> Cost:
    """Counted on shapes alone."""
    forwards, network = forwards_of(cfg), counted(cfg)
    trained = sum(parameter.numel() for parameter in network.branch.parameters())
    encoder = sum(parameter.numel() for parameter in network.branch.model.backbone.parameters())
    with_teacher = META_ARCHS.get(cfg.META_ARCH.NAME).has_teacher
    with_encoder = any(forward.who == "ImageNet" for forward in forwards)
    embedded = sum(view.output == "embeddings" for view in teacher_views(cfg))
    return Cost(
        forwards=tuple(forwards),
        operations=sum(network.operations(each.networks, each.trained) for each in forwards),
        kept=max(network.kept(each.networks) for each in forwards if each.trained),
        # Weights, gradients and the two moments of AdamW; the teacher's weights; the encoder's.
        held=FLOAT * (4 * trained + with_teacher * trained + with_encoder * encoder),
        reduced=FLOAT * trained,
        gathered=network.gathered(embedded),
    )


def paper_tables() -> str:
    """Of the paper's setting, GTA5 to Cityscapes."""
    lines = [
        "| network | method | student | teacher | ImageNet | TFLOP | kept GiB | held GiB | "
        "reduced MiB | gathered MiB |",
        "| --- | --- |" + " ---: |" * 8,
    ]
    for network in NETWORKS:
        for method in METHODS:
            path = CONFIGS / f"{method}_{network}.yaml"
            if path.exists():
                cells = row_of(cost_of(load_config(path)))
                lines.append(f"| {network} | {method} | {cells} |")
    return "\n".join(lines)


def row_of(cost: Cost) -> str:
    """Cells of the table."""
    counts = [str(cost.count(who)) for who in ("student", "teacher", "ImageNet")]
    sizes = [cost.kept / 2**30, cost.held / 2**30]
    moved = [cost.reduced / 2**20, cost.gathered / 2**20]
    return " | ".join(
        [
            *counts,
            f"{cost.operations / 1e12:.2f}",
            *(f"{size:.2f}" for size in sizes),
            *(f"{size:.0f}" for size in moved),
        ]
    )


def check(config: str, rounds: int) -> Ratio:
    """Fit on two crops, predict the third, print all."""
    crops = (*FITTED, CHECKED)
    configs = [load_config(config, ["DATA.CROP_SIZE", str(list(crop))]) for crop in crops]
    work = [cost_of(cfg).operations for cfg in configs]
    seconds = measured([_step(cfg) for cfg in configs], rounds)
    overhead, rate = line_through(work[:2], seconds[:2])
    predicted = overhead + work[2] / rate
    print(f"{config}: {1000 * overhead:.0f} ms + operations / {rate / 1e9:.1f} GFLOP/s")
    for crop, own, taken in zip(crops, work, seconds, strict=True):
        print(f"  {crop[0]}x{crop[1]}: {own / 1e9:.1f} GFLOP, measured {1000 * taken:.0f} ms")
    print(f"  predicted for the last one {1000 * predicted:.0f} ms")
    detail = f"{1000 * predicted:.0f} ms, measured {1000 * seconds[2]:.0f} ms"
    return Ratio(
        f"cost model, {config} at {CHECKED[0]}x{CHECKED[1]}: predicted / measured",
        predicted / seconds[2],
        detail,
        at_least=1 - WITHIN,
        at_most=1 + WITHIN,
    )


def line_through(work: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Overhead in seconds, and operations a second."""
    rate = (work[1] - work[0]) / (seconds[1] - seconds[0])
    return seconds[0] - work[0] / rate, rate


def measured(steps: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """Medians of seconds of this process, of each, in turns after a round to warm up."""
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds + 1):
        for step, own in zip(steps, taken, strict=True):
            began = time.process_time()
            step()
            own.append(time.process_time() - began)
    return [statistics.median(own[1:]) for own in taken]


def _step(cfg: CfgNode) -> Callable[[], None]:
    trainer, batch = build(cfg)
    numbers = itertools.count()

    def step() -> None:
        trainer.run_step(next(numbers), iter([batch]))

    return step


if __name__ == "__main__":
    sys.exit(main())
