"""Every published layout of MiT's tensors comes out under the original names."""

from typing import Any

import pytest
import torch
from torch import Tensor

from t2sda.modeling.backbones.mit import MiT
from t2sda.weights import licences
from t2sda.weights.mit import rename_mit

LEAVES_OF_THE_HUB = {
    "norm1": "layer_norm_1",
    "norm2": "layer_norm_2",
    "attn.q": "attention.self.query",
    "attn.sr": "attention.self.sr",
    "attn.norm": "attention.self.layer_norm",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "mlp.dense1",
    "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
    "mlp.fc2": "mlp.dense2",
}
LEAVES_OF_MMSEGMENTATION = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.sr": "attn.sr",
    "attn.norm": "attn.norm",
    "attn.proj": "attn.attn.out_proj",
    "mlp.fc1": "ffn.layers.0",
    "mlp.dwconv.dwconv": "ffn.layers.1",
    "mlp.fc2": "ffn.layers.4",
}


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    """No two values alike, so that nothing can be exchanged unnoticed."""
    torch.manual_seed(0)
    return {name: torch.randn(t.shape) for name, t in MiT("b0").state_dict().items()}


def hub_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `nvidia/mit-b0` on Hugging Face's hub, with its classifier."""
    renamed = {"classifier.weight": torch.zeros(2, 256), "classifier.bias": torch.zeros(2)}
    for name, tensor in state.items():
        place, stage, rest = split(name)
        prefix = f"segformer.encoder.{place}.{stage}"
        leaf, _, kind = rest.rpartition(".")
        if place == "patch_embeddings":
            renamed[f"{prefix}.{'proj' if leaf == 'proj' else 'layer_norm'}.{kind}"] = tensor
        elif place == "layer_norm":
            renamed[f"{prefix}.{kind}"] = tensor
        else:
            block, _, layer = leaf.partition(".")
            if layer == "attn.kv":
                for which, half in zip(("key", "value"), tensor.chunk(2), strict=True):
                    renamed[f"{prefix}.{block}.attention.self.{which}.{kind}"] = half
            else:
                renamed[f"{prefix}.{block}.{LEAVES_OF_THE_HUB[layer]}.{kind}"] = tensor
    return renamed


def mmsegmentation_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As mmsegmentation's MixVisionTransformer."""
    parts = {"patch_embeddings": 0, "block": 1, "layer_norm": 2}
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        place, stage, rest = split(name)
        prefix = f"layers.{stage}.{parts[place]}"
        leaf, _, kind = rest.rpartition(".")
        if place == "patch_embeddings":
            renamed[f"{prefix}.{'projection' if leaf == 'proj' else 'norm'}.{kind}"] = tensor
        elif place == "layer_norm":
            renamed[f"{prefix}.{kind}"] = tensor
        else:
            block, _, layer = leaf.partition(".")
            if layer == "attn.q":
                kv = state[name.replace(".q.", ".kv.")]
                joined = f"{prefix}.{block}.attn.attn.in_proj_{kind}"
                renamed[joined] = torch.cat([tensor, kv])
            elif layer != "attn.kv":
                is_conv = layer in ("mlp.fc1", "mlp.fc2") and kind == "weight"
                value = tensor[:, :, None, None] if is_conv else tensor
                renamed[f"{prefix}.{block}.{LEAVES_OF_MMSEGMENTATION[layer]}.{kind}"] = value
    return renamed


def smp_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a model of segmentation_models_pytorch, with its decoder and classifier."""
    encoder = {f"encoder.{name}": tensor for name, tensor in state.items()}
    others = ("decoder.mlp_stage.0.linear.weight", "segmentation_head.0.weight")
    return encoder | {name: torch.zeros(1) for name in others}


def bare_hub_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Hugging Face's SegformerModel saves it, which is the encoder alone."""
    return {name.removeprefix("segformer."): tensor for name, tensor in hub_layout(state).items()}


def split(name: str) -> tuple[str, int, str]:
    """Where a tensor is, its stage counted from 0, and what it is there."""
    first, _, rest = name.partition(".")
    places = {"patch_embed": "patch_embeddings", "block": "block", "norm": "layer_norm"}
    return places[first[:-1]], int(first[-1]) - 1, rest


@pytest.mark.parametrize(
    "layout", [dict, hub_layout, bare_hub_layout, mmsegmentation_layout, smp_layout]
)
def test_tensors_find_their_place_whatever_the_layout(
    original: dict[str, Tensor], layout: Any
) -> None:
    backbone = MiT("b0")
    backbone.load_pretrained(layout(original), "mit_b0.pth")
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, original[name]), name


def test_classifier_of_the_original_file_is_left_over(original: dict[str, Tensor]) -> None:
    state = {**original, "head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    report = MiT("b0").load_pretrained(state, "mit_b0.pth")
    assert set(report.dropped) == {"head.weight", "head.bias"}


def test_unknown_tensor_and_missing_value_are_errors(original: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"1 unknown to the network \(first block1\.0\.extra\)"):
        MiT("b0").load_pretrained({**original, "block1.0.extra": torch.zeros(1)}, "odd.pth")
    state = hub_layout(original)
    del state["segformer.encoder.block.0.0.attention.self.value.weight"]
    with pytest.raises(ValueError, match=r"1 missing in the file \(first block1\.0\.attn\.kv\.w"):
        MiT("b0").load_pretrained(state, "half.pth")


def test_names_of_another_network_stay_as_they_are() -> None:
    state = {"conv1.weight": torch.zeros(1), "backbone.fc.bias": torch.zeros(1)}
    assert rename_mit(state).keys() == {"conv1.weight", "fc.bias"}


def test_licence_is_said_once(
    original: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    licences.note.cache_clear()
    for _ in range(2):
        MiT("b0").load_pretrained(original, "mit_b0.pth")
    said = [record for record in caplog.records if "non-commercial use only" in record.message]
    assert len(said) == 1
