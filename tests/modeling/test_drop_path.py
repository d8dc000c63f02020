"""Stochastic depth keeps the mean and drops whole images."""

import torch

from t2sda.modeling.drop_path import DropPath


def test_whole_images_are_dropped_and_the_mean_stays() -> None:
    kept = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    per_image = kept.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    assert set(per_image.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    # 4000 draws with standard deviation 0.58: five standard errors
    assert abs(float(kept.mean()) - 1) < 5 * 0.58 / 4000**0.5


def test_nothing_is_dropped_in_evaluation() -> None:
    branch = torch.randn(8, 3)
    assert DropPath(0.5).eval()(branch) is branch
