"""What the pull loss costs beside Algorithm 1 and beside a training step, and what it holds.

The peer is a transcription of the paper's Algorithm 1: a loop over classes, NumPy's percentile and
`np.random.choice`; its slips are corrected as docs/fidelity.md says (B1 to B5). Both get the same
embeddings on DeepLabV2's grid, 2 x 64 x 64 positions of 256 channels, and labels in Cityscapes'
proportions. Rounds are interleaved; medians are printed. Then ours alone, with the keys of 8 ranks.
The training step is that of DeepLabV2 with ResNet-101 on random weights; at a smaller crop than 512
its time is scaled by the number of pixels, as that of convolutions is.

    python -m benchmarks.pull_loss --step-crop 256
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from benchmarks.train_step import build, peak, timed
from t2sda.config import load_config
from t2sda.losses.pseudo_labels import confidence_threshold, unreliable_labels
from t2sda.losses.pull import Keys, PullLoss
from t2sda.losses.reweighting import class_confidence, dynamic_class_weights
from t2sda.structures import IGNORE_INDEX

NUM_CLASSES, CHANNELS, GRID, CROP, IMAGES, RANKS = 19, 256, 64, 512, 2, 8
CITYSCAPES_SHARES = (
    *(36.9, 6.1, 22.8, 0.66, 0.88, 1.23, 0.21, 0.55, 15.9, 1.16),
    *(4.0, 1.22, 0.14, 7.0, 0.27, 0.24, 0.23, 0.10, 0.41),
)
"""Per cent of the labelled pixels, by train id; rounded from the dataset's statistics."""
FASTER, SHARE = 5.0, 5.0
"""Than Algorithm 1; of a training step, in %."""
TEMPERATURE, EXPONENT, UNRELIABLE_FRACTION, N, M = 0.2, 0.5, 0.5, 128, 1024


