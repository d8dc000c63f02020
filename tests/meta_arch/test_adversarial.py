"""AdaptSegNet and ADVENT: losses from the papers, and gradients of the published order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.config import ConfigError
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.optim import build_owners
from t2sda.meta_arch.adversarial import discriminator
from t2sda.meta_arch.base import MetaArch, build_meta_arch
from t2sda.meta_arch.entropy import mean_normalized_entropy
from t2sda.structures import DomainBatch
from tests.meta_arch.conftest import config_of, step_of
from tests.references import adversarial as reference
from tests.training import noise_batch

PASSES = [
    *("META_ARCH.PASSES", "[source_output, output_adversarial]"),
    *("DATASETS.TARGET", "streets_hazy_train"),
]
LARGE = ["OUTPUT_ADVERSARIAL.WEIGHT", "0.5"]
AUXILIARY = ["MODEL.AUX_HEAD.NAME", "LightHead", "MODEL.AUX_HEAD.LEVEL", "1"]
VARIANTS = {
    "single level": [],
    "multi-level": [*AUXILIARY, "OUTPUT_ADVERSARIAL.AUX_WEIGHT", "0.2"],
    "least squares": ["OUTPUT_ADVERSARIAL.GAN", "least_squares"],
    "ADVENT": [
        *(*AUXILIARY, "OUTPUT_ADVERSARIAL.AUX_WEIGHT", "0.2"),
        *("OUTPUT_ADVERSARIAL.INPUT", "self_information"),
    ],
    "at half size": ["OUTPUT_ADVERSARIAL.REDUCTION", "2"],
}


def built(*overrides: str) -> MetaArch:
    """In float64, with answers that are not near 0, in evaluation mode: no statistic moves."""
    torch.manual_seed(0)
    cfg = config_of("SourceOnly", *PASSES, *LARGE, *overrides)
    meta_arch = build_meta_arch(cfg, CITYSCAPES_19).double().eval()
    for item in meta_arch.passes["output_adversarial"].parameters():
        item.data *= 3
    return meta_arch


def losses_of(meta_arch: MetaArch, batch: DomainBatch) -> dict[str, Tensor]:
    step = step_of(batch)
    source = meta_arch("source_output", step)
    return source | meta_arch("output_adversarial", step)


def logits_of(meta_arch: MetaArch, image: Tensor) -> list[Tensor]:
    """Of the head, and the auxiliary one, at the image's size."""
    model = meta_arch.student.model
    levels = model.features(image).levels
    coarse = [model.head(levels)]
    if model.aux_head is not None:
        coarse.append(model.aux_head.head(levels[1:2]))
    return [
        F.interpolate(item, image.shape[-2:], mode="bilinear", align_corners=False)
        for item in coarse
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_those_of_the_papers(variant: str) -> None:
    meta_arch, batch = built(*VARIANTS[variant]), noise_batch(2)
    own: Any = meta_arch.passes["output_adversarial"]
    with torch.no_grad():
        found = losses_of(meta_arch, batch)
        domains = [logits_of(meta_arch, batch.image(name)) for name in ("source", "target")]
    see = reference.self_information if variant == "ADVENT" else reference.softmax
    for index, (weight, suffix) in enumerate(zip((0.5, 0.2), ("", "_aux"), strict=False)):
        if index >= len(domains[0]):
            assert len(found) == 3
            break
        layers = [own.discriminators[index][number] for number in range(0, 9, 2)]
        parameters = [
            [getattr(layer, name).detach().numpy() for layer in layers]
            for name in ("weight", "bias")
        ]
        logits = [outputs[index] for outputs in domains]
        if variant == "at half size":
            logits = [F.avg_pool2d(item, 2) for item in logits]
        source, target = (reference.answers(see(item.numpy()), *parameters) for item in logits)
        discriminated = reference.error(source, 0, own.gan) + reference.error(target, 1, own.gan)
        expected = weight * reference.error(target, 0, own.gan)
        assert found[f"loss_adversarial{suffix}"].item() == pytest.approx(expected, rel=1e-9)
        assert found[f"loss_discriminator{suffix}"].item() == pytest.approx(
            discriminated / 2, rel=1e-9
        )


@pytest.mark.parametrize("variant", ["multi-level", "least squares"])
def test_gradients_are_those_of_the_published_order(variant: str) -> None:
    """Source; the student's term with frozen discriminators; those, on detached outputs."""
    batch = noise_batch(2)
    ours, theirs = built(*VARIANTS[variant]), built(*VARIANTS[variant])
    for loss in losses_of(ours, batch).values():
        loss.backward(retain_graph=True)

    own: Any = theirs.passes["output_adversarial"]
    model = theirs.student.model
    features = model.features(batch.source_image)
    model.loss(features, batch.source_label).backward(retain_graph=True)
    source = [item.detach() for item in model.outputs(features)]
    own.discriminators.requires_grad_(False)
    target = model.outputs(model.features(batch.image("target")))
    error = F.mse_loss if variant == "least squares" else F.binary_cross_entropy_with_logits
    for index, weight in zip(range(len(target)), (0.5, 0.2), strict=False):
        answers = own.discriminators[index](target[index].softmax(dim=1))
        (weight * error(answers, torch.zeros_like(answers))).backward(retain_graph=True)
    own.discriminators.requires_grad_(True)
    for index in range(len(target)):
        for logits, domain in ((source[index], 0.0), (target[index].detach(), 1.0)):
            answers = own.discriminators[index](logits.softmax(dim=1))
            (error(answers, torch.full_like(answers, domain)) / 2).backward()
    expected = {name: item.grad for name, item in theirs.named_parameters()}
    for name, item in ours.named_parameters():
        torch.testing.assert_close(item.grad, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    ("term", "learns"), [("adversarial", "student"), ("discriminator", "passes")]
)
def test_each_term_teaches_one_side(term: str, learns: str) -> None:
    meta_arch = built(*VARIANTS["multi-level"])
    losses = losses_of(meta_arch, noise_batch(2))
    (losses[f"loss_{term}"] + losses[f"loss_{term}_aux"]).backward()
    touched = {name.split(".")[0] for name, p in meta_arch.named_parameters() if p.grad is not None}
    assert touched == {learns}


def test_the_discriminator_is_adaptsegnets_and_has_an_adam_of_its_own() -> None:
    cfg = config_of("SourceOnly", *PASSES, *AUXILIARY, "SOLVER.MAX_ITER", "100")
    student, own = build_owners(cfg, build_meta_arch(cfg, CITYSCAPES_19))
    assert (student.name, own.name) == ("student", "output_adversarial")
    (group,) = own.optimizer.param_groups
    assert (group["base_lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.9, 0.99), 0)
    assert own.schedule.factor(36) == pytest.approx(0.64**0.9)
    # 19 -> 64 -> 128 -> 256 -> 512 -> 1 channels of 4x4 kernels, each with its biases.
    weights = 16 * (19 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 128 + 256 + 512 + 1
    assert sum(p.numel() for p in own.parameters) == 2 * weights
    assert discriminator(19)(torch.zeros(1, 19, 64, 96)).shape == (1, 1, 2, 3)


def test_crops_that_the_discriminator_cannot_halve_five_times_are_refused() -> None:
    keys = ["OUTPUT_ADVERSARIAL.REDUCTION", "2", "DATA.CROP_SIZE", "[48, 96]"]
    with pytest.raises(ConfigError, match=r"DATA.CROP_SIZE: \[48, 96\] is too small .* 64 pixels"):
        config_of("SourceOnly", *PASSES, *keys)


def test_a_weight_of_the_auxiliary_output_needs_the_head() -> None:
    with pytest.raises(ConfigError, match="OUTPUT_ADVERSARIAL.AUX_WEIGHT"):
        config_of("SourceOnly", *PASSES, "OUTPUT_ADVERSARIAL.AUX_WEIGHT", "0.1")


def test_minent_has_a_term_for_the_auxiliary_output() -> None:
    torch.manual_seed(0)
    keys = ["META_ARCH.PASSES", "[source, entropy]", *PASSES[2:], *AUXILIARY]
    meta_arch = build_meta_arch(config_of("SourceOnly", *keys), CITYSCAPES_19).eval()
    batch = noise_batch(1)
    found = meta_arch("entropy", step_of(batch))
    for logits, weight, name in zip(
        logits_of(meta_arch, batch.image("target")), (0.001, 0.0002), found, strict=True
    ):
        torch.testing.assert_close(found[name], weight * mean_normalized_entropy(logits))
