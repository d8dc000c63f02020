"""Every registered backbone keeps the contract of Backbone, in its smallest size where listed."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import t2sda.builtin  # noqa: F401
from t2sda.config import load_config
from t2sda.errors import UserError
from t2sda.modeling.backbones.base import Backbone
from t2sda.registry import BACKBONES

SIZE = (64, 96)
# Settings of a small instance; what is not listed is built with the default settings.
SMALL = {
    "MiT": ["MODEL.BACKBONE.VARIANT", "b0"],
    "ResNetCaffe": ["MODEL.BACKBONE.DEPTH", "18"],
    "ResNetV1c": ["MODEL.BACKBONE.DEPTH", "18"],
    "TimmCNN": ["MODEL.BACKBONE.TIMM_NAME", "test_convnext"],
    "TimmViT": ["MODEL.BACKBONE.TIMM_NAME", "test_vit", "MODEL.BACKBONE.PYRAMID_CHANNELS", "16"],
}


TIMM_NAMES = ["resnet18d", "convnext_atto", "mobilenetv3_small_100", "tf_efficientnet_lite0"]


def build(name: str, seed: int = 0, settings: Sequence[str] = ()) -> Backbone:
    torch.manual_seed(seed)
    cfg = load_config(None, ["MODEL.BACKBONE.NAME", name, *SMALL.get(name, []), *settings])
    return BACKBONES.get(name).from_config(cfg)


def image_of(size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def weighted_sum(features: tuple[Tensor, ...]) -> Tensor:
    """Random weights: of a LayerNorm's output neither sum nor sum of squares has a gradient."""
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(level.shape, generator=generator) for level in features]
    return torch.stack(
        [(level * weight).sum() for level, weight in zip(features, weights, strict=True)]
    ).sum()


@pytest.fixture(params=BACKBONES.names(), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def backbone(name: str) -> Backbone:
    """Shared by the tests that change nothing in it."""
    return build(name).eval()


def test_specs_are_finest_first_and_normalisation_is_on_the_255_scale(backbone: Backbone) -> None:
    strides = [spec.stride for spec in backbone.feature_specs]
    assert strides == sorted(strides)
    assert len(backbone.pixel_mean) == len(backbone.pixel_std) == 3
    assert all(0 <= mean <= 255 for mean in backbone.pixel_mean)
    assert all(1 <= std <= 255 for std in backbone.pixel_std)


@pytest.mark.parametrize("size", [SIZE, (65, 97), (71, 33), (32, 127)])
def test_grids_are_the_size_over_the_stride_rounded_up(
    backbone: Backbone, size: tuple[int, int]
) -> None:
    with torch.no_grad():
        features = backbone(image_of(size))
    assert [tuple(level.shape) for level in features] == [
        (2, spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride))
        for spec in backbone.feature_specs
    ]
    assert all(level.isfinite().all() for level in features)


def test_every_parameter_gets_a_gradient(name: str) -> None:
    backbone = build(name).train()
    weighted_sum(backbone(image_of(SIZE))).backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, f"{key} has no gradient"
        assert parameter.grad.isfinite().all(), f"the gradient of {key} is not finite"


@torch.no_grad()
@pytest.mark.parametrize("drop_path", [0.0, 0.9])
def test_drop_path_alone_makes_training_random(name: str, drop_path: float) -> None:
    backbone = build(name, settings=["MODEL.BACKBONE.DROP_PATH", str(drop_path)]).train()
    for parameter in backbone.parameters():
        if parameter.dim() == 1:  # a norm that starts at zero would hide its branch
            parameter.uniform_(0.5, 1.5)
    first, second = (backbone(image_of(SIZE))[-1] for _ in range(2))
    assert torch.equal(first, second) is (drop_path == 0)


def test_the_whole_image_reaches_the_coarsest_features(backbone: Backbone) -> None:
    image = image_of((65, 97), batch=1).requires_grad_()
    weighted_sum(backbone(image)[-1:]).backward()
    assert image.grad is not None
    assert image.grad[..., -1, :].any(), "the last row has no influence"
    assert image.grad[..., -1].any(), "the last column has no influence"


@pytest.mark.parametrize("timm_name", TIMM_NAMES)
def test_offsets_of_timms_networks_are_where_the_gradient_is(timm_name: str) -> None:
    assert_offsets_are_measured("TimmCNN", ["MODEL.BACKBONE.TIMM_NAME", timm_name])


def test_offsets_are_where_the_gradient_is(name: str) -> None:
    assert_offsets_are_measured(name)


def assert_offsets_are_measured(name: str, settings: Sequence[str] = ()) -> None:
    """The centroid of a cell's gradient lies within a quarter of a stride of its centre.

    On average over weights: those of one network pull the centroid to one side.
    """
    measured = torch.tensor([centroids(build(name, seed, settings)) for seed in range(3)])
    for spec, found in zip(build(name, 0, settings).feature_specs, measured.mean(0), strict=True):
        assert abs(found - spec.offset) < spec.stride / 4, f"{spec}, but measured {found:.1f}"