class Scene(NamedTuple):
    """What both implementations are given."""

    queries: Tensor  # (B, D, h, w), student on translated images
    source: Tensor  # (B, D, h, w), teacher
    target: Tensor  # (B, D, h, w), teacher
    target_logits: Tensor  # (B, C, h, w), teacher
    labels: Tensor  # (B, h, w)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--step-crop", type=int, default=0, help="crop of the training step; 0: leave it out"
    )
    add_ratios_argument(parser)
    args = parser.parse_args()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (Algorithm 1 draws from NumPy's global generator)
    scene = drawn_scene()
    print(f"{torch.get_num_threads()} thread(s), median of {args.rounds} interleaved rounds")
    print_means(scene)
    one_rank, many_ranks = Gathered(1), Gathered(RANKS)
    ours, plain, one, many = medians(
        [
            lambda: backward(ours_of, scene),
            lambda: backward(algorithm_1, scene),
            one_rank.run,
            many_ranks.run,
        ],
        args.rounds,
    )
    print(f"from logits on: ours {1e3 * ours:.1f} ms, Algorithm 1 {1e3 * plain:.1f} ms")
    ratios = [
        Ratio(
            "pull loss beside Algorithm 1: times as fast",
            plain / ours,
            f"{1e3 * ours:.0f} ms, Algorithm 1 {1e3 * plain:.0f} ms",
            at_least=FASTER,
        )
    ]
    for ranks, seconds, loss in ((1, one, one_rank), (RANKS, many, many_ranks)):
        given, extra = loss.given / 2**20, peak(loss.run) / 2**20
        print(
            f"the loss with the keys of {ranks} rank(s): {1e3 * seconds:.1f} ms; it is given "
            f"{given:.0f} MiB and adds {extra:.0f} MiB at its peak: {given + extra:.0f} MiB"
        )
    if args.step_crop:
        step = training_step(args.step_crop) * (CROP / args.step_crop) ** 2
        print(
            f"training step of DeepLabV2/ResNet-101, 2 + 2 images of 512 x 512: {step:.1f} s "
            f"(measured at {args.step_crop}); the pull loss is {100 * one / step:.2f} % of it, "
            f"with the keys of {RANKS} ranks {100 * many / step:.2f} %"
        )
        what = "pull loss, share of a step of DeepLabV2 with ResNet-101"
        detail = f"{1e3 * one:.0f} ms of {step:.0f} s"
        ratios.append(Ratio(what, 100 * one / step, detail, at_most=SHARE, unit="%"))
    save_ratios(args.ratios, ratios)
    return 0


class Gathered:
    """The loss of one rank that holds the keys of all of them."""

    def __init__(self, ranks: int) -> None:
        rows = ranks * IMAGES * GRID**2
        self.queries = torch.randn(IMAGES, CHANNELS, GRID, GRID).relu()
        labels, predicted = (drawn_labels(ranks * IMAGES).flatten() for _ in range(2))
        predicted[torch.rand(rows) > UNRELIABLE_FRACTION] = IGNORE_INDEX
        self.source = Keys(torch.randn(rows, CHANNELS).relu(), labels)
        self.target = Keys(torch.randn(rows, CHANNELS).relu(), predicted)
        self.given = sum(t.nbytes for t in (self.queries, *self.source, *self.target))

    def run(self) -> None:
        """Forward and backward."""
        queries = self.queries.detach().requires_grad_()
        rows = queries.movedim(1, -1).flatten(0, -2)
        PullLoss(TEMPERATURE, N, M)(
            rows,
            self.source.labels,
            self.source,
            self.source,
            self.target,
            torch.full((NUM_CLASSES,), 1 / NUM_CLASSES),
            torch.Generator().manual_seed(0),
        ).backward()


def drawn_scene() -> Scene:
    """Embeddings as after a ReLU, labels in blocks, logits that mostly agree with other labels."""
    queries, source, target = (torch.randn(IMAGES, CHANNELS, GRID, GRID).relu() for _ in range(3))
    sureness = 6 * torch.rand(IMAGES, 1, GRID, GRID)
    logits = F.one_hot(drawn_labels(IMAGES), NUM_CLASSES).movedim(-1, 1) * sureness
    logits += torch.randn(logits.shape)
    return Scene(queries, source, target, logits, drawn_labels(IMAGES))


def drawn_labels(images: int) -> Tensor:
    """(B, h, w) labels in blocks of 2 x 2, in the proportions of Cityscapes."""
    shape = (images, GRID // 2, GRID // 2)
    blocks = torch.multinomial(torch.tensor(CITYSCAPES_SHARES), math.prod(shape), replacement=True)
    return blocks.view(shape).repeat_interleave(2, 1).repeat_interleave(2, 2)


def backward(loss: Callable[[Scene], Tensor], scene: Scene) -> None:
    """Forward and backward to the student's embeddings."""
    queries = scene.queries.detach().requires_grad_()
    loss(scene._replace(queries=queries)).backward()


def print_means(scene: Scene, draws: int = 20) -> None:
    """Both losses, with Algorithm 1's prototypes in ours, and the standard error of the means."""
    values = {
        "ours": [ours_of(scene, "before", seed).item() for seed in range(draws)],
        "Algorithm 1": [algorithm_1(scene).item() for _ in range(draws)],
    }
    for name, losses in values.items():
        error = statistics.stdev(losses) / draws**0.5
        print(f"mean loss of {draws} draws, {name}: {statistics.mean(losses):.4f} ± {error:.4f}")


def ours_of(scene: Scene, prototype_norm: str = "after", seed: int = 0) -> Tensor:
    """Ours, with re-weighting and threshold, as a step runs it."""
    confidence, pseudo_labels = scene.target_logits.softmax(dim=1).max(dim=1)
    conf = class_confidence(confidence, pseudo_labels, NUM_CLASSES)
    threshold = confidence_threshold(confidence, UNRELIABLE_FRACTION)
    source = Keys.from_grid(scene.source, scene.labels)
    return PullLoss(TEMPERATURE, N, M, prototype_norm=prototype_norm)(
        Keys.from_grid(scene.queries, scene.labels).embeddings,
        source.labels,
        positives=source,
        source_keys=source,
        target_keys=Keys.from_grid(
            scene.target, unreliable_labels(pseudo_labels, confidence, threshold)
        ),
        class_weights=dynamic_class_weights(conf, EXPONENT),
        generator=torch.Generator().manual_seed(seed),
    )


def algorithm_1(scene: Scene) -> Tensor:
    """Lines 12 to 62 of the supplement's Algorithm 1."""
    num_cls, label_src = NUM_CLASSES, scene.labels
    feat_ptrg = scene.queries
    feat_ptrg = feat_ptrg / torch.norm(feat_ptrg, dim=1, keepdim=True)
    feat_ptrg = feat_ptrg.permute(0, 2, 3, 1)
    with torch.no_grad():
        feat_src, feat_trg = scene.source, scene.target
        feat_src = (feat_src / torch.norm(feat_src, dim=1, keepdim=True)).permute(0, 2, 3, 1)
        feat_trg = (feat_trg / torch.norm(feat_trg, dim=1, keepdim=True)).permute(0, 2, 3, 1)
        conf_trg, label_trg = torch.max(torch.softmax(scene.target_logits, dim=1), dim=1)
        conf_thresh = float(np.percentile(conf_trg.numpy().flatten(), 100 * UNRELIABLE_FRACTION))
        conf = torch.stack([conf_trg[label_trg == cls].mean() for cls in range(num_cls)])
        conf = conf.nan_to_num(0.0)
        weight = ((1 - conf) / (1 - conf).max()) ** EXPONENT
        weight /= weight.sum()
        prototype = [feat_src[label_src == cls].mean(dim=0) for cls in range(num_cls)]
        distribution = torch.stack([(label_src == cls).sum() for cls in range(num_cls)]).double()
        distribution /= distribution.sum()
    loss = feat_ptrg.sum() * 0
    for cls in range(num_cls):
        query_cls = feat_ptrg[label_src == cls]
        if len(query_cls) == 0:
            continue
        n_q = math.ceil(N * num_cls * distribution[cls].item())
        query_select = query_cls[choice(len(query_cls), n_q)]
        neg_src = feat_src[label_src != cls]
        neg_trg = feat_trg[(label_trg != cls) * (conf_trg < conf_thresh)]
        src_idx, trg_idx = choice(len(neg_src), M // 2), choice(len(neg_trg), M // 2)
        neg_feat = torch.cat([neg_src[src_idx], neg_trg[trg_idx]], dim=0)
        neg_logits = torch.matmul(query_select, neg_feat.T)
        pos_logits = torch.matmul(query_select, prototype[cls].unsqueeze(1))
        logits = torch.cat([pos_logits, neg_logits], dim=1)
        answers = torch.zeros(len(logits)).long()
        loss = loss + weight[cls] * F.cross_entropy(logits / TEMPERATURE, answers)
    return loss


def choice(count: int, size: int) -> Tensor:
    """With replacement, NumPy's default."""
    return torch.from_numpy(np.random.choice(count, size))  # noqa: NPY002


def training_step(crop: int) -> float:
    """Seconds of `Trainer.run_step`, the shorter of two after one to warm up."""
    cfg = load_config(
        "configs/models/deeplabv2_r101.yaml",
        [
            *("MODEL.BACKBONE.WEIGHTS", "", "DATA.CROP_SIZE", f"[{crop}, {crop}]"),
            *("SOLVER.BATCH_SIZE", "2", "DATA.NUM_WORKERS", "0"),
            *("DATASETS.SOURCE", "streets_clear_train", "DATASETS.TARGET", "streets_hazy_train"),
            *("META_ARCH.NAME", "T2SDA", "TRANSLATION.NAME", "FDA"),
            *("HOOKS.NAMES", "[EmaTeacher, DynamicReweighting]"),
        ],
    )
    trainer, batch = build(cfg)
    steps = itertools.count()

    def step() -> None:
        trainer.run_step(next(steps), iter([batch]))

    return min([timed(step) for _ in range(3)][1:])


def medians(actions: list[Callable[[], None]], rounds: int) -> list[float]:
    """Seconds of each, interleaved, after two rounds to warm up."""
    seconds = [[timed(action) for action in actions] for _ in range(rounds + 2)][2:]
    return [statistics.median(column) for column in zip(*seconds, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
