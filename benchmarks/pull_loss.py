"""The pull loss and the image operations of a step, beside plain implementations, in one run.

The peer of the pull loss is a transcription of the paper's Algorithm 1: a loop over classes,
NumPy's percentile and `np.random.choice`, autograd for the rest; its slips are mended as
docs/fidelity.md says (B1 to B5). Both get the same embeddings on DeepLabV2's grid, 2 x 64 x 64
positions of 256 channels, and labels in Cityscapes' proportions. Rounds are interleaved; medians
are printed. The training step is that of DeepLabV2 with ResNet-101 on random weights; at a smaller
crop than 512 its time is scaled by the number of pixels, as that of convolutions is.

    python benchmarks/pull_loss.py --step-crop 256
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from train_step import build

from t2sda.config import load_config
from t2sda.data.translation.fda import fourier_adapt
from t2sda.losses.augmentation import ColorJitter, color_jitter, gaussian_blur
from t2sda.losses.mixing import class_mix, class_mix_mask
from t2sda.losses.negatives import unreliable_labels
from t2sda.losses.pseudo_labels import confidence_threshold
from t2sda.losses.pull import LabelledEmbeddings, PullLoss
from t2sda.losses.reweighting import class_confidence, dynamic_class_weights

NUM_CLASSES, CHANNELS, GRID, CROP = 19, 256, 64, 512
CITYSCAPES_SHARES = (
    *(36.9, 6.1, 22.8, 0.66, 0.88, 1.23, 0.21, 0.55, 15.9, 1.16),
    *(4.0, 1.22, 0.14, 7.0, 0.27, 0.24, 0.23, 0.10, 0.41),
)
"""Per cent of the labelled pixels, by train id; rounded from the dataset's statistics."""
TEMPERATURE, EXPONENT, UNRELIABLE_FRACTION, N, M = 0.2, 0.5, 0.5, 128, 1024


