"""The pull loss against Eq. (2) to (8), (10), (11) and Algorithm 1 in float64."""

import itertools
import math
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from t2sda.losses.pseudo_labels import unreliable_labels
from t2sda.losses.pull import (
    CHOICES,
    Keys,
    PullLoss,
)
from t2sda.losses.reweighting import dynamic_class_weights
from tests.host_reads import HostReads
from tests.references import pull as reference

SMALL = PullLoss(temperature=0.5, queries_per_class=4, num_negatives=6)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=_generator(seed), dtype=dtype)


class Scene:
    """Embeddings and labels of one mini-batch; `case` says what is special about the labels."""

    def __init__(self, case: str, shape: tuple[int, int, int, int] = (2, 5, 4, 6)) -> None:
        self.num_classes = 5
        grid = (shape[0], *shape[2:])
        self.queries = _randn(*shape, seed=1).requires_grad_()
        self.source_embeddings = _randn(*shape, seed=2)
        self.target_embeddings = _randn(*shape, seed=3)
        self.labels = torch.randint(self.num_classes, grid, generator=_generator(4))
        self.pseudo_labels = torch.randint(self.num_classes, grid, generator=_generator(5))
        self.confidence = torch.rand(grid, generator=_generator(6))
        self.class_weights = dynamic_class_weights(
            torch.rand(self.num_classes, generator=_generator(7), dtype=torch.float64), 0.5
        )
        self.threshold = 0.5
        if case == "absent":
            self.labels[self.labels == 3] = 0
        elif case == "ignored":
            self.labels[torch.rand(grid, generator=_generator(8)) < 0.4] = 255
            self.labels[0, 0, 0] = 2
        elif case == "one_class":
            self.labels.fill_(2)
        elif case == "never_predicted":
            self.pseudo_labels[self.pseudo_labels == 1] = 4
        elif case == "all_reliable":
            self.threshold = 0.0
        elif case == "one_class_everywhere":
            self.labels.fill_(2)
            self.pseudo_labels.fill_(2)
        elif case == "all_ignored":
            self.labels.fill_(255)
        self.has_target = case != "no_target"

    @property
    def source(self) -> Keys:
        return Keys.from_grid(self.source_embeddings, self.labels)

    @property
    def target(self) -> Keys | None:
        if not self.has_target:
            return None
        threshold = torch.tensor(self.threshold)
        labels = unreliable_labels(self.pseudo_labels, self.confidence, threshold)
        return Keys.from_grid(self.target_embeddings, labels)

    def loss(self, pull: PullLoss, seed: int = 0, images: slice = slice(None)) -> Tensor:
        """Of all images, or a rank's share with `images` of its own."""
        own = Keys.from_grid(self.queries[images], self.labels[images])
        return pull(
            own.embeddings,
            self.labels.flatten(),
            self.source,
            self.source,
            self.target,
            self.class_weights,
            _generator(seed),
            first_row=(images.start or 0) * self.labels[0].numel(),
        )

    def exact_reference(self, pull: PullLoss) -> float:
        """The paper's loss with all positions and candidates."""
        target = zip(
            reference.positions(self.target_embeddings.numpy()),
            self.pseudo_labels.flatten().tolist(),
            self.confidence.flatten().tolist(),
            itertools.repeat(self.threshold),
            strict=False,
        )
        return reference.exact_loss(
            self.queries.detach().numpy(),
            self.source_embeddings.numpy(),
            list(target) if self.has_target else [],
            self.labels.numpy(),
            self.class_weights.tolist(),
            asdict(pull),
        )


CASES = (
    *("plain", "absent", "ignored", "one_class", "never_predicted", "all_reliable"),
    *("one_class_everywhere", "all_ignored", "no_target"),
)


EXACT = replace(SMALL, query_draw="exact", negative_draw="exact")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", ["class_mean", "query_sum"])
def test_exact_loss_is_the_paper(case: str, reduction: str) -> None:
    scene, pull = Scene(case), replace(EXACT, reduction=reduction)
    assert scene.loss(pull).item() == pytest.approx(scene.exact_reference(pull), abs=1e-12)


OPTIONS = [name for name in CHOICES if not name.endswith("_draw")]


@pytest.mark.parametrize("choices", list(itertools.product(*(CHOICES[name] for name in OPTIONS))))
def test_every_choice_is_the_paper(choices: tuple[str, ...]) -> None:
    scene = Scene("ignored", (1, 3, 5, 5))
    pull = replace(EXACT, num_negatives=7, **dict(zip(OPTIONS, choices, strict=True)))  # type: ignore[arg-type]
    assert scene.loss(pull).item() == pytest.approx(scene.exact_reference(pull), abs=1e-12)


