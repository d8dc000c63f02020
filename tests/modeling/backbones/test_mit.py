"""MiT against Hugging Face's Segformer, and the laws its settings keep."""

import pytest
import torch
from torch import Tensor

from t2sda.modeling.backbones.mit import VARIANTS, MiT
from t2sda.modeling.drop_path import DropPath
from tests.references.huggingface import segformer, with_weights_of


def image_of(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(("variant", "channels"), [("b0", 256), ("b5", 768)])
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_stochastic_depth_grows_linearly_from_none(variant: str) -> None:
    with torch.device("meta"):
        backbone = MiT(variant, drop_path=0.1)
    rates = [module.probability for module in backbone.modules() if isinstance(module, DropPath)]
    expected = torch.linspace(0, 0.1, sum(VARIANTS[variant].depths)).tolist()
    assert rates == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("variant", "millions"),
    # of the encoder alone, without classifier or head
    [("b0", 3.32), ("b1", 13.15), ("b2", 24.20), ("b3", 44.07), ("b4", 60.84), ("b5", 81.44)],
)
def test_number_of_parameters(variant: str, millions: float) -> None:
    with torch.device("meta"):
        backbone = MiT(variant)
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@torch.no_grad()
def test_features_lie_in_channels_last_memory() -> None:
    for level in MiT("b0").eval()(image_of(64, 96)):
        assert level.is_contiguous(memory_format=torch.channels_last)
