"""Objectives of the pull loss and augmentations that somebody else registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from t2sda.config import ConfigError
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.distributed import own_share
from t2sda.errors import UserError
from t2sda.losses.augmentation import draw_photometric, photometric_distortion
from t2sda.losses.pull import info_nce, pull_mse
from t2sda.meta_arch.augmentations import Augmentation, augmented
from t2sda.meta_arch.base import ImagePass, build_meta_arch
from t2sda.meta_arch.objectives import PullObjective
from t2sda.meta_arch.self_training import MixedPass
from t2sda.registry import AUGMENTATIONS, OBJECTIVES
from t2sda.structures import DomainBatch
from tests.components import components_restored
from tests.meta_arch.conftest import config_of, step_of
from tests.meta_arch.test_pull import built, taught

MakeBatch = Callable[..., DomainBatch]


class Near(PullObjective):
    """The squared distance by another name."""

    contrasts = False

    def __call__(
        self, queries: Tensor, prototype: Tensor, negatives: object, log_times: object
    ) -> Tensor:
        assert negatives is log_times is None
        return pull_mse(queries, prototype)


class Apart(PullObjective):
    """InfoNCE at τ = 0.2 by another name."""

    def __call__(
        self,
        queries: Tensor,
        prototype: Tensor,
        negatives: Tensor | None,
        log_times: Tensor | None,
    ) -> Tensor:
        assert negatives is not None
        assert log_times is not None
        return info_nce(queries, prototype, negatives, log_times, 0.2)


class Darker(Augmentation):
    """Every image by an amount of its own."""

    def draw(self, num_images: int, generator: torch.Generator) -> list[float]:
        return torch.rand(num_images, generator=generator).tolist()

    def apply(self, image: Tensor, drawn: Sequence[float]) -> Tensor:
        return image * torch.tensor(drawn)[:, None, None, None]


class Smaller(Darker):
    """Moves what is in the image."""

    def apply(self, image: Tensor, drawn: Sequence[float]) -> Tensor:
        return image[..., ::2]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with components_restored():
        OBJECTIVES.add("near", Near)
        OBJECTIVES.add("apart", Apart)
        AUGMENTATIONS.add("darker", Darker)
        yield


@pytest.mark.parametrize(("own", "shipped"), [("near", "mse"), ("apart", "info_nce")])
def test_an_objective_gives_the_loss_of_its_equation(
    own: str, shipped: str, make_batch: MakeBatch
) -> None:
    losses = []
    for objective in (own, shipped):
        meta_arch = built("pull", {"OBJECTIVE": objective})
        step = taught(meta_arch, make_batch())
        losses.append(meta_arch("pull", step)["loss_pull"].item())
    assert losses[0] == losses[1] > 0


def test_settings_of_negatives_have_an_effect_where_the_objective_has_some() -> None:
    assert config_of("T2SDA", "T2SDA.OBJECTIVE", "apart").T2SDA.NUM_NEGATIVES == 32
    with pytest.raises(ConfigError, match="NUM_NEGATIVES .*no effect.*has negatives"):
        config_of("T2SDA", "T2SDA.OBJECTIVE", "near")


@pytest.mark.parametrize("key", ["T2SDA.OBJECTIVE", "STRONG_AUGMENTATION.NAME", "SOLVER.OPTIMIZER"])
def test_an_unknown_name_is_an_error_that_knows_of_plugins(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: found 'neer' .* one of .* --plugin MODULE"):
        config_of("T2SDA", key, "neer")


def test_a_registered_augmentation_is_drawn_from_the_streams_of_the_pass(
    make_batch: MakeBatch,
) -> None:
    cfg = config_of(
        "SelfTraining",
        *("STRONG_AUGMENTATION.NAME", "darker", "SOURCE_AUGMENTATION.NAME", "photometric"),
    )
    passes = build_meta_arch(cfg, CITYSCAPES_19).passes
    source, mixed = passes["source"], passes["mixed"]
    assert isinstance(source, ImagePass)
    assert isinstance(mixed, MixedPass)
    step = step_of(make_batch())
    drawn = draw_photometric(2, step.streams.generator("source augmentation"))
    image = step.batch.source_image
    assert torch.equal(source.image(step), photometric_distortion(image, drawn))
    amounts = torch.rand(2, generator=step.streams.generator("strong augmentation"))
    expected = image.float() * amounts[:, None, None, None]
    assert torch.equal(mixed.augmentation(image, step), expected)


def test_two_ranks_do_as_one(make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    step = step_of(make_batch())
    image = step.batch.source_image
    whole = augmented(image, Darker(), step, "own")
    for rank in (0, 1):
        monkeypatch.setattr("t2sda.meta_arch.augmentations.world_size", lambda: 2)
        share = slice(rank, rank + 1)
        monkeypatch.setattr("t2sda.meta_arch.augmentations.own_share", lambda _, s=share: s)
        assert torch.equal(augmented(image[share], Darker(), step, "own"), whole[share])
    assert own_share(2) == slice(0, 2)


def test_an_augmentation_that_moves_things_is_refused(make_batch: MakeBatch) -> None:
    step = step_of(make_batch())
    with pytest.raises(UserError, match=r"Smaller made \(2, 3, 64, 48\) .*must keep their shape"):
        augmented(step.batch.source_image, Smaller(), step, "own")


def test_settings_of_jitter_and_blur_belong_to_it() -> None:
    blur = ("STRONG_AUGMENTATION.BLUR_PROBABILITY", "1.0")
    with pytest.raises(ConfigError, match="BLUR_PROBABILITY .*no effect.*is jitter_and_blur"):
        config_of("SelfTraining", "STRONG_AUGMENTATION.NAME", "darker", *blur)
    config_of("SourceOnly", "SOURCE_AUGMENTATION.NAME", "jitter_and_blur", *blur)


def test_labelled_images_are_changed_in_one_way() -> None:
    ways = ("SOURCE_AUGMENTATION.NAME", "darker", "SOURCE_AUGMENTATION.PHOTOMETRIC", "true")
    with pytest.raises(ConfigError, match="PHOTOMETRIC and NAME both distort colors; set one"):
        config_of("SourceOnly", *ways)
