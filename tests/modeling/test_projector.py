"""The projector is two Conv-BN-ReLU that keep the resolution, whatever its kernel."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2sda.config import ConfigError, load_config
from t2sda.errors import UserError
from t2sda.modeling.branch import Branch
from t2sda.modeling.projector import Projector
from t2sda.structures import FeatureSpec

T2SDA = str(Path(__file__).parents[2] / "configs/quickstart.yaml")


def by_hand(state: dict[str, Tensor], embeddings: Tensor, padding: int) -> Tensor:
    """Convolution without bias, batch statistics, scale and shift, ReLU; twice."""
    for block in "01":
        embeddings = F.conv2d(embeddings, state[f"{block}.0.weight"], padding=padding)
        mean = embeddings.mean((0, 2, 3), keepdim=True)
        variance = embeddings.var((0, 2, 3), keepdim=True, correction=0)
        scale, shift = (state[f"{block}.1.{name}"][:, None, None] for name in ("weight", "bias"))
        embeddings = ((embeddings - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
    return embeddings


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_embeddings_by_hand(kernel_size: int) -> None:
    cfg = load_config(T2SDA, ["MODEL.PROJECTOR.KERNEL_SIZE", str(kernel_size)])
    projector = Projector.from_config(cfg, [FeatureSpec(4, 4), FeatureSpec(6, 8)]).double().train()
    for parameter in projector.parameters():
        parameter.normal_()
    features = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    found = projector(features)
    assert found.shape == (2, 256, 5, 7)
    expected = by_hand(projector.state_dict(), features, padding=kernel_size // 2)
    torch.testing.assert_close(found, expected)
    assert sum(parameter.numel() for parameter in projector.parameters()) == (
        kernel_size**2 * 256 * (6 + 256) + 4 * 256
    )


def test_the_level_it_reads_is_a_setting() -> None:
    specs = [FeatureSpec(4, 4), FeatureSpec(6, 8), FeatureSpec(8, 16)]
    cfg = load_config(T2SDA, ["MODEL.PROJECTOR.LEVEL", "1"])
    assert Projector.from_config(cfg, specs)(torch.randn(2, 6, 3, 3)).shape == (2, 256, 3, 3)
    for level in ("3", "-4"):
        cfg = load_config(T2SDA, ["MODEL.PROJECTOR.LEVEL", level])
        with pytest.raises(UserError, match=rf"LEVEL: {level}, but TimmCNN has 3 levels; use 0 to"):
            Projector.from_config(cfg, specs)


def test_even_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"KERNEL_SIZE: 2 is even; use an odd one"):
        load_config(T2SDA, ["MODEL.PROJECTOR.KERNEL_SIZE", "2"])


class Pyramid(nn.Module):
    """Stands for a model whose record has the deepest features alone."""

    feature_specs = (FeatureSpec(4, 4), FeatureSpec(6, 8))


def test_a_model_without_levels_is_read_at_its_deepest_alone() -> None:
    features = SimpleNamespace(deepest=torch.ones(1, 6, 2, 2))
    for level in (-1, 1):
        branch = Branch(Pyramid(), nn.Identity(), level)  # type: ignore[arg-type]
        assert branch.embed(features) is features.deepest  # type: ignore[arg-type]
        assert branch.embedding_spec == FeatureSpec(6, 8)
    branch = Branch(Pyramid(), nn.Identity(), 0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"LEVEL: .* Pyramid gives no other; set .* to -1"):
        branch.embed(features)  # type: ignore[arg-type]
