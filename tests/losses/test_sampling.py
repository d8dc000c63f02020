"""Labels on the grid of the features."""

import pytest
import torch
import torch.nn.functional as F

from t2sda.losses.sampling import labels_on_grid
from t2sda.structures import FeatureSpec


def test_labels_without_offset_are_the_nearest_of_interpolate() -> None:
    labels = torch.randint(256, (2, 64, 32), generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(labels[:, None].double(), (8, 4), mode="nearest")[:, 0].long()
    assert torch.equal(labels_on_grid(labels, FeatureSpec(1, stride=8)), expected)


def test_labels_on_grid_by_hand_for_labels_confidences_and_masks() -> None:
    # Stride 4, centre 2.5 pixels in: rows 2 and, of 6 beyond the image, 4; columns 2 likewise.
    labels = torch.arange(15).view(1, 5, 3)
    spec = FeatureSpec(1, stride=4, offset=2.5)
    assert labels_on_grid(labels, spec).tolist() == [[[8], [14]]]
    assert labels_on_grid(labels / 16, spec).tolist() == [[[8 / 16], [14 / 16]]]
    assert labels_on_grid(labels > 8, spec).tolist() == [[[False], [True]]]


def test_a_level_of_an_image_shown_at_half_size_has_twice_the_stride() -> None:
    # Cells of 4 pixels with their centre between the second and third: of 8, the fourth and fifth.
    assert FeatureSpec(6, 4, 1.5).shown_at(0.5) == FeatureSpec(6, 8, 3.5)
    # Pixel 0 of the half-size image is the mean of pixels 0 and 1.
    assert FeatureSpec(6, 4, 0.0).shown_at(0.5) == FeatureSpec(6, 8, 0.5)


@pytest.mark.parametrize("offset", [0.0, 1.5, 3.0])
def test_a_cell_has_the_label_at_its_centre_and_not_at_its_corner(offset: float) -> None:
    labels = torch.full((1, 8, 8), 7)
    labels[0, int(offset) :: 4, int(offset) :: 4] = 3
    assert (labels_on_grid(labels, FeatureSpec(1, 4, offset)) == 3).all()
