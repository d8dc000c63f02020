"""Frozen backbones and adapters: what learns, what is computed, what is left when folded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from t2sda.config import load_config
from t2sda.errors import UserError
from t2sda.modeling.backbones.adapters import (
    AdaptedLinear,
    adapt_,
    restart_adapters_,
    without_adapters,
)
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.backbones.folding import folded_state
from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.weights.strict import load_strict

VIT = (
    *("MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.TIMM_NAME", "test_vit"),
    *("MODEL.BACKBONE.PYRAMID_CHANNELS", "8"),
)
INITS = ("zero", "smallest")


def image_of(side: int = 64) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def learnt_(network: nn.Module) -> nn.Module:
    """As after training: no adapter is what it began as."""
    for name, parameter in network.named_parameters():
        if "adapter" in name:
            nn.init.normal_(parameter, std=0.1)
    return network


def trained_names(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def model_of(*settings: str) -> SegmentationModel:
    return build_segmentation_model(load_config(None, [*VIT, *settings]), num_classes=3)


@torch.no_grad()
def test_the_smallest_components_leave_the_weight() -> None:
    # W is a diagonal with signs and a row of zeros: its singular values are 5, 3, 2 and 1.
    linear = nn.Linear(4, 5)
    linear.weight.zero_()
    linear.weight[:4].copy_(torch.diag(torch.tensor([5.0, -1.0, 3.0, 2.0])))
    adapted = AdaptedLinear(linear, rank=2, init="smallest")
    taken = adapted.adapter_up @ adapted.adapter_down
    torch.testing.assert_close(taken[:4], torch.diag(torch.tensor([0.0, -1.0, 0.0, 2.0])))
    torch.testing.assert_close(adapted.weight[:4], torch.diag(torch.tensor([5.0, 0.0, 3.0, 0.0])))
    # The singular values are shared out evenly: both halves have the norm of their roots.
    torch.testing.assert_close(adapted.adapter_up.norm(dim=0), torch.tensor([2.0, 1.0]).sqrt())


@torch.no_grad()
@pytest.mark.parametrize("init", INITS)
def test_a_backbone_with_new_adapters_computes_what_it_did(init: str) -> None:
    plain = TimmViT("test_vit", pyramid_channels=8).eval()
    adapted = copy.deepcopy(plain)
    adapt_(adapted, rank=4, from_block=2, init=init)
    image = image_of()
    for ours, theirs in zip(adapted(image), plain(image), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    layers = [m for m in adapted.modules() if isinstance(m, AdaptedLinear)]
    assert len(layers) == 4 * 4  # qkv, proj, fc1 and fc2 of blocks 2 to 5
    assert all(layer.adapter_down.any() for layer in layers)
    assert all(layer.adapter_up.any().item() is (init == "smallest") for layer in layers)


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: TimmViT("test_vit", pyramid_channels=8),
        lambda: TimmViT("eva02_tiny_patch14_224", pyramid_channels=8),  # a bias beside qkv
        lambda: MiT("b0"),
    ],
    ids=["vit", "eva with biases", "mit"],
)
def test_adapters_and_their_biases_learn_and_nothing_else_of_the_blocks(backbone: object) -> None:
    network: Backbone = backbone()  # type: ignore[operator]
    network.requires_grad_(False)
    adapt_(network, rank=4, from_block=1, init="smallest")
    adapted = {
        f"{name}.{part}"
        for name, module in network.named_modules()
        if isinstance(module, AdaptedLinear)
        for part, value in module.named_parameters()
        if part != "weight"
    }
    assert trained_names(network) == adapted
    sum(level.square().sum() for level in network(image_of())).backward()  # type: ignore[union-attr]
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) is (name in adapted), (
            name
        )


def test_train_says_what_learns() -> None:
    pyramid = {f"backbone.{n}" for n in trained_names(TimmViT("test_vit", 8)) if "pyramid" in n}
    head = {f"head.{name}" for name in trained_names(model_of().head)}
    assert trained_names(model_of("MODEL.BACKBONE.TRAIN", "none")) == pyramid | head
    adapters = model_of(
        "MODEL.BACKBONE.TRAIN", "adapters", "MODEL.BACKBONE.ADAPTER.FROM_BLOCK", "5"
    )
    added = trained_names(adapters) - pyramid - head
    assert added == {
        f"backbone.net.blocks.5.{layer}.{part}"
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        for part in ("bias", "adapter_down", "adapter_up")
    }
    assert all(len(p) == 16 for n, p in adapters.named_parameters() if n.endswith("adapter_down"))


def test_blocks_before_the_first_adapter_build_no_graph() -> None:
    backbone = TimmViT("test_vit", pyramid_channels=8).requires_grad_(False)
    adapt_(backbone, rank=4, from_block=3, init="zero")
    seen: list[bool] = []
    for block in backbone.net.blocks:
        block.register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    backbone(image_of())
    assert seen == [False, False, False, True, True, True]


@torch.no_grad()
@pytest.mark.parametrize("init", INITS)
def test_a_folded_network_has_the_usual_layers_and_computes_the_same(init: str) -> None:
    settings = ("MODEL.BACKBONE.TRAIN", "adapters", "MODEL.BACKBONE.ADAPTER.INIT", init)
    adapted = learnt_(model_of(*settings)).eval()
    folded, image = without_adapters(adapted), image_of() * 50 + 120
    assert [type(module) for module in folded.modules()] == [type(m) for m in model_of().modules()]
    torch.testing.assert_close(folded(image), adapted(image), atol=1e-5, rtol=1e-5)
    loaded = model_of().eval()
    load_strict(loaded, folded_state(adapted.state_dict()), "folded")
    assert torch.equal(loaded(image), folded(image))
    assert without_adapters(loaded) is loaded


@torch.no_grad()
@pytest.mark.parametrize("init", INITS)
def test_a_restart_keeps_the_function_and_forgets_the_adapters(init: str) -> None:
    settings = ("MODEL.BACKBONE.TRAIN", "adapters", "MODEL.BACKBONE.ADAPTER.INIT", init)
    adapted, image = learnt_(model_of(*settings)).eval(), image_of() * 50 + 120
    expected, before = adapted(image), copy.deepcopy(adapted.state_dict())
    restart_adapters_(adapted)
    torch.testing.assert_close(adapted(image), expected, atol=1e-5, rtol=1e-5)
    changed = {
        name for name, tensor in adapted.state_dict().items() if not tensor.equal(before[name])
    }
    assert {name.rpartition(".")[2] for name in changed} == {"weight", "adapter_down", "adapter_up"}


@pytest.mark.parametrize("lost", ["adapter_down", "weight"])
def test_half_an_adapter_is_named_by_the_strict_loading(lost: str) -> None:
    state = model_of("MODEL.BACKBONE.TRAIN", "adapters").state_dict()
    del state[f"backbone.net.blocks.0.attn.qkv.{lost}"]
    with pytest.raises(UserError, match=r"unknown to the network .*qkv\.adapter_"):
        load_strict(model_of(), folded_state(state), "damaged")


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(UserError, match="this TimmCNN has none; set it to 'all' or 'none'"):
        adapt_(TimmCNN("test_resnet"), rank=4, from_block=0, init="zero")
    with pytest.raises(UserError, match=r"FROM_BLOCK: 6, but this TimmViT has 6 blocks, 0 to 5"):
        model_of("MODEL.BACKBONE.TRAIN", "adapters", "MODEL.BACKBONE.ADAPTER.FROM_BLOCK", "6")
    with pytest.raises(UserError, match=r"RANK: 65, .* 'qkv' .* 64 inputs .* at most 64"):
        model_of("MODEL.BACKBONE.TRAIN", "adapters", "MODEL.BACKBONE.ADAPTER.RANK", "65")


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_frozen_backbone_has_frozen_batch_norm(norm: str) -> None:
    settings = ["MODEL.BACKBONE.TIMM_NAME", "test_resnet", "MODEL.BACKBONE.TRAIN", "none"]
    cfg = load_config(None, [*settings, "MODEL.NORM", norm])
    if norm == "batch":
        with pytest.raises(UserError, match=r"'batch' trains BatchNorm, but .*TRAIN is 'none'"):
            build_segmentation_model(cfg, 3)
        return
    assert not trained_names(build_segmentation_model(cfg, 3).backbone)
