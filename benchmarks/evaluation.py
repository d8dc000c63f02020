"""What scoring costs, beside its peers, with one thread.

First the confusion matrix of predictions of 1024 x 2048 pixels, of a drawn street that is shifted
by some pixels and of random blocks with a tenth of the pixels wrong: ours, that of
cityscapesscripts (its Python way, the one its wheel has; label ids in files without compression, as
it reads files) and that of torchmetrics (int64 tensors, made before, without its checks).

Then a SegFormer-B0 on random weights, by sliding windows over one image of that size. The peer does
what mmsegmentation does: the logits of every window are padded to the size of the image and added
up, then divided by a matrix of counts.

Rounds are interleaved; medians are printed, of seconds in which the process computed, so that what
else runs on the machine is left out. Memory is the largest resident set of a process of its
own, above what it held before it scored; a float copy of (19, 1024, 2048) is 152 MiB.

    python -m benchmarks.evaluation
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import t2sda.builtin  # noqa: F401  (fills the registries)
from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.evaluation.confusion import confusion_matrix
from t2sda.evaluation.entries import Protocol
from t2sda.evaluation.views import Views
from t2sda.inference.results import CITYSCAPES_LABEL_IDS, label_ids
from t2sda.inference.windows import windows
from t2sda.modeling.backbones.timm_import import declare_missing_torchvision_operators
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.streets import draw_street
from t2sda.structures import IGNORE_INDEX

SIZE = (1024, 2048)
WINDOWS = {1024: 768, 512: 341}
"""Side of the windows, and the step: of SegFormer on Cityscapes, and on smaller images."""
LEAST = 0.5
"""Seconds that are timed at once."""
TARGETS = {"torchmetrics": 2.0, "cityscapesscripts": 20.0}
"""How many times as fast as these."""
NETWORK = "models/segformer_mit_b0.yaml"
NUM_CLASSES = CITYSCAPES_19.num_classes

Score = Callable[[], np.ndarray]
Scene = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Gives prediction and label."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of counting; a third of windows")
    parser.add_argument("--alone", choices=MAKERS, help=argparse.SUPPRESS)
    add_ratios_argument(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if args.alone:
        print(peak_above(MAKERS[args.alone]()))
        return 0
    ratios: list[Ratio] = []
    for makers in COUNTING.values():
        ratios += report("counting, images a CPU second", makers, args.rounds)
    for pair in SLIDING.values():
        ratios += report("sliding, images a CPU second", pair, max(args.rounds // 3, 1))
    save_ratios(args.ratios, ratios)
    return 0


def report(title: str, makers: Mapping[str, Callable[[], Score]], rounds: int) -> list[Ratio]:
    """Times of all in turns, and the peak of each in a process of its own.

    Returns:
        What ours is beside each of the others.
    """
    scores = {name: make() for name, make in makers.items()}
    results = {name: score() for name, score in scores.items()}
    calls = {name: max(round(LEAST / timed(score, 1)), 1) for name, score in scores.items()}
    ours = next(iter(results))
    times: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(rounds):
        for name, score in scores.items():
            times[name].append(timed(score, calls[name]))
    print(
        f"\n| {title} | | ours is | peak MiB | same result |\n| --- | ---: | ---: | ---: | ---: |"
    )
    fastest = statistics.median(times[ours])
    ratios: list[Ratio] = []
    peaks = {name: peak_of(name) for name in times}
    for name, own in times.items():
        median = statistics.median(own)
        same = (results[name] == results[ours]).mean()
        print(
            f"| {name} | {1 / median:.2f} | {median / fastest:.1f} x | {peaks[name]:.0f} | "
            f"{100 * same:.3f} % |"
        )
        if name != ours:
            ratios.append(
                Ratio(
                    f"scoring beside {name}: times as fast",
                    median / fastest,
                    f"{1000 * fastest:.1f} ms and {peaks[ours]:.0f} MiB, "
                    f"{1000 * median:.1f} ms and {peaks[name]:.0f} MiB",
                    at_least=TARGETS.get(name.partition(",")[0]),
                )
            )
    return ratios


def timed(score: Score, calls: int) -> float:
    """Seconds that this process computed, of one of so many calls."""
    begin = time.process_time()
    for _ in range(calls):
        score()
    return (time.process_time() - begin) / calls


def peak_of(name: str) -> float:
    """MiB, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--alone", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_above(score: Score) -> float:
    """MiB of the largest resident set while it scores, above that before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    score()
    return memory("VmHWM") - before


def memory(key: str) -> float:
    """MiB of a line of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def street() -> tuple[np.ndarray, np.ndarray]:
    """Train ids (H, W) uint8: wrong along the borders of things, as predictions are."""
    label = np.array(draw_street("hazy", 9, 0, SIZE)[1])
    prediction = np.roll(label, (5, 9), (0, 1))
    prediction[prediction == IGNORE_INDEX] = 0
    return prediction, label