def centroids(backbone: Backbone) -> list[float]:
    """Of the gradient of a cell of every level, in pixels from where the cell's stride begins."""
    for parameter in backbone.eval().parameters():
        if parameter.dim() == 1:  # a norm that starts at zero would hide its branch
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    side = 352
    image = image_of((side, side), batch=1).requires_grad_()
    found = []
    for spec, level in zip(backbone.feature_specs, backbone(image), strict=True):
        cell = (level.shape[-1] - 1) // 2
        weights = torch.randn(level.shape[:2], generator=torch.Generator().manual_seed(2))
        total = (level[:, :, cell, cell] * weights).sum()
        (gradient,) = torch.autograd.grad(total, image, retain_graph=True)
        energy = gradient.square().sum((0, 1))
        energy = (energy.sum(0) + energy.sum(1)) / (2 * energy.sum())  # (side,), both directions
        found.append(float((energy * torch.arange(side)).sum()) - cell * spec.stride)
    return found


def test_weights_follow_from_the_seed_of_torch(name: str) -> None:
    first, again, other = build(name, seed=0), build(name, seed=0), build(name, seed=1)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two, _ in pairs)
    assert any(not torch.equal(one, three) for one, _, three in pairs)


def test_state_dict_carries_everything(backbone: Backbone, name: str) -> None:
    other = build(name, seed=1).eval()
    other.load_state_dict(backbone.state_dict(), strict=True)
    with torch.no_grad():
        for ours, theirs in zip(backbone(image_of(SIZE)), other(image_of(SIZE)), strict=True):
            assert torch.equal(ours, theirs)


def test_bfloat16_autocast_stays_near_float32(backbone: Backbone) -> None:
    with torch.no_grad():
        exact = backbone(image_of(SIZE))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = backbone(image_of(SIZE))
    for level, reference in zip(rounded, exact, strict=True):
        # 8 bits of mantissa, 2**-9 a rounding, through some tens of layers
        assert (level.float() - reference).norm() < 0.1 * reference.norm()


# aot_eager traces and functionalises, then runs as it is; inductor writes and compiles C++ as well.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph_that_agrees(name: str, backend: str) -> None:
    backbone = build(name).eval()
    image = image_of((65, 97))
    with torch.no_grad():
        expected = backbone(image)
        found = torch.compile(backbone, backend=backend, fullgraph=True)(image)
    torch._dynamo.reset()
    for level, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(level, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [pytest.param(SIZE, marks=pytest.mark.slow), (65, 97)])
def test_onnx_agrees(backbone: Backbone, size: tuple[int, int], onnx_outputs: Callable) -> None:
    image = image_of(size)
    with torch.no_grad():
        expected = backbone(image)
    for found, level in zip(onnx_outputs(backbone, (image,)), expected, strict=True):
        # float32 sums in another order; relative to the level, whose scale is the network's affair
        scale = float(level.abs().max())
        torch.testing.assert_close(torch.from_numpy(found), level, atol=1e-4 * scale, rtol=0)


def test_fresh_modules_are_what_a_file_of_weights_leaves_as_it_was(
    name: str, tmp_path: Path
) -> None:
    published = build(name, seed=1)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.add_(1.0)  # so that it differs from a fresh one wherever that begins
    network = getattr(published, "net", published)  # what its authors publish
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    loaded = build(name, settings=["MODEL.BACKBONE.WEIGHTS", str(tmp_path / "weights.pth")])
    filled = {
        key
        for (key, own), other in zip(loaded.named_parameters(), published.parameters(), strict=True)
        if torch.equal(own, other)
    }
    fresh = {id(p) for module in loaded.fresh_modules() for p in module.parameters()}
    assert filled == {key for key, p in loaded.named_parameters() if id(p) not in fresh}


def test_a_checkpoint_of_ours_gives_its_students_backbone(name: str, tmp_path: Path) -> None:
    saved = build(name, seed=5).state_dict()
    content = {f"student.model.backbone.{key}": tensor for key, tensor in saved.items()}
    content |= {f"teacher.model.backbone.{key}": torch.zeros(1) for key in saved}
    content |= {"student.model.head.classifier.weight": torch.zeros(1)}
    path = tmp_path / "checkpoint_0000009.pth"
    torch.save({"format": "t2sda checkpoint 4", "meta_arch": content}, path)
    found = build(name, settings=["MODEL.BACKBONE.WEIGHTS", str(path)]).state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in saved.items())
    lost = next(key for key in saved if "num_batches" not in key)
    del content[f"student.model.backbone.{lost}"]
    torch.save({"format": "t2sda checkpoint 4", "meta_arch": content}, path)
    with pytest.raises(UserError, match=f"1 missing in the file .first {re.escape(lost)}"):
        build(name, settings=["MODEL.BACKBONE.WEIGHTS", str(path)])
