"""Labels on the grid of the features."""

import pytest
import torch
import torch.nn.functional as F

from t2sda.losses.sampling import labels_on_grid


@pytest.mark.parametrize("size", [(8, 12), (64, 64), (33, 47)])
@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (8, 6)])
def test_labels_on_grid_are_the_nearest_of_interpolate(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    labels = torch.randint(256, (2, *size), generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(labels[:, None].double(), grid, mode="nearest")[:, 0].long()
    assert torch.equal(labels_on_grid(labels, grid), expected)


def test_labels_on_grid_by_hand_for_labels_confidences_and_masks() -> None:
    # Rows floor(i * 5 / 2) = 0, 2; columns floor(j * 3 / 2) = 0, 1.
    labels = torch.arange(15).view(1, 5, 3)
    assert labels_on_grid(labels, (2, 2)).tolist() == [[[0, 1], [6, 7]]]
    assert labels_on_grid(labels / 16, (2, 2)).tolist() == [[[0.0, 1 / 16], [6 / 16, 7 / 16]]]
    assert labels_on_grid(labels > 5, (2, 2)).tolist() == [[[False, False], [True, True]]]