@pytest.mark.parametrize("draws", [("replacement", "exact"), ("exact", "replacement")])
def test_one_exact_draw_leaves_the_other_random(draws: tuple[str, str]) -> None:
    scene, pull = Scene("plain"), replace(SMALL, query_draw=draws[0], negative_draw=draws[1])
    losses = {scene.loss(pull, seed).item() for seed in (0, 0, 1)}
    assert len(losses) == 2


@pytest.mark.parametrize("objective", ["info_nce", "mse"])
@pytest.mark.parametrize("query_strategy", ["cbqs", "ceqs", "uniform"])
@pytest.mark.parametrize("reduction", ["class_mean", "query_sum"])
def test_exact_queries_are_the_mean_of_drawn_ones(
    objective: str, query_strategy: str, reduction: str
) -> None:
    # Two standard errors hold in 95 % of such comparisons; these seeds are among them. "uniform"
    # leaves a class out now and then, which its mean over queries does not make up for.
    scene = Scene("ignored")
    exact = replace(EXACT, objective=objective, query_strategy=query_strategy, reduction=reduction)
    exact = replace(exact, queries_per_class=8 if reduction == "query_sum" else 40)
    drawn = replace(exact, query_draw="replacement")  # the negatives are fixed
    losses = np.array([scene.loss(drawn, seed).item() for seed in range(300)])
    error = losses.std(ddof=1) / math.sqrt(len(losses))
    assert error > 0
    assert abs(losses.mean() - scene.loss(exact).item()) < 2 * error


