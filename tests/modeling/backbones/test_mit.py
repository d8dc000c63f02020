"""MiT against Hugging Face's Segformer, and the laws its settings keep."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401
from t2sda.config import load_config
from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.backbones.mit_blocks import Block
from t2sda.modeling.drop_path import DropPath
from t2sda.modeling.meta_device import on_meta_device
from t2sda.weights.mit import VARIANTS
from tests.references.huggingface import segformer, with_weights_of


def image_of(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "channels"), [("b0", 256), pytest.param("b5", 768, marks=pytest.mark.slow)]
)
def test_segformer_has_the_logits_of_hugging_face(variant: str, channels: int) -> None:
    network = segformer(variant, channels, num_classes=19)
    backbone, head = with_weights_of(network, variant)
    image = image_of(96, 160)
    # float32 sums in another order, through 52 blocks in b5
    torch.testing.assert_close(head(backbone(image)), network(image).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_epsilon_of_the_norms_is_a_setting_that_shows() -> None:
    ours, theirs = MiT("b0").eval(), MiT("b0", norm_eps=1e-2).eval()
    theirs.load_state_dict(ours.state_dict())
    assert not torch.allclose(ours(image_of(64, 64))[-1], theirs(image_of(64, 64))[-1], atol=1e-3)
    norms = {name: norm.eps for name, norm in ours.named_modules() if hasattr(norm, "eps")}
    assert norms["block1.0.norm1"] == norms["block4.1.norm2"] == norms["norm3"] == 1e-6
    assert norms["patch_embed2.norm"] == norms["block1.0.attn.norm"] == 1e-5


def test_checkpointing_activations_changes_no_gradient() -> None:
    kept, recomputed = (
        MiT("b0", drop_path=0.3, checkpoint_activations=checkpoint).train()
        for checkpoint in (False, True)
    )
    recomputed.load_state_dict(kept.state_dict())
    gradients = []
    for backbone in (kept, recomputed):
        torch.manual_seed(3)  # of stochastic depth
        sum(level.square().mean() for level in backbone(image_of(64, 64, batch=2))).backward()  # type: ignore[union-attr]
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=0, rtol=0)


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    saved = []
    for checkpoint in (False, True):
        backbone = MiT("b0", checkpoint_activations=checkpoint).train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor,  # type: ignore[misc]
            lambda tensor: tensor,
        ):
            backbone(image_of(128, 128))
        saved.append(sum(sizes))
    assert saved[1] < 0.3 * saved[0]


def test_dropped_branches_leave_the_tokens_as_they_are() -> None:
    block = Block(32, num_heads=1, reduction=8, drop_path=1 - 1e-7, norm_eps=1e-6).train()
    tokens = torch.randn(2, 8, 8, 32)
    assert torch.equal(block(tokens), tokens)
    assert not torch.equal(block.eval()(tokens), tokens)


def test_settings_reach_the_network(tmp_path: Path) -> None:
    weights = MiT("b0").state_dict()
    torch.save(weights, tmp_path / "mit_b0.pth")
    settings = {
        "NAME": "MiT",
        "VARIANT": "b0",
        "NORM_EPS": "0.001",
        "CHECKPOINT_ACTIVATIONS": "true",
        "WEIGHTS": str(tmp_path / "mit_b0.pth"),
    }
    overrides = [f for key, value in settings.items() for f in (f"MODEL.BACKBONE.{key}", value)]
    backbone = MiT.from_config(load_config(None, overrides))
    assert backbone.checkpoint_activations
    assert {norm.eps for norm in backbone.modules() if isinstance(norm, nn.LayerNorm)} == {
        1e-3,
        1e-5,  # within embedding and attention
    }
    assert all(torch.equal(found, weights[name]) for name, found in backbone.state_dict().items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_stochastic_depth_grows_linearly_from_none(variant: str) -> None:
    with on_meta_device():
        backbone = MiT(variant, drop_path=0.1)
    rates = [module.probability for module in backbone.modules() if isinstance(module, DropPath)]
    expected = torch.linspace(0, 0.1, sum(VARIANTS[variant].depths)).tolist()
    assert rates == pytest.approx(expected, abs=1e-7)


def test_weights_start_by_fan_out_in_convolutions_and_at_a_fiftieth_in_linear_layers() -> None:
    layers = dict(MiT("b0").named_modules())
    for name, std in [
        ("patch_embed4.proj", (2 / (9 * 256)) ** 0.5),
        ("block4.0.mlp.dwconv.dwconv", (2 / 9) ** 0.5),  # one output channel to a group
        ("block3.0.attn.sr", (2 / (4 * 160)) ** 0.5),
        ("block4.0.attn.q", 0.02),
    ]:
        assert layers[name].weight.std().item() == pytest.approx(std, rel=0.05), name
        assert not layers[name].bias.any()


@pytest.mark.parametrize(
    ("variant", "millions"),
    # of the encoder alone, without classifier or head
    [("b0", 3.32), ("b1", 13.15), ("b2", 24.20), ("b3", 44.07), ("b4", 60.84), ("b5", 81.44)],
)
def test_number_of_parameters(variant: str, millions: float) -> None:
    with on_meta_device():
        backbone = MiT(variant)
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@torch.no_grad()
def test_features_lie_in_channels_last_memory() -> None:
    for level in MiT("b0").eval()(image_of(64, 96)):
        assert level.is_contiguous(memory_format=torch.channels_last)