class Scene(NamedTuple):
    """What both implementations are given."""

    query_embeddings: Tensor  # (2, D, h, w), student on translated images
    source_embeddings: Tensor  # (2, D, h, w), teacher
    target_embeddings: Tensor  # (2, D, h, w), teacher
    target_logits: Tensor  # (2, C, h, w), teacher
    labels: Tensor  # (2, h, w)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--step-crop", type=int, default=0, help="crop of the training step; 0: leave it out"
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (Algorithm 1 draws from NumPy's global generator)
    scene = drawn_scene()
    print(f"{torch.get_num_threads()} thread(s), median of {args.rounds} interleaved rounds")
    print_means(scene)
    ours, _ = compare(
        "pull loss, forward and backward",
        lambda: backward(ours_of, scene),
        lambda: backward(algorithm_1, scene),
        args.rounds,
    )
    compare_image_operations(args.rounds)
    if args.step_crop:
        step = training_step(args.step_crop) * (CROP / args.step_crop) ** 2
        print(
            f"training step of DeepLabV2/ResNet-101, 2 + 2 images of 512 x 512: {step:.1f} s "
            f"(measured at {args.step_crop}); the pull loss is {100 * ours / step:.2f} % of it"
        )
    return 0


def drawn_scene() -> Scene:
    """Embeddings as after a ReLU, labels in blocks, logits that mostly agree with other labels."""
    queries, source, target = (torch.randn(2, CHANNELS, GRID, GRID).relu() for _ in range(3))
    labels, predicted = drawn_labels(), drawn_labels()
    sureness = 6 * torch.rand(2, 1, GRID, GRID)
    logits = F.one_hot(predicted, NUM_CLASSES).movedim(-1, 1) * sureness
    return Scene(queries, source, target, logits + torch.randn(logits.shape), labels)


def drawn_labels() -> Tensor:
    """(2, h, w) labels in blocks of 2 x 2, in the proportions of Cityscapes."""
    shape = (2, GRID // 2, GRID // 2)
    blocks = torch.multinomial(torch.tensor(CITYSCAPES_SHARES), math.prod(shape), replacement=True)
    return blocks.view(shape).repeat_interleave(2, 1).repeat_interleave(2, 2)


def backward(loss: Callable[[Scene], Tensor], scene: Scene) -> None:
    """Forward and backward to the student's embeddings."""
    queries = scene.query_embeddings.detach().requires_grad_()
    loss(scene._replace(query_embeddings=queries)).backward()


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
    source = LabelledEmbeddings(scene.source_embeddings, scene.labels)
    return PullLoss(TEMPERATURE, N, M, prototype_norm=prototype_norm)(
        scene.query_embeddings,
        scene.labels,
        positives=source,
        source_keys=source,
        target_keys=LabelledEmbeddings(
            scene.target_embeddings, unreliable_labels(pseudo_labels, confidence, threshold)
        ),
        class_weights=dynamic_class_weights(conf, EXPONENT),
        generator=torch.Generator().manual_seed(seed),
    )


def algorithm_1(scene: Scene) -> Tensor:
    """Lines 12 to 62 of the supplement's Algorithm 1."""
    num_cls, label_src = NUM_CLASSES, scene.labels
    feat_ptrg = scene.query_embeddings
    feat_ptrg = feat_ptrg / torch.norm(feat_ptrg, dim=1, keepdim=True)
    feat_ptrg = feat_ptrg.permute(0, 2, 3, 1)
    with torch.no_grad():
        feat_src, feat_trg = scene.source_embeddings, scene.target_embeddings
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


def compare_image_operations(rounds: int) -> None:
    """FDA at 512 x 1024, the rest at 512 x 512, one image each."""
    dice = np.random.default_rng(0)
    source, target = dice.integers(0, 256, (2, CROP, 2 * CROP, 3), dtype=np.uint8)
    compare(
        "FDA, 512 x 1024",
        lambda: fourier_adapt(source, target, 0.01),
        lambda: plain_fda(source, target, 0.01),
        rounds,
    )
    image, other = torch.from_numpy(dice.random((2, 1, 3, CROP, CROP), dtype=np.float32) * 255)
    labels = drawn_labels()[:1].repeat_interleave(8, 1).repeat_interleave(8, 2)
    generator = torch.Generator().manual_seed(0)
    compare(
        "ClassMix of image and label, 512 x 512",
        lambda: mixed_by_us(image, other, labels, generator),
        lambda: plain_class_mix(image, other, labels),
        rounds,
    )
    jitter = ColorJitter(0.1, 1.1, 0.9, -0.1)
    jitter_gap = color_jitter(image[0], jitter) - plain_jitter(image[0], jitter)
    fda_gap = fourier_adapt(source, target, 0.01) - plain_fda(source, target, 0.01)
    print(
        f"largest difference to the plain ones, of 255: FDA {np.abs(fda_gap).max():.4f}, "
        f"jitter {jitter_gap.abs().max():.4f}"
    )
    compare(
        "jitter and blur, 512 x 512",
        lambda: gaussian_blur(color_jitter(image[0], jitter), 0.8),
        lambda: plain_blur(plain_jitter(image[0], jitter), 0.8),
        rounds,
    )


def mixed_by_us(
    image: Tensor, other: Tensor, labels: Tensor, generator: torch.Generator
) -> list[Tensor]:
    """Mask, image and label."""
    mask = class_mix_mask(labels, generator)
    return [class_mix(image, other, mask), class_mix(labels, labels, mask)]


def plain_fda(source: np.ndarray, target: np.ndarray, window: float) -> np.ndarray:
    """Full transforms of every channel, the amplitude's centre exchanged."""
    spectra = [np.fft.fft2(image.astype(np.float64), axes=(0, 1)) for image in (source, target)]
    amplitudes = [np.fft.fftshift(np.abs(spectrum), axes=(0, 1)) for spectrum in spectra]
    height, width = source.shape[:2]
    reach = math.floor(min(height, width) * window)
    rows = slice(height // 2 - reach, height // 2 + reach + 1)
    columns = slice(width // 2 - reach, width // 2 + reach + 1)
    amplitudes[0][rows, columns] = amplitudes[1][rows, columns]
    amplitude = np.fft.ifftshift(amplitudes[0], axes=(0, 1))
    return np.fft.ifft2(amplitude * np.exp(1j * np.angle(spectra[0])), axes=(0, 1)).real


def plain_class_mix(image: Tensor, other: Tensor, labels: Tensor) -> list[Tensor]:
    """A mask for each class, added up; then mask * source + (1 - mask) * target."""
    results = []
    classes = torch.unique(labels)
    picked = classes[torch.randperm(len(classes))[: (len(classes) + 1) // 2]]
    for one, two, label in zip(image, other, labels, strict=True):
        mask = (label[None] == picked[:, None, None]).sum(dim=0)
        results += [mask * one + (1 - mask) * two, mask * label + (1 - mask) * label]
    return results


def plain_jitter(image: Tensor, jitter: ColorJitter) -> Tensor:
    """On [0, 1], with a conversion to HSV and back for saturation and for hue."""
    image = image / 255
    image = (image + jitter.brightness).clamp(0, 1)
    image = (image * jitter.contrast).clamp(0, 1)
    hue, saturation, value = to_hsv(image)
    image = to_rgb(hue, (saturation * jitter.saturation).clamp(0, 1), value)
    hue, saturation, value = to_hsv(image)
    return to_rgb((hue + jitter.hue) % 1, saturation, value) * 255


def to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(3, H, W) in [0, 1] -> hue in turns, saturation, value."""
    value, where = image.max(dim=0)
    chroma = value - image.min(dim=0).values
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    red, green, blue = ((value - channel) / safe for channel in image)
    sectors = torch.stack([blue - green, 2 + red - blue, 4 + green - red])
    hue = sectors.gather(0, where[None])[0] / 6 % 1
    return hue, chroma / (value + 1e-8), value


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Back, by the six cases of the sector."""
    sector = torch.floor(hue * 6) % 6
    fraction = hue * 6 - torch.floor(hue * 6)
    p, q = value * (1 - saturation), value * (1 - fraction * saturation)
    t = value * (1 - (1 - fraction) * saturation)
    cases = [
        torch.stack(case)
        for case in ((value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value))
    ]
    cases.append(torch.stack((value, p, q)))
    index = sector.long()[None, None].expand(1, 3, *sector.shape)
    return torch.stack(cases).gather(0, index)[0]


def plain_blur(image: Tensor, sigma: float) -> Tensor:
    """The baseline's kernel size, a tenth of the image, in two one-dimensional convolutions."""
    reach = 25
    taps = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).expand(3, 1, -1)
    padded = F.pad(image[None], (reach, reach, reach, reach), mode="reflect")
    blurred = F.conv2d(padded, taps[:, :, None, :], groups=3)
    return F.conv2d(blurred, taps[:, :, :, None], groups=3)[0]


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
    return min(
        [seconds_of(lambda: trainer.run_step(next(steps), iter([batch]))) for _ in "123"][1:]
    )


def compare(
    name: str, ours: Callable[[], object], plain: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Print and return the medians of both, in seconds."""
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for round_ in range(rounds + 2):  # two to warm up
        for key, action in (("ours", ours), ("plain", plain)):
            took = seconds_of(action)
            if round_ >= 2:
                seconds[key].append(took)
    own, other = (statistics.median(values) for values in seconds.values())
    print(f"{name:<40} {1e3 * own:8.2f} ms, plain {1e3 * other:8.2f} ms: {other / own:.1f} x")
    return own, other


def seconds_of(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
