"""Every shipped method on both architectures is built and stepped once, in its smallest size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.ema import EmaTeacher
from t2sda.engine.optim import build_owners
from t2sda.meta_arch.base import build_meta_arch
from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.backbones.resnet_v1c import ResNetV1c
from t2sda.structures import DomainBatch
from tests.meta_arch.conftest import make_batch, step_of  # noqa: F401

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = ("source_only", "fda", "minent", "dacs", "daformer", "t2sda", "mic", "t2sda_mic")
ADVERSARIAL_METHODS = ("adaptsegnet_multi", "advent_minent", "adversarial_of_hrda")
HRDA_METHODS = ("daformer", "t2sda", "mic", "t2sda_mic")
SMALLEST = {
    "deeplabv2_r101": ("MODEL.BACKBONE.DEPTH", "18"),
    "daformer_mit_b5": ("MODEL.BACKBONE.VARIANT", "b0", "MODEL.HEAD.CHANNELS", "32"),
    "hrda_deeplabv2_r101": (
        *("MODEL.BACKBONE.DEPTH", "18", "OUTPUT_ADVERSARIAL.REDUCTION", "1"),
        *("MODEL.HRDA.DETAIL_SIZE", "[32, 48]", "MODEL.HRDA.WINDOW_SIZE", "[64, 96]"),
    ),
    "hrda_mit_b5": (
        *("MODEL.BACKBONE.VARIANT", "b0", "MODEL.HEAD.CHANNELS", "32"),
        *("MODEL.HRDA.DETAIL_SIZE", "[32, 48]", "MODEL.HRDA.WINDOW_SIZE", "[64, 96]"),
    ),
}
RUNS = [
    *((method, network) for network in list(SMALLEST)[:2] for method in METHODS),
    *((method, "hrda_mit_b5") for method in HRDA_METHODS),
    *((method, "deeplabv2_r101") for method in ADVERSARIAL_METHODS),
    ("adversarial_of_hrda", "hrda_deeplabv2_r101"),
    ("sepico", "deeplabv2_r101"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of weights, as if the smallest networks were pretrained."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    states: dict[str, nn.Module] = {
        "deeplabv2_r101": ResNetV1c(18).net,
        "daformer_mit_b5": MiT("b0"),
        "hrda_deeplabv2_r101": ResNetV1c(18).net,
        "hrda_mit_b5": MiT("b0"),
    }
    for name, module in states.items():
        torch.save(module.state_dict(), folder / f"{name}.pth")
    return {name: str(folder / f"{name}.pth") for name in states}


@pytest.mark.parametrize(("method", "network"), RUNS)
def test_a_method_steps_on_an_architecture(
    method: str,
    network: str,
    weights: dict[str, str],
    make_batch: Callable[..., DomainBatch],  # noqa: F811
) -> None:
    cfg = load_config(
        CONFIGS / f"gta5_to_cityscapes/{method}_{network}.yaml",
        [
            *SMALLEST[network],
            *("MODEL.BACKBONE.WEIGHTS", weights[network]),
        ],
    )
    meta_arch = build_meta_arch(cfg, CITYSCAPES_19).train()
    owner, *_ = build_owners(cfg, meta_arch)
    before = {name: p.detach().clone() for name, p in meta_arch.student.named_parameters()}
    step = step_of(make_batch())
    with torch.no_grad():
        step.teacher = meta_arch.teach(step)
    for pass_name in meta_arch.pass_names:
        losses = meta_arch(pass_name, step)
        torch.stack(list(losses.values())).sum().backward()
        step.add_losses(losses)
    owner.optimizer.step()
    if meta_arch.has_teacher:
        EmaTeacher(meta_arch.student, meta_arch.teacher, 0.999).after_step(step)
    assert all(torch.isfinite(loss) for loss in step.losses.values())
    parameters = {n: p for n, p in meta_arch.student.named_parameters() if p.requires_grad}
    assert (len(parameters) < len(before)) == (cfg.MODEL.NORM == "frozen_affine")
    assert [name for name, item in parameters.items() if item.grad is None] == []
    # Residual blocks begin as the identity: the biases inside have no gradient in the first step.
    still = [name for name, item in parameters.items() if torch.equal(item, before[name])]
    assert [name for name in still if not name.endswith(".bias")] == []
    assert ("loss_feature_distance" in step.losses) == (cfg.FEATURE_DISTANCE.WEIGHT > 0)
