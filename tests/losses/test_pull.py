"""The pull loss against Eq. (2), (3), (5) and Algorithm 1 in float64."""

import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from t2sda.losses.info_nce import info_nce
from t2sda.losses.negatives import has_negatives, sample_negatives, unreliable_labels
from t2sda.losses.numerics import l2_normalize
from t2sda.losses.pull import (
    LabelledEmbeddings,
    PullLoss,
    class_embedding_sums,
    class_prototypes,
    pull_mse,
    query_weights,
)
from t2sda.losses.reweighting import dynamic_class_weights
from t2sda.losses.sampling import num_queries, positions_by_class, sample_queries
from tests.references import pull as reference


@pytest.fixture(params=["sizes follow values", "sizes are fixed"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How queries are laid out on a CPU, and on a device that must not wait."""
    if request.param == "sizes are fixed":
        for module in ("sampling", "pull"):
            monkeypatch.setattr(f"t2sda.losses.{module}.reads_are_free", lambda _: False)
    return request.param


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
    def source(self) -> LabelledEmbeddings:
        return LabelledEmbeddings(self.source_embeddings, self.labels)

    @property
    def target(self) -> LabelledEmbeddings | None:
        if not self.has_target:
            return None
        threshold = torch.tensor(self.threshold)
        labels = unreliable_labels(self.pseudo_labels, self.confidence, threshold)
        return LabelledEmbeddings(self.target_embeddings, labels)

    def loss(self, pull: PullLoss, seed: int = 0) -> Tensor:
        return pull(
            self.queries,
            self.labels,
            self.source,
            self.source,
            self.target,
            self.class_weights,
            _generator(seed),
        )


CASES = (
    *("plain", "absent", "ignored", "one_class", "never_predicted", "all_reliable"),
    *("one_class_everywhere", "all_ignored", "no_target"),
)


def _reference_loss(scene: Scene, pull: PullLoss, seed: int = 0) -> float:
    """The paper's loss of the very positions that `pull` draws from generator `seed`."""
    generator = _generator(seed)
    labels = positions_by_class(scene.labels, scene.num_classes)
    target = scene.target
    target_labels = scene.labels[:0] if target is None else target.labels
    target_positions = positions_by_class(target_labels, scene.num_classes)
    wanted = num_queries(labels.counts, pull.queries_per_class, pull.query_strategy, generator)
    max_queries = scene.num_classes * (pull.queries_per_class + 1)
    groups = sample_queries(labels, wanted, max_queries, generator)
    drawn = sample_negatives(
        labels, target_positions, pull.num_negatives, pull.negative_strategy, generator
    )
    queries = reference.positions(scene.queries.detach().numpy())
    pool = reference.positions(scene.source_embeddings.numpy())
    pool += reference.positions(scene.target_embeddings.numpy())
    usable = has_negatives(labels, target_positions, pull.negative_strategy) | (
        pull.objective == "mse"
    )
    losses: list[list[float]] = [[] for _ in range(scene.num_classes)]
    for c, members, times in zip(*(part.tolist() for part in groups), strict=True):
        positive = reference.class_prototype(
            scene.source_embeddings.numpy(), scene.labels.numpy(), c
        )
        for member, repeated in zip(members, times, strict=True):
            if not repeated or not usable[c]:
                continue
            assert positive is not None
            if pull.objective == "mse":
                loss = reference.mse(queries[member], positive)
            else:
                negatives = [pool[key] for key in drawn[c].tolist()]
                loss = reference.info_nce(queries[member], positive, negatives, pull.temperature)
            losses[c] += [loss] * round(repeated)
    return reference.pull_loss(losses, scene.class_weights.tolist(), pull.reduction)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", ["class_mean", "query_sum"])
def test_pull_loss_is_the_paper(case: str, reduction: str) -> None:
    scene, pull = Scene(case), replace(SMALL, reduction=reduction)
    assert scene.loss(pull).item() == pytest.approx(_reference_loss(scene, pull), abs=1e-6)


@pytest.mark.parametrize("query_strategy", ["cbqs", "ceqs", "uniform"])
@pytest.mark.parametrize("negative_strategy", ["domain_equalized", "union", "source"])
@pytest.mark.parametrize("objective", ["info_nce", "mse"])
def test_every_strategy_is_the_paper(
    query_strategy: str, negative_strategy: str, objective: str
) -> None:
    scene = Scene("ignored", (1, 3, 5, 5))
    pull = replace(
        SMALL,
        query_strategy=query_strategy,
        negative_strategy=negative_strategy,
        objective=objective,
        reduction="query_sum",
    )
    assert scene.loss(pull).item() == pytest.approx(_reference_loss(scene, pull), abs=1e-6)


@pytest.mark.usefixtures("layout")
def test_many_queries_on_a_small_grid_and_few_on_a_large_one() -> None:
    for shape, base in (((1, 4, 2, 3), 100), ((2, 4, 20, 20), 30)):
        scene, pull = Scene("plain", shape), replace(SMALL, queries_per_class=base)
        assert scene.loss(pull).item() == pytest.approx(_reference_loss(scene, pull), abs=1e-6)


def test_float32_embeddings_agree_with_float64() -> None:
    scene = Scene("plain")
    exact = scene.loss(SMALL).item()
    scene.queries = scene.queries.detach().float()
    scene.source_embeddings = scene.source_embeddings.float()
    scene.target_embeddings = scene.target_embeddings.float()
    assert scene.loss(SMALL).item() == pytest.approx(exact, abs=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert scene.loss(SMALL).item() == pytest.approx(exact, abs=1e-5)


@pytest.mark.usefixtures("layout")
def test_the_gradient_is_that_of_finite_differences() -> None:
    scene = Scene("ignored", (1, 3, 3, 3))

    def loss(queries: Tensor, pull: PullLoss) -> Tensor:
        scene.queries = queries
        return scene.loss(pull)

    for pull in (
        SMALL,
        replace(SMALL, objective="mse"),
        replace(SMALL, query_draw="exact", negative_draw="exact", reduction="query_sum"),
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


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("case", ["plain", "absent", "ignored"])
@pytest.mark.parametrize("query_draw", ["replacement", "exact"])
def test_shares_of_two_ranks_add_up_to_the_whole(case: str, query_draw: str) -> None:
    scene, pull = Scene(case), replace(SMALL, query_draw=query_draw)
    scene.labels[0][scene.labels[0] == 2] = 4  # class 2 is on one rank only
    whole = scene.loss(pull)
    (whole_gradient,) = torch.autograd.grad(whole, scene.queries)
    shares = [
        pull(
            scene.queries[image : image + 1],
            scene.labels,
            scene.source,
            scene.source,
            scene.target,
            scene.class_weights,
            _generator(),
            first_image=image,
        )
        for image in (0, 1)
    ]
    (gradient,) = torch.autograd.grad(shares[0] + shares[1], scene.queries)
    torch.testing.assert_close(shares[0] + shares[1], whole)
    torch.testing.assert_close(gradient, whole_gradient)


@pytest.mark.parametrize("reduction", ["class_mean", "query_sum"])
def test_permuting_pixels_changes_nothing_in_exact_mode(reduction: str) -> None:
    pull = replace(SMALL, query_draw="exact", negative_draw="exact", reduction=reduction)
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


@pytest.mark.parametrize("reduction", ["class_mean", "query_sum"])
def test_exact_queries_are_the_mean_of_sampled_ones(reduction: str) -> None:
    scene = Scene("ignored")
    sampled = replace(SMALL, negative_draw="exact", reduction=reduction)  # negatives are fixed
    losses = np.array([scene.loss(sampled, seed).item() for seed in range(400)])
    exact = scene.loss(replace(sampled, query_draw="exact")).item()
    assert losses.std() > 0
    assert abs(losses.mean() - exact) < 4 * losses.std() / math.sqrt(len(losses))


@pytest.mark.parametrize("prototype_norm", ["after", "before", "both"])
def test_positive_keys_are_those_of_the_reading(prototype_norm: str) -> None:
    scene = Scene("ignored")
    pull = replace(SMALL, objective="mse", query_draw="exact", prototype_norm=prototype_norm)
    expected = 0.0
    embeddings = scene.source_embeddings.numpy()
    queries = reference.positions(scene.queries.detach().numpy())
    for c, weight in enumerate(scene.class_weights.tolist()):
        key = reference.positive_key(embeddings, scene.labels.numpy(), c, prototype_norm)
        members = [
            query
            for query, label in zip(queries, scene.labels.flatten().tolist(), strict=True)
            if label == c
        ]
        distances = [((reference.norm(query) - key) ** 2).sum() for query in members]
        expected += weight * sum(distances) / len(distances)
    assert scene.loss(pull).item() == pytest.approx(expected, abs=1e-6)


def test_mse_asks_for_no_negatives() -> None:
    scene = Scene("plain")
    pull = replace(SMALL, objective="mse")
    assert pull.negative_domains == ()
    arguments = (scene.queries, scene.labels, scene.source)
    alone = pull(*arguments, None, None, scene.class_weights, _generator())
    assert torch.equal(alone, scene.loss(pull))
    with pytest.raises(ValueError, match="InfoNCE needs negatives"):
        SMALL(*arguments, None, None, scene.class_weights, _generator())


def test_exact_negatives_are_all_candidates_by_their_share() -> None:
    # One query class with 2 source and 1 target candidates, m = 4: each counts 1, 1 and 2 times.
    labels = torch.tensor([[[0, 1, 1]]])
    target_labels = torch.tensor([[[1, 0, 255]]])
    queries, source, target = (_randn(1, 3, 1, 3, seed=seed) for seed in (1, 2, 3))
    pull = replace(SMALL, num_negatives=4, query_draw="exact", negative_draw="exact")
    keys = LabelledEmbeddings(source, labels)
    loss = pull(
        queries,
        labels,
        keys,
        keys,
        LabelledEmbeddings(target, target_labels),
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        _generator(),
    )
    query, positive, first, second = (
        vectors[0, :, 0, i].numpy()
        for vectors, i in ((queries, 0), (source, 0), (source, 1), (source, 2))
    )
    third = target[0, :, 0, 0].numpy()
    expected = reference.info_nce(query, positive, [first, second, third, third], 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_nothing_waits_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # On the meta device there are no values: whatever would read one on the host raises.
    monkeypatch.setattr(torch, "autocast", lambda **_: nullcontext())  # unknown to that device
    for query_draw in ("replacement", "exact"):
        for negative_draw in ("replacement", "exact"):
            pull = replace(SMALL, query_draw=query_draw, negative_draw=negative_draw)
            embeddings = torch.empty(2, 5, 4, 6, device="meta", requires_grad=True)
            labels = torch.empty(2, 4, 6, dtype=torch.int64, device="meta")
            keys = LabelledEmbeddings(embeddings, labels)
            weights = torch.empty(5, device="meta")
            loss = pull(embeddings, labels, keys, keys, keys, weights, _generator())
            loss.backward()
            assert loss.shape == ()


@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0])
def test_info_nce_is_the_equation(temperature: float) -> None:
    queries, positives, negatives = (
        l2_normalize(_randn(3, count, 4, seed=count)) for count in (5, 1, 7)
    )
    found = info_nce(queries, positives, negatives, temperature)
    for group in range(3):
        for i in range(5):
            expected = reference.info_nce(
                queries[group, i].numpy(),
                positives[group, 0].numpy(),
                list(negatives[group].numpy()),
                temperature,
            )
            assert found[group, i].item() == pytest.approx(expected, abs=1e-6)


def test_gradients_of_info_nce() -> None:
    queries, positives, negatives = (_randn(2, count, 3, seed=count) for count in (4, 1, 5))
    log_weights = _randn(2, 1, 5, seed=9)
    log_weights[0, 0, 1] = -math.inf
    queries.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: info_nce(q, positives, negatives, 0.3), queries)
    assert torch.autograd.gradcheck(
        lambda q: info_nce(q, positives, negatives, 0.3, log_weights), queries
    )


def test_extreme_temperatures_neither_overflow_nor_vanish() -> None:
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    opposite = torch.tensor([[-1.0, 0.0]])
    # positive -1000, negative 1000: the loss is their distance
    loss = info_nce(query, opposite, -opposite, 0.001)
    loss.sum().backward()
    assert loss.item() == pytest.approx(2000)
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert info_nce(query, -opposite, opposite, 0.001).item() == 0


def test_mse_is_the_squared_distance() -> None:
    queries, positives = (l2_normalize(_randn(6, 4, seed=seed)) for seed in (1, 2))
    for found, query, positive in zip(
        pull_mse(queries, positives), queries, positives, strict=True
    ):
        expected = reference.mse(query.numpy(), positive.numpy())
        assert found.item() == pytest.approx(expected, abs=1e-9)


def test_query_weights_by_hand() -> None:
    class_weights, counts = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([10, 0, 4])
    class_mean = query_weights(class_weights, counts, "class_mean")
    torch.testing.assert_close(class_mean, torch.tensor([0.05, 0.0, 0.05]))
    query_sum = query_weights(class_weights, counts, "query_sum")
    torch.testing.assert_close(query_sum, torch.tensor([0.5 / 3, 0.0, 0.2 / 3]))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 4, 3, 5)])
