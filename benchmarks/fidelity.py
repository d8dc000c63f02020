"""Figures of docs/fidelity.md, section E: what each correction changes, on drawn streets.

No training: a teacher that predicts the labels themselves with a given confidence stands for a good
one, so that the figures say what the rule does and not what a run happened to learn.

    python benchmarks/fidelity.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401  (fills the registries)
from t2sda.data.catalog import open_dataset
from t2sda.engine.reweighting import UNPREDICTED, DynamicReweighting
from t2sda.losses.reweighting import pixel_class_weight
from t2sda.losses.sampling import labels_on_grid
from t2sda.modeling.backbones.resnet_v1c import ResNetV1c
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.modeling.heads.daformer import DAFormerHead
from t2sda.modeling.projector import Projector
from t2sda.structures import (
    IGNORE_INDEX,
    TARGET_PROBS,
    DomainBatch,
    FeatureSpec,
    RandomStreams,
    Step,
    TeacherOutput,
)

NUM_CLASSES = 19
CROP = 256
STEPS = 60
NOT_IN_SYNTHIA = (9, 14, 16)


def main() -> None:
    """Print all figures."""
    labels = [open_dataset("streets_hazy_train").load_label(index) for index in range(100)]
    crops = Crops(labels)
    cell_labels(crops)
    class_weights(crops)
    target_weights(crops)
    initial_weights()


class Crops:
    """Pairs of random crops of labels."""

    def __init__(self, labels: list[np.ndarray]) -> None:
        self.labels = labels
        self.generator = np.random.default_rng(0)

    def draw(self, without: tuple[int, ...] = ()) -> Tensor:
        """(2, CROP, CROP) int64; `without` classes are not labelled."""
        crops = []
        for index in self.generator.integers(len(self.labels), size=2):
            height, width = self.labels[index].shape
            top = self.generator.integers(height - CROP + 1)
            left = self.generator.integers(width - CROP + 1)
            crop = self.labels[index][top : top + CROP, left : left + CROP].astype(np.int64)
            crops.append(np.where(np.isin(crop, without), IGNORE_INDEX, crop))
        return torch.from_numpy(np.stack(crops))


def cell_labels(crops: Crops) -> None:
    """E7: how many cells have another label at their first pixel than at their centre."""
    print("E7 cells whose first pixel has another label than their centre")
    networks: dict[str, nn.Module] = {
        "efficientnet-lite0": TimmCNN("tf_efficientnet_lite0"),
        "ConvNeXt": TimmCNN("convnext_atto"),
        "ViT": TimmViT("test_vit"),
        "ResNet-v1c": ResNetV1c(18),
    }
    labels = torch.cat([crops.draw() for _ in range(STEPS)])
    for name, network in networks.items():
        specs: tuple[FeatureSpec, ...] = network.feature_specs  # type: ignore[assignment]
        for spec in (specs[-2], specs[-1]):
            first = labels_on_grid(labels, FeatureSpec(spec.channels, spec.stride))
            other = (first != labels_on_grid(labels, spec)).float().mean().item()
            print(f"  {name}, stride {spec.stride}, centre at {spec.offset:g}: {other:.1%}")


def class_weights(crops: Crops) -> None:
    """E2: the weight of classes that are not in the target crops, and of those with queries."""
    print("E2 weights w* of Eq. (12), a teacher that is right; mean (least) over 60 steps")
    for source, without in (("19 classes", ()), ("16, as SYNTHIA", NOT_IN_SYNTHIA)):
        for confidence in (0.90, 0.98):
            for unpredicted in UNPREDICTED:
                unseen, queries, impossible = [], [], []
                hook = DynamicReweighting(NUM_CLASSES, 0.5, unpredicted=unpredicted)
                for iteration in range(STEPS):
                    step = step_of(crops.draw(without), crops.draw(), confidence, iteration)
                    hook.after_teacher(step)
                    assert step.class_weights is not None
                    weights = step.class_weights
                    assert step.teacher is not None
                    predicted = step.teacher.pseudo_labels.unique()
                    unseen.append(abs(1 - weights[predicted].sum().item()))
                    present = step.batch.source_label.unique()
                    queries.append(weights[present[present < NUM_CLASSES]].sum().item())
                    impossible.append(weights[list(NOT_IN_SYNTHIA)].sum().item())
                text = f"  {source}, conf {confidence:.2f}, {unpredicted}: not in the target crops "
                text += f"{np.mean(unseen):.0%}, with queries {np.mean(queries):.0%} "
                text += f"({min(queries):.0%})"
                if without:
                    text += f", terrain, truck, train {np.mean(impossible):.0%}"
                print(text)


def target_weights(crops: Crops) -> None:
    """E3: the mean weight of a pixel of L_target, by C·w* and divided by the mean."""
    print("E3 mean weight of a pixel under REWEIGHTING.APPLY_TO target")
    for confidence in (0.90, 0.98):
        means = []
        hook = DynamicReweighting(NUM_CLASSES, 0.5, "target", unpredicted="largest")
        for iteration in range(STEPS):
            step = step_of(crops.draw(), crops.draw(), confidence, iteration)
            hook.after_teacher(step)
            assert step.teacher is not None
            assert step.target_class_weights is not None
            labels = step.teacher.pseudo_labels
            pixels = pixel_class_weight(labels, NUM_CLASSES * step.target_class_weights)
            means.append(pixels.mean().item())
        print(f"  conf {confidence:.2f}: times C {np.mean(means):.2f}, as it is now 1.00")


def step_of(source: Tensor, target: Tensor, confidence: float, iteration: int) -> Step:
    """A step whose teacher predicts the target's labels; each class at a confidence of its own."""
    rest = 1 - confidence
    # Common classes are surer than rare ones: 1 - conf from half to twice that of the mean class.
    sure = 1 - rest * torch.linspace(0.5, 2.0, NUM_CLASSES)
    probs = torch.full((2, NUM_CLASSES, CROP, CROP), 1e-3)
    labels = target.clamp(max=NUM_CLASSES - 1)
    probs.scatter_(1, labels[:, None], sure[labels][:, None])
    empty = torch.empty(2, 3, 0, 0, dtype=torch.uint8)
    step = Step(iteration, 0, DomainBatch(empty, source), RandomStreams(0, iteration, 0))
    step.teacher = TeacherOutput({TARGET_PROBS: probs})
    return step


def initial_weights() -> None:
    """E5: standard deviations of new layers, beside torch's own initialisation."""
    print("E5 standard deviation of new layers, and times that of torch's default")
    torch.manual_seed(0)
    specs = tuple(map(FeatureSpec, (64, 128, 320, 512), (4, 8, 16, 32)))
    parts = {"DAFormer head": DAFormerHead(specs, NUM_CLASSES), "projector": Projector(512)}
    for part, module in parts.items():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d):
                found = layer.weight.std().item()
                nn.Conv2d.reset_parameters(layer)
                print(f"  {part} {name}: {found:.4f}, {found / layer.weight.std().item():.2f}x")


if __name__ == "__main__":
    main()
