"""Block masks: their grid, their share, and who draws them."""

from fractions import Fraction

import pytest
import torch

from t2sda.losses.masking import block_mask, cells_as_pixels

CPU = torch.device("cpu")


def _mask(num_images: int, size: tuple[int, int], block: int, ratio: float) -> torch.Tensor:
    return block_mask(num_images, size, block, ratio, torch.Generator().manual_seed(3), CPU)


def test_blocks_are_hidden_whole() -> None:
    mask = _mask(2, (64, 96), 16, 0.5)
    assert mask.shape == (2, 1, 64, 96)
    blocks = mask.view(2, 4, 16, 6, 16).float().mean(dim=(2, 4))
    assert set(blocks.unique().tolist()) == {0.0, 1.0}


def test_the_share_of_hidden_blocks_is_the_ratio() -> None:
    visible = _mask(50, (512, 512), 32, 0.7).float().mean().item()
    # 50 * 256 blocks: a standard error of 0.4 %
    assert visible == pytest.approx(0.3, abs=0.016)


def test_the_grid_is_rounded_where_blocks_do_not_fill_the_image() -> None:
    # 70 / 32 rounds to 2 blocks, 80 / 32 = 2.5 to 2 (to even), as Python rounds.
    mask = _mask(20, (70, 80), 32, 0.5)
    assert torch.equal(mask[..., :35, :], mask[..., :1, :].expand(-1, -1, 35, -1))
    assert torch.equal(mask[..., 35:, :], mask[..., 69:, :].expand(-1, -1, 35, -1))
    assert torch.equal(mask[..., :40], mask[..., :1].expand(-1, -1, -1, 40))


def test_pixels_have_what_their_cell_has() -> None:
    cells = torch.arange(2 * 3).view(1, 1, 2, 3)
    pixels = cells_as_pixels(cells, (25, 38), Fraction(64, 5))  # 12.8 pixels a cell
    for row in range(25):
        for column in range(38):
            assert pixels[0, 0, row, column] == cells[0, 0, int(row / 12.8), int(column / 12.8)]


def test_a_ratio_of_zero_hides_nothing() -> None:
    assert _mask(3, (64, 64), 16, 0.0).all()


def test_a_rank_takes_the_rows_that_one_process_would_draw() -> None:
    assert torch.equal(_mask(4, (64, 64), 16, 0.7)[:2], _mask(2, (64, 64), 16, 0.7))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        _mask(1, (64, 64), 16, ratio)


def test_a_block_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="block of 65 pixels does not fit"):
        _mask(1, (64, 128), 65, 0.5)
