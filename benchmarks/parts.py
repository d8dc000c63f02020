"""Where the time of a training step and of an inference goes, part by part.

Parts are methods of the live objects, timed as they are called; what is in none of them is `rest`.
One thread; on a CPU seconds of this process, so what else runs on the machine is left out; on a GPU
seconds after each part has finished. Medians of rounds.

    python -m benchmarks.parts --config-file configs/quickstart.yaml
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode

from benchmarks.train_step import build
from t2sda.config import load_config
from t2sda.data.domains import DomainPairs
from t2sda.data.samples import collate
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.data.transforms import resize_image
from t2sda.engine.trainer import Trainer
from t2sda.images import read_image
from t2sda.inference.results import write_png
from t2sda.inference.visualisation import overlay
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.streets import draw_street
from t2sda.structures import DomainBatch

REST = "rest"
WHAT = ("step", "data", "inference")


class Stopwatch:
    """Seconds by part; parts within a part count for the inner one alone."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = 0.0

    def now(self) -> float:
        """Seconds of this process; with a GPU, of the wall once it has nothing left to do."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, part: str, function: Callable[[], Any]) -> Any:
        """What `function` returns."""
        outer, self._inner, began = self._inner, 0.0, self.now()
        try:
            return function()
        finally:
            took = self.now() - began
            self.seconds[part] += took - self._inner
            self._inner = outer + took

    def watch_(self, owner: Any, method: str, part: str | Callable[..., str]) -> None:
        """Time a method of an object from now on; `part` may follow from its arguments."""
        original = getattr(owner, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            name = part(*args) if callable(part) else part
            return self.timed(name, lambda: original(*args, **kwargs))

        setattr(owner, method, watched)

    def round(self, function: Callable[[], Any]) -> Mapping[str, float]:
        """Seconds of all parts of one call; REST is what was in none."""
        self.seconds = defaultdict(float)
        self.timed(REST, function)
        return dict(self.seconds)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default="quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", nargs=2, type=int, default=[512, 1024], help="of inference")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = load_config(args.config_file, args.overrides)
    trainer, batch = build(cfg)
    if "step" in args.what:
        rounds = step_rounds(trainer, batch, args.rounds)
        print(table(f"{cfg.META_ARCH.NAME}, a step of {cfg.DATA.CROP_SIZE}", rounds))
    if "data" in args.what:
        print(table("data of a step, in loader processes", data_rounds(cfg, args.rounds)))
    if "inference" in args.what:
        model = trainer.meta_arch.student.model.eval()
        size = (args.size[0], args.size[1])
        print(table(f"inference of {size[0]}x{size[1]}", inference(model, size, args.rounds)))
    return 0


def step_rounds(trainer: Trainer, batch: DomainBatch, rounds: int) -> list[Mapping[str, float]]:
    """Steps on one batch, after one to warm up."""
    watch = Stopwatch(trainer.device)
    watch_step_(watch, trainer)
    return [
        watch.round(lambda number=number: trainer.run_step(number, iter([batch])))  # type: ignore[misc]
        for number in range(rounds + 1)
    ][1:]


def watch_step_(watch: Stopwatch, trainer: Trainer) -> None:
    """Time the parts of `Trainer.run_step`."""
    running = ["none"]

    def forward(pass_name: str, *_: object) -> str:
        running[0] = pass_name
        return f"pass {pass_name}: forward"

    watch.watch_(trainer.meta_arch, "teach", "teacher: forwards")
    watch.watch_(trainer.meta_arch, "forward", forward)
    watch.watch_(trainer.precision, "backward", lambda *_: f"pass {running[0]}: backward")
    watch.watch_(trainer, "_read_back", "finite check, metrics")
    watch.watch_(trainer, "_update", "optimizer")
    for hook in trainer.hooks:
        watch.watch_(hook, "after_teacher", f"hook {type(hook).__name__}")
        watch.watch_(hook, "after_step", f"hook {type(hook).__name__}")


def data_rounds(cfg: CfgNode, rounds: int) -> list[Mapping[str, float]]:
    """What loader processes do for a step, in this process."""
    pairs = DomainPairs.from_config(cfg)
    watch = Stopwatch(torch.device("cpu"))
    watch.watch_(pairs, "_translated", "translation")
    watch.watch_(pairs, "_target_at", "target: image, crop")
    count = cfg.SOLVER.BATCH_SIZE

    def batch(first: int) -> None:
        samples = [pairs[first + offset] for offset in range(count)]
        watch.timed("collate", lambda: collate(samples))

    return [watch.round(lambda first=count * index: batch(first)) for index in range(rounds)]  # type: ignore[misc]


def inference(
    model: SegmentationModel, size: tuple[int, int], rounds: int
) -> list[Mapping[str, float]]:
    """From a JPEG to an overlay as PNG, the network in PyTorch on its device."""
    device = next(model.parameters()).device
    watch = Stopwatch(device)
    predictor = TorchPredictor(model, CITYSCAPES_19, None, device)
    for name, module in (("backbone", model.backbone), ("head", model.head)):
        watch.watch_(module, "forward", name)
    watch.watch_(predictor, "_labels", "frames, upsampling, argmax")
    street = resize_image(draw_street("hazy", 9, 0, (256, 512))[0], size)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "street.jpg", Path(folder) / "overlay.png"
        write_jpeg(source, street)

        def whole() -> None:
            image = watch.timed("decode JPEG", lambda: read_image(source))
            labels = predictor.predict(image)
            drawn = watch.timed("draw overlay", lambda: overlay(image, labels, CITYSCAPES_19))
            watch.timed("encode PNG", lambda: write_png(target, drawn))

        return [watch.round(whole) for _ in range(rounds + 1)][1:]


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Of quality 95."""
    from PIL import Image

    Image.fromarray(image).save(path, quality=95)


def table(title: str, rounds: list[Mapping[str, float]]) -> str:
    """Medians, and each part's share of their sum."""
    medians = {name: statistics.median(own[name] for own in rounds) for name in rounds[0]}
    whole = sum(medians.values())
    lines = [f"\n| {title} | ms | share |", "| --- | ---: | ---: |"]
    lines += [
        f"| {name} | {1000 * seconds:.1f} | {seconds / whole:.1%} |"
        for name, seconds in medians.items()
    ]
    return "\n".join([*lines, f"| all | {1000 * whole:.1f} | |"])


if __name__ == "__main__":
    sys.exit(main())
