"""The labelled passes' photometric distortion: what it changes, where it is drawn, who has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from t2sda.config import ConfigError, load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.losses.augmentation import (
    current_color_jitter,
    draw_photometric,
    draw_source_jitter,
    photometric_distortion,
)
from t2sda.meta_arch.base import ImagePass, build_meta_arch
from t2sda.structures import DomainBatch
from tests.meta_arch.conftest import config_of, step_of

CONFIGS = Path(__file__).parents[2] / "configs"
ON = ["SOURCE_AUGMENTATION.PHOTOMETRIC", "true"]
TRANSLATED = ["META_ARCH.PASSES", "[translated]", "TRANSLATION.NAME", "ColorJitter"]


@pytest.mark.parametrize(("domain", "settings"), [("source", []), ("translated", TRANSLATED)])
def test_colors_are_distorted_as_the_steps_stream_draws(
    domain: str, settings: list[str], make_batch: Callable[..., DomainBatch]
) -> None:
    labelled = build_meta_arch(config_of("SourceOnly", *settings, *ON), CITYSCAPES_19).passes[
        domain
    ]
    assert isinstance(labelled, ImagePass)
    step = step_of(make_batch())
    generator = step.streams.generator(f"{domain} photometric distortion")
    plain = step.batch.image(domain)
    expected = photometric_distortion(plain, draw_photometric(2, generator))
    assert torch.equal(labelled.image(step), expected)
    assert not torch.equal(expected, plain.float())


def test_colors_are_jittered_as_the_steps_stream_draws(
    make_batch: Callable[..., DomainBatch],
) -> None:
    cfg = config_of("SourceOnly", "SOURCE_AUGMENTATION.JITTER_PROBABILITY", "1.0")
    source = build_meta_arch(cfg, CITYSCAPES_19).passes["source"]
    assert isinstance(source, ImagePass)
    step = step_of(make_batch())
    generator = step.streams.generator("source color jitter")
    drawn = draw_source_jitter(2, generator, 1.0)
    expected = [
        current_color_jitter(image.float(), one.color_jitter)
        for image, one in zip(step.batch.source_image, drawn, strict=True)
        if one.color_jitter is not None
    ]
    assert torch.equal(source.image(step), torch.stack(expected))
    assert not torch.equal(source.image(step), step.batch.source_image.float())


def test_colors_are_distorted_in_one_way() -> None:
    with pytest.raises(ConfigError, match="both distort colors; set one"):
        config_of("SourceOnly", *ON, "SOURCE_AUGMENTATION.JITTER_PROBABILITY", "0.9")


def test_colors_stay_as_they_are_unless_it_is_asked_for(
    make_batch: Callable[..., DomainBatch],
) -> None:
    source = build_meta_arch(config_of("SourceOnly"), CITYSCAPES_19).passes["source"]
    assert isinstance(source, ImagePass)
    step = step_of(make_batch())
    assert source.image(step) is step.batch.source_image


def test_the_student_learns_from_the_distorted_image(
    make_batch: Callable[..., DomainBatch],
) -> None:
    losses = []
    for settings in ([], ON):
        torch.manual_seed(0)
        meta_arch = build_meta_arch(config_of("SourceOnly", *settings), CITYSCAPES_19).train()
        losses.append(meta_arch("source", step_of(make_batch()))["loss_source"].item())
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("gta5_to_cityscapes/source_only_daformer_mit_b5.yaml", True),
        ("gta5_to_cityscapes/fda_deeplabv2_r101.yaml", True),
        ("synthia_to_cityscapes/minent_daformer_mit_b5.yaml", True),
        ("dg/gta5_t2sda_daformer_mit_b5.yaml", True),
        ("gta5_to_cityscapes/daformer_daformer_mit_b5.yaml", False),
        ("gta5_to_cityscapes/t2sda_daformer_mit_b5.yaml", False),
    ],
)
def test_baselines_without_self_training_have_it(config: str, expected: bool) -> None:
    assert load_config(CONFIGS / config).SOURCE_AUGMENTATION.PHOTOMETRIC is expected


def test_a_run_without_a_labelled_pass_refuses_it() -> None:
    with pytest.raises(ConfigError, match=r"SOURCE_AUGMENTATION\.PHOTOMETRIC .*no effect"):
        config_of("SelfTraining", "META_ARCH.PASSES", "[mixed]", *ON)