def noise() -> tuple[np.ndarray, np.ndarray]:
    """Train ids (H, W) uint8: blocks of 16 pixels, a margin without label."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, NUM_CLASSES, (SIZE[0] // 16, SIZE[1] // 16), dtype=np.uint8)
    label = np.kron(blocks, np.ones((16, 16), dtype=np.uint8))
    wrong = random.random(SIZE) < 0.1
    prediction = np.where(wrong, random.integers(0, NUM_CLASSES, SIZE), label).astype(np.uint8)
    label[:64] = IGNORE_INDEX
    return prediction, label


def ours(scene: Scene) -> Score:
    """As an evaluation counts."""
    prediction, label = scene()
    return lambda: confusion_matrix(prediction, label, NUM_CLASSES)


def torchmetrics(scene: Scene) -> Score:
    """As its functions and its metrics do."""
    declare_missing_torchvision_operators()  # it imports torchvision, as timm does
    module = importlib.import_module("torchmetrics.functional.classification")
    prediction, label = (torch.from_numpy(own).long() for own in scene())

    def score() -> np.ndarray:
        return module.multiclass_confusion_matrix(
            prediction, label, NUM_CLASSES, ignore_index=IGNORE_INDEX, validate_args=False
        ).numpy()

    return score


def cityscapesscripts(scene: Scene) -> Score:
    """As the benchmark's own script does, without its scores of instances."""
    module = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    module.args.evalInstLevelScore = module.args.evalPixelAccuracy = False
    ids = list(CITYSCAPES_LABEL_IDS.values())
    module.args.evalLabels = [0, *ids]
    folder = tempfile.mkdtemp()
    paths = [str(Path(folder, f"{name}.pgm")) for name in ("prediction", "label")]
    for path, own in zip(paths, scene(), strict=True):
        cv2.imwrite(path, label_ids(own, CITYSCAPES_19))

    def score() -> np.ndarray:
        counts = module.generateMatrix(module.args)
        module.evaluatePair(*paths, counts, {}, {}, module.args)
        return np.asarray(counts)[np.ix_(ids, ids)]

    return score


def network() -> SegmentationModel:
    """On random weights, the same in every process."""
    torch.manual_seed(0)
    cfg = load_config(NETWORK, ["MODEL.BACKBONE.WEIGHTS="])
    return build_segmentation_model(cfg, NUM_CLASSES).eval()


def image() -> np.ndarray:
    """(H, W, 3) uint8."""
    small = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def our_windows(side: int) -> Score:
    """As an evaluation does."""
    protocol = Protocol(window=(side, side), step=(WINDOWS[side], WINDOWS[side]))
    predictor = TorchPredictor(network(), CITYSCAPES_19, None, torch.device("cpu"))
    views, shown = Views(predictor, protocol), image()
    return lambda: views(shown).labels


def mmsegmentation(side: int) -> Score:
    """Padded logits of every window, added up and divided by a matrix of counts."""
    model = network()
    shown = torch.from_numpy(image().transpose(2, 0, 1).copy())[None]

    @torch.inference_mode()
    def score() -> np.ndarray:
        total: Tensor = torch.zeros(1, NUM_CLASSES, *SIZE)
        count = torch.zeros(1, 1, *SIZE)
        for seen, _ in windows(SIZE, (side, side), (WINDOWS[side], WINDOWS[side])):
            bottom, right = seen.top + seen.height, seen.left + seen.width
            logits = model(shown[..., seen.top : bottom, seen.left : right].contiguous())
            total += F.pad(logits, (seen.left, SIZE[1] - right, seen.top, SIZE[0] - bottom))
            count[..., seen.top : bottom, seen.left : right] += 1
        return (total / count).argmax(dim=1)[0].to(torch.uint8).numpy()

    return score


COUNTING = {
    scene.__name__: {
        f"{count.__name__}, {scene.__name__}": partial(count, scene)
        for count in (ours, torchmetrics, cityscapesscripts)
    }
    for scene in (street, noise)
}
SLIDING = {
    side: {
        f"ours, windows of {side}": partial(our_windows, side),
        f"mmsegmentation's way, windows of {side}": partial(mmsegmentation, side),
    }
    for side in WINDOWS
}
MAKERS = {
    name: make for pairs in (*COUNTING.values(), *SLIDING.values()) for name, make in pairs.items()
}

if __name__ == "__main__":
    sys.exit(main())
