"""T2SDA.PROTOTYPES running: prototypes of all steps so far in place of the mini-batch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.distributed import CumulativeClassMeans
from t2sda.losses.pull import Keys, PullLoss
from t2sda.losses.sampling import labels_on_grid
from t2sda.meta_arch.base import build_meta_arch
from t2sda.meta_arch.pull import Pull
from t2sda.modeling.segmentor import Features
from t2sda.structures import DomainBatch, Step
from tests.host_reads import HostReads
from tests.meta_arch.conftest import config_of, step_of
from tests.meta_arch.test_pull import Projected, taught_with

NUM_CLASSES, CHANNELS = 5, 6
RUNNING = ("T2SDA.PROTOTYPES", "running")


def pull_of(positives: str, norm: str) -> Pull:
    loss = PullLoss(num_negatives=8, query_draw="exact", negative_draw="exact", prototype_norm=None)
    means = CumulativeClassMeans(NUM_CLASSES, CHANNELS).double()
    return Pull(loss, 1.0, positives, 0.5, norm, means)


def steps(count: int) -> list[tuple[Step, Tensor]]:
    """Steps with a teacher, and queries; class 4 is in the first alone, as label and prediction."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        shape = (2, CHANNELS, 4, 4)
        queries, source, target = (
            torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)
        )
        classes = NUM_CLASSES - (number > 0)
        labels = torch.randint(classes, (2, 8, 8), generator=generator)
        labels[:, :2] = 255
        probs = torch.rand(2, NUM_CLASSES, 8, 8, generator=generator)
        probs[:, classes:] = 0
        step = step_of(DomainBatch(torch.zeros(2, 3, 8, 8), labels))
        step.teacher = taught_with(source, target, probs.double().softmax(dim=1))
        found.append((step, queries))
    return found


def loss_of(pull: Pull, step: Step, queries: Tensor) -> Tensor:
    student = Projected(NUM_CLASSES, 2)
    return pull.losses(student, Features((queries,), (1, 1)), step)["loss_pull"]  # type: ignore[arg-type]


def positives_of(pull: Pull, step: Step) -> Keys:
    spec = Projected(NUM_CLASSES, 2).embedding_spec
    return pull._keys(step, labels_on_grid(step.batch.source_label, spec), spec)[pull.positives]


@pytest.mark.parametrize("norm", ["after", "before", "both"])
@pytest.mark.parametrize("positives", ["source", "target"])
def test_the_loss_is_that_of_one_mini_batch_with_the_positives_of_all_steps(
    positives: str, norm: str
) -> None:
    pull, seen = pull_of(positives, norm), []
    for step, queries in steps(3):
        found = loss_of(pull, step, queries)
        seen.append(positives_of(pull, step))
        every = Keys(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
        batch = Pull(
            PullLoss(
                num_negatives=8, query_draw="exact", negative_draw="exact", prototype_norm=norm
            ),
            *(1.0, positives, 0.5),
        )
        batch._positives = lambda keys, step, every=every: every  # type: ignore[method-assign]
        torch.testing.assert_close(found, loss_of(batch, step, queries))
    assert found > 0


def test_a_class_without_positives_in_the_mini_batch_is_pulled_by_the_earlier_ones() -> None:
    # Queries have the source's labels, so only target positives can lack a class that has queries.
    (first, queries), (second, _) = steps(2)
    pull = pull_of("target", "after")
    loss_of(pull, first, queries)
    second.batch.source_label.fill_(4)
    assert 4 not in positives_of(pull, second).labels
    pull.pull_loss = PullLoss(objective="mse", prototype_norm=None)
    assert loss_of(pull, second, queries) > 0
    assert loss_of(pull_of("target", "after"), second, queries) == 0


def test_a_step_reads_from_the_device_once_and_gradients_reach_queries_alone() -> None:
    pull, ((step, queries),) = pull_of("source", "after"), steps(1)
    queries.requires_grad_()
    with HostReads() as host:
        loss_of(pull, step, queries).backward()
    assert host.reads == 1
    assert queries.grad is not None
    assert not pull.running.means.requires_grad  # type: ignore[union-attr]


def test_the_setting_gives_the_pass_means_that_are_saved() -> None:
    own = [
        name
        for name in build_meta_arch(config_of("T2SDA", *RUNNING), CITYSCAPES_19).state_dict()
        if name.startswith("passes.")
    ]
    assert own == ["passes.pull.pull.running.means", "passes.pull.pull.running.counts"]
    batch = build_meta_arch(config_of("T2SDA"), CITYSCAPES_19)
    assert not any(name.startswith("passes.") for name in batch.state_dict())