def test_float32_embeddings_agree_with_float64() -> None:
    scene = Scene("plain")
    exact = scene.loss(SMALL).item()
    scene.queries = scene.queries.detach().float()
    scene.source_embeddings = scene.source_embeddings.float()
    scene.target_embeddings = scene.target_embeddings.float()
    assert scene.loss(SMALL).item() == pytest.approx(exact, abs=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert scene.loss(SMALL).item() == pytest.approx(exact, abs=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    scene = Scene("ignored", (1, 3, 3, 3))

    def loss(queries: Tensor, pull: PullLoss) -> Tensor:
        scene.queries = queries
        return scene.loss(pull)

    for pull in (
        SMALL,
        replace(SMALL, objective="mse"),
        replace(EXACT, reduction="query_sum"),
    ):
        queries = scene.queries.detach().requires_grad_()
        assert torch.autograd.gradcheck(partial(loss, pull=pull), queries)


@pytest.mark.parametrize("negative_draw", ["replacement", "exact"])
@pytest.mark.parametrize("objective", ["info_nce", "mse"])
def test_no_gradient_reaches_keys_or_prototypes(negative_draw: str, objective: str) -> None:
    scene = Scene("plain")
    scene.source_embeddings.requires_grad_()
    scene.target_embeddings.requires_grad_()
    scene.loss(replace(SMALL, negative_draw=negative_draw, objective=objective)).backward()
    assert scene.source_embeddings.grad is None
    assert scene.target_embeddings.grad is None
    assert scene.queries.grad is not None
    assert scene.queries.grad.abs().sum() > 0


@pytest.mark.parametrize("query_draw", ["replacement", "exact"])
@pytest.mark.parametrize("negative_draw", ["replacement", "exact"])
@pytest.mark.parametrize("case", ["all_ignored", "one_class_everywhere"])
def test_nothing_left_is_zero_and_connected(case: str, query_draw: str, negative_draw: str) -> None:
    scene = Scene(case)
    loss = scene.loss(replace(SMALL, query_draw=query_draw, negative_draw=negative_draw))
    loss.backward()
    assert loss.item() == 0
    assert scene.queries.grad is not None
    assert torch.equal(scene.queries.grad, torch.zeros_like(scene.queries))


def test_embeddings_of_zero_keep_loss_and_gradient_finite() -> None:
    scene = Scene("plain")
    scene.queries = torch.zeros_like(scene.queries).requires_grad_()
    scene.source_embeddings = torch.zeros_like(scene.source_embeddings)
    loss = scene.loss(SMALL)
    loss.backward()
    # All products are 0: one positive among 6 negatives, for each class.
    assert loss.item() == pytest.approx(math.log(7))
    assert scene.queries.grad is not None
    assert scene.queries.grad.isfinite().all()
    assert scene.queries.grad.abs().max() < 100


@pytest.mark.parametrize("where", ["queries", "source_embeddings", "target_embeddings"])
def test_a_nan_is_not_hidden(where: str) -> None:
    scene = Scene("plain")
    getattr(scene, where).data.fill_(math.nan)
    assert scene.loss(SMALL).isnan()


@pytest.mark.parametrize("query_draw", ["replacement", "exact"])
@pytest.mark.parametrize("negative_draw", ["replacement", "exact"])
def test_identical_embeddings_by_hand(query_draw: str, negative_draw: str) -> None:
    # All cosines are 1, so a query's loss is log(1 + m); the weights sum to 1. Five classes of 8
    # positions each: n_q(c) = n = 4, so the query sum is n / C = 4 / 5 of the class mean.
    scene = Scene("plain", (2, 3, 4, 5))
    scene.labels = torch.arange(40).view(2, 4, 5) % 5
    for embeddings in (scene.source_embeddings, scene.target_embeddings, scene.queries.data):
        embeddings.fill_(0.7)
    pull = replace(SMALL, query_draw=query_draw, negative_draw=negative_draw)
    assert scene.loss(pull).item() == pytest.approx(math.log(7), abs=1e-6)
    summed = scene.loss(replace(pull, reduction="query_sum")).item()
    assert summed == pytest.approx(0.8 * math.log(7), abs=1e-6)
    assert scene.loss(replace(pull, objective="mse")).item() == pytest.approx(0, abs=1e-12)


def test_the_reweighting_exponent_has_an_effect() -> None:
    scene, losses = Scene("plain"), []
    confidence = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    for exponent in (0.0, 0.5, 1.0):
        scene.class_weights = dynamic_class_weights(confidence, exponent)
        losses.append(scene.loss(SMALL).item())
    assert len({round(loss, 6) for loss in losses}) == 3


@pytest.mark.parametrize("case", ["plain", "absent", "ignored"])
@pytest.mark.parametrize("query_draw", ["replacement", "exact"])
def test_shares_of_two_ranks_add_up_to_the_whole(case: str, query_draw: str) -> None:
    scene, pull = Scene(case), replace(SMALL, query_draw=query_draw)
    scene.labels[0][scene.labels[0] == 2] = 4  # class 2 is on one rank only
    whole = scene.loss(pull)
    (whole_gradient,) = torch.autograd.grad(whole, scene.queries)
    shares = [scene.loss(pull, images=slice(image, image + 1)) for image in (0, 1)]
    (gradient,) = torch.autograd.grad(shares[0] + shares[1], scene.queries)
    torch.testing.assert_close(shares[0] + shares[1], whole)
    torch.testing.assert_close(gradient, whole_gradient)


@pytest.mark.parametrize("reduction", ["class_mean", "query_sum"])
def test_permuting_pixels_changes_nothing_in_exact_mode(reduction: str) -> None:
    pull = replace(EXACT, reduction=reduction)
    scene = Scene("ignored")
    before = scene.loss(pull)
    order = torch.randperm(24, generator=_generator(9))

    def permuted(values: Tensor) -> Tensor:
        return values.flatten(-2)[..., order].view_as(values)

    for name in ("queries", "source_embeddings", "labels", "target_embeddings"):
        setattr(scene, name, permuted(getattr(scene, name)))
    scene.pseudo_labels, scene.confidence = (
        permuted(scene.pseudo_labels),
        permuted(scene.confidence),
    )
    torch.testing.assert_close(scene.loss(pull), before, atol=1e-6, rtol=0)
    assert scene.loss(replace(pull, query_draw="replacement")) != before


def test_mse_asks_for_no_negatives() -> None:
    scene = Scene("plain")
    pull = replace(SMALL, objective="mse")
    assert pull.negative_domains == ()
    queries, labels = Keys.from_grid(scene.queries, scene.labels)
    arguments = (queries, labels, scene.source)
    alone = pull(*arguments, None, None, scene.class_weights, _generator())
    assert torch.equal(alone, scene.loss(pull))
    with pytest.raises(ValueError, match="InfoNCE needs negatives"):
        SMALL(*arguments, None, None, scene.class_weights, _generator())


def test_exact_negatives_are_all_candidates_by_their_share() -> None:
    # One query class with 2 source and 1 target candidates, m = 4: each counts 1, 1 and 2 times.
    labels, target_labels = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 255])
    queries, source, target = (_randn(3, 3, seed=seed) for seed in (1, 2, 3))
    keys = Keys(source, labels)
    loss = replace(EXACT, num_negatives=4)(
        queries,
        labels,
        keys,
        keys,
        Keys(target, target_labels),
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        _generator(),
    )
    query, positive, first, second, third = (
        vector.numpy() for vector in (queries[0], *source, target[0])
    )
    expected = reference.info_nce(query, positive, [first, second, third, third], 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_keys_of_a_memory_need_no_grid() -> None:
    # Classes 0 and 1; the memory holds five keys of class 1, whatever the batch has.
    memory = Keys(_randn(5, 3, seed=1), torch.ones(5, dtype=torch.int64))
    queries, positives = _randn(2, 3, seed=2), _randn(2, 3, seed=3)
    labels = torch.tensor([0, 0])
    loss = replace(EXACT, num_negatives=5, negative_strategy="source")(
        queries,
        labels,
        Keys(positives, labels),
        memory,
        None,
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        _generator(),
    )
    expected = [
        reference.info_nce(
            query.numpy(), positives.mean(dim=0).numpy(), list(memory.embeddings.numpy()), 0.5
        )
        for query in queries
    ]
    assert loss.item() == pytest.approx(sum(expected) / 2, abs=1e-12)


@pytest.mark.parametrize("empty", ["positives", "source", "target", "source and target"])
def test_an_empty_memory_skips_what_needs_it(empty: str) -> None:
    scene = Scene("plain")
    nothing = Keys(torch.empty(0, 5, dtype=torch.float64), torch.empty(0, dtype=torch.int64))
    queries, labels = Keys.from_grid(scene.queries, scene.labels)
    positives = nothing if empty == "positives" else scene.source
    source = nothing if "source" in empty else scene.source
    target = nothing if "target" in empty else scene.target
    loss = SMALL(queries, labels, positives, source, target, scene.class_weights, _generator())
    assert loss.isfinite()
    assert (loss == 0) == (empty in ("positives", "source and target"))


@pytest.mark.parametrize("query_strategy", ["cbqs", "ceqs", "uniform"])
@pytest.mark.parametrize("negative_strategy", ["domain_equalized", "union", "source"])
@pytest.mark.parametrize("how", ["replacement", "exact"])
def test_the_host_reads_once(query_strategy: str, negative_strategy: str, how: str) -> None:
    scene = Scene("ignored")
    pull = replace(
        SMALL,
        query_strategy=query_strategy,
        negative_strategy=negative_strategy,
        query_draw=how,
        negative_draw=how,
    )
    with HostReads() as host:
        scene.loss(pull).backward()
    assert host.reads == 1


class LargestResult(TorchDispatchMode):
    """Watches how many numbers the largest result of an operation has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("negative_strategy", ["domain_equalized", "union", "source"])
def test_nothing_as_large_as_the_keys_of_all_ranks_is_made(negative_strategy: str) -> None:
    rows, channels, num_classes = 4000, 16, 5
    labels = torch.randint(num_classes, (rows,), generator=_generator(1))
    source, target = (Keys(_randn(rows, channels, seed=seed), labels) for seed in (2, 3))
    queries = _randn(40, channels, seed=4).requires_grad_()
    weights = torch.full((num_classes,), 1 / num_classes)
    pull = replace(SMALL, negative_strategy=negative_strategy)
    with LargestResult() as largest:
        pull(queries, labels, source, source, target, weights, _generator()).backward()
    # The one-hot labels of the prototypes, 16 of which would be one domain's keys.
    assert largest.numbers == num_classes * rows < rows * channels


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"objective.*'cosine'; known: info_nce, mse"):
        PullLoss(objective="cosine")
    with pytest.raises(ValueError, match="reduction"):
        PullLoss(reduction="mean")
    with pytest.raises(ValueError, match=r"temperature .* 0; must be > 0"):
        PullLoss(temperature=0)


def test_labels_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 6\).*\(1, 8, 12\).*labels_on_grid"):
        Keys.from_grid(torch.zeros(1, 3, 4, 6), torch.zeros(1, 8, 12, dtype=torch.int64))


def test_rows_of_a_grid_are_its_positions() -> None:
    embeddings, labels = _randn(2, 3, 4, 5, seed=1), torch.arange(40).view(2, 4, 5)
    keys = Keys.from_grid(embeddings, labels)
    np.testing.assert_array_equal(
        keys.embeddings.numpy(), np.array(reference.positions(embeddings.numpy()))
    )
    assert keys.labels.tolist() == list(range(40))
