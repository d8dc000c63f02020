"""The light head's cheap order gives the numbers of the plain order."""

import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.modeling.heads.light import LightHead
from t2sda.structures import FeatureSpec

SPECS = (FeatureSpec(6, 4), FeatureSpec(10, 8), FeatureSpec(14, 16))


def features_of(height: int, width: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    grids = [(-(-height // spec.stride), -(-width // spec.stride)) for spec in SPECS]
    return tuple(
        torch.randn(2, spec.channels, *grid, generator=generator)
        for spec, grid in zip(SPECS, grids, strict=True)
    )


def test_projecting_before_upsampling_equals_one_convolution_on_the_upsampled_pyramid() -> None:
    torch.manual_seed(0)
    head = LightHead(SPECS, num_classes=3, channels=8).double().eval()
    features = tuple(level.double() for level in features_of(50, 70))
    # Plain order: everything on the finest grid, concatenated, one 1x1 convolution.
    grid = features[0].shape[-2:]
    upsampled = [
        F.interpolate(level, size=grid, mode="bilinear", align_corners=False) for level in features
    ]
    weight = torch.cat([project.weight for project in head.projections], dim=1)
    fused = F.conv2d(torch.cat(upsampled, dim=1), weight)
    expected = head.classifier(head.fuse(fused))
    torch.testing.assert_close(head(features), expected, atol=1e-12, rtol=1e-10)


def test_dropout_acts_in_training_only_and_on_whole_channels() -> None:
    torch.manual_seed(0)
    head = LightHead(SPECS, num_classes=3, channels=8, dropout=0.5)
    features = features_of(32, 32)
    head.eval()
    assert torch.equal(head(features), head(features))
    head.train()
    assert not torch.equal(head(features), head(features))
    dropped = head.dropout(torch.ones(2, 8, 4, 4))
    assert set(dropped.flatten(2).std(dim=2).flatten().tolist()) == {0.0}
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}


def test_start_is_near_equal_probabilities() -> None:
    torch.manual_seed(0)
    head = LightHead(SPECS, num_classes=4).eval()
    probs = head(features_of(32, 32)).softmax(dim=1)
    torch.testing.assert_close(probs, torch.full_like(probs, 0.25), atol=0.1, rtol=0)


def test_a_single_level_is_enough() -> None:
    head = LightHead(SPECS[:1], num_classes=3, channels=8).eval()
    assert head(features_of(32, 48)[:1]).shape == (2, 3, 8, 12)
