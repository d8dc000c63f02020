"""Block masks of masked image consistency (MIC, Hoyer et al., CVPR 2023)."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.losses.numerics import uniform


def cells_as_pixels(mask: Tensor, size: tuple[int, int], stride: int | Fraction) -> Tensor:
    """Every pixel has what its cell has.

    Args:
        mask: (B, 1, h, w) of cells, of any dtype.
        size: (H, W) of the image.
        stride: pixels from one cell to the next.
    Returns:
        (B, 1, H, W) of the same dtype.
    """
    rows, columns = (
        torch.arange(side, device=mask.device) * stride.denominator // stride.numerator
        for side in size
    )
    return mask[..., rows[:, None], columns]


def block_mask(
    num_images: int,
    size: tuple[int, int],
    block_size: int,
    ratio: float,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Which pixels stay visible: every block is hidden with probability `ratio`.

    The grid has round(H / block_size) x round(W / block_size) cells and is enlarged to the image by
    nearest neighbour, so blocks are a little larger or smaller where the size is no multiple of
    theirs (docs/fidelity.md, A9). Ranks draw for all images of the mini-batch and take their own.

    Args:
        num_images: B.
        size: (H, W) of the images.
        block_size: side of a block in pixels.
        ratio: share of the blocks that are hidden, in [0, 1).
        generator: consumed by one number a block.
        device: of the result.
    Returns:
        (B, 1, H, W) bool, True where the pixel stays.
    Raises:
        ValueError: if `ratio` is out of range or a block is larger than the image.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"the masked ratio is {ratio}; it must lie in [0, 1)")
    if block_size > min(size):
        raise ValueError(
            f"a block of {block_size} pixels does not fit into an image of {size}; make it smaller"
        )
    grid = (num_images, 1, *(round(length / block_size) for length in size))
    # Compared at the size of the grid and enlarged afterwards: one number for each block.
    visible = uniform(grid, generator, device) >= ratio
    return F.interpolate(visible.float(), size=size, mode="nearest").bool()