def test_class_prototypes_are_the_equation(shape: tuple[int, int, int, int]) -> None:
    embeddings = _randn(*shape, seed=1)
    labels = torch.randint(4, (shape[0], *shape[2:]), generator=_generator(2))
    labels[labels == 3] = 255
    found = class_prototypes(embeddings, labels, 4)
    for c in range(4):
        expected = reference.class_prototype(embeddings.numpy(), labels.numpy(), c)
        if expected is None:
            assert found[c].isnan().all()
        else:
            np.testing.assert_allclose(found[c].numpy(), expected, atol=1e-6)


def test_prototype_sums_of_two_parts_give_the_whole() -> None:
    scene = Scene("ignored")
    parts = [
        class_embedding_sums(scene.source_embeddings[i : i + 1], scene.labels[i : i + 1], 5)
        for i in (0, 1)
    ]
    sums, counts = (first + second for first, second in zip(*parts, strict=True))
    whole = class_prototypes(scene.source_embeddings, scene.labels, 5)
    torch.testing.assert_close(sums / counts[:, None], whole)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"objective.*'cosine'; known: info_nce, mse"):
        PullLoss(objective="cosine")
    with pytest.raises(ValueError, match="reduction"):
        PullLoss(reduction="mean")
    with pytest.raises(ValueError, match=r"temperature .* 0; must be > 0"):
        PullLoss(temperature=0)


def test_labels_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(8, 12\).*labels_on_grid"):
        class_prototypes(torch.zeros(1, 3, 4, 6), torch.zeros(1, 8, 12, dtype=torch.int64), 2)
    scene = Scene("plain")
    scene.labels = scene.labels.repeat_interleave(2, dim=1)
    with pytest.raises(ValueError, match="query embeddings"):
        scene.loss(SMALL)
