"""The pairings of Table S3: which embeddings meet in the pull loss, on how many forwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from t2sda.config import ConfigError, load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.reweighting import DynamicReweighting
from t2sda.losses.pseudo_labels import confidence_threshold, unreliable_labels
from t2sda.losses.pull import Keys, PullLoss
from t2sda.losses.sampling import labels_on_grid
from t2sda.meta_arch.base import MetaArch, build_meta_arch
from t2sda.meta_arch.pull import Pull
from t2sda.modeling.segmentor import Features
from t2sda.structures import (
    TARGET_PROBS,
    DomainBatch,
    FeatureSpec,
    Step,
    TeacherOutput,
    View,
)
from tests.host_reads import HostReads
from tests.meta_arch.conftest import config_of, step_of
from tests.references import pull as reference
from tests.references import reweighting

MakeBatch = Callable[..., DomainBatch]

ABLATIONS = Path(__file__).parents[2] / "configs/ablations"
PAIRINGS = {
    # pass, settings, queries, positives, whether negatives come from the target too
    "vanilla contrast": ("source_pull", {"NEGATIVE_STRATEGY": "source"}, "source", "source", False),
    "source -> target": ("source_pull", {"POSITIVES": "target"}, "source", "target", True),
    "source -> p. target": (
        *("source_pull", {"POSITIVES": "translated"}, "source", "translated", True),
    ),
    "p. target -> source": (
        *("pull", {"NEGATIVE_STRATEGY": "source"}, "translated", "source", False),
    ),
    "T2S-DA": ("pull", {}, "translated", "source", True),
    "p. target CE": ("translated_pull", {}, "translated", "source", True),
    "mse": ("pull", {"OBJECTIVE": "mse"}, "translated", "source", False),
}


def built(pull_pass: str, settings: dict[str, str], *others: str) -> MetaArch:
    torch.manual_seed(0)
    overrides = [word for key, value in settings.items() for word in (f"T2SDA.{key}", value)]
    if "OBJECTIVE" in settings:
        overrides += ["T2SDA.NUM_NEGATIVES", "1024"]  # the default: of no effect
    passes = f"[{', '.join([*others, pull_pass])}]"
    if pull_pass == "source_pull" and settings.get("POSITIVES") != "translated":
        overrides += ["TRANSLATION.NAME", ""]
        if not others and settings.get("NEGATIVE_STRATEGY") == "source":
            overrides += ["DATASETS.TARGET", ""]
    return build_meta_arch(
        config_of("T2SDA", "META_ARCH.PASSES", passes, *overrides), CITYSCAPES_19
    ).train()


def taught(meta_arch: MetaArch, batch: DomainBatch) -> Step:
    step = step_of(batch)
    with torch.no_grad():
        step.teacher = meta_arch.teach(step)
    return step


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_pairing_takes_queries_positives_and_negatives_where_it_says(
    pairing: str, make_batch: MakeBatch
) -> None:
    pull_pass, settings, query_domain, positive_domain, has_target = PAIRINGS[pairing]
    meta_arch = built(pull_pass, settings, "mixed")
    batch = make_batch()
    images = {
        "source": batch.source_image,
        "translated": batch.translated_image,
        "target": batch.target_image,
    }
    found = meta_arch(pull_pass, taught(meta_arch, batch))["loss_pull"]

    def embedded(branch: str, domain: str) -> Tensor:
        branch_ = getattr(meta_arch, branch)
        return branch_.embed(branch_.model.features(images[domain]))

    with torch.no_grad():
        keys = {domain: embedded("teacher", domain) for domain in images}
        queries = embedded("student", query_domain)
        probs = meta_arch.teacher.model(batch.target_image).softmax(dim=1)
    spec = meta_arch.student.embedding_spec
    confidence, pseudo_labels = (labels_on_grid(v, spec) for v in probs.max(dim=1))
    labels = labels_on_grid(batch.source_label, spec)
    positive_labels = pseudo_labels if positive_domain == "target" else labels
    threshold = confidence_threshold(confidence, 0.5)
    candidates = unreliable_labels(pseudo_labels, confidence, threshold)
    pull_loss = PullLoss(
        num_negatives=32,
        objective=settings.get("OBJECTIVE", "info_nce"),
        negative_strategy=settings.get("NEGATIVE_STRATEGY", "domain_equalized"),
    )
    expected = pull_loss(
        *Keys.from_grid(queries, labels),
        Keys.from_grid(keys[positive_domain], positive_labels),
        Keys.from_grid(keys["source"], labels),
        Keys.from_grid(keys["target"], candidates) if has_target else None,
        torch.full((19,), 1 / 19),
        step_of(batch).streams.generator("pull"),
    )
    torch.testing.assert_close(found, 0.1 * expected)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_pass_is_one_student_forward_and_the_teacher_sees_what_is_read(
    pairing: str, make_batch: MakeBatch
) -> None:
    pull_pass, settings, _, positive_domain, has_target = PAIRINGS[pairing]
    meta_arch = built(pull_pass, settings)
    forwards = {"student": 0, "teacher": 0}

    def count(branch: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            forwards[branch] += 1

        return hook

    for branch in forwards:
        getattr(meta_arch, branch).model.backbone.register_forward_hook(count(branch))
    step = taught(meta_arch, make_batch())
    read = {positive_domain}
    if pairing != "mse":
        read |= {"source", "target"} if has_target else {"source"}
    assert forwards == {"student": 0, "teacher": len(read)}
    assert step.teacher is not None
    for domain in ("source", "target", "translated"):
        assert (View(domain, "embeddings") in step.teacher.views) == (domain in read)
    sum(meta_arch(pull_pass, step).values()).backward()  # type: ignore[union-attr]
    assert forwards["student"] == 1


@pytest.mark.parametrize(
    ("joined", "alone"), [("source_pull", "source"), ("translated_pull", "translated")]
)
def test_the_shared_forward_gives_the_labelled_pass_loss(
    joined: str, alone: str, make_batch: MakeBatch
) -> None:
    batch = make_batch()
    step = taught(built(joined, {"POSITIVES": "translated"}), batch)
    together = built(joined, {"POSITIVES": "translated"})(joined, step)
    settings = ["META_ARCH.PASSES", f"[{alone}, mixed]"]
    settings += [] if alone == "translated" else ["TRANSLATION.NAME", ""]
    torch.manual_seed(0)
    without = build_meta_arch(
        config_of("T2SDA", *settings, "T2SDA.NUM_NEGATIVES", "1024"), CITYSCAPES_19
    ).train()(alone, step)
    assert set(together) == {f"loss_{alone}", "loss_pull"}
    assert torch.equal(together[f"loss_{alone}"], without[f"loss_{alone}"])


def test_the_translated_pass_records_statistics_and_the_pull_pass_does_not(
    make_batch: MakeBatch,
) -> None:
    for name, records in (("pull", False), ("translated_pull", True)):
        meta_arch = built(name, {})
        step = taught(meta_arch, make_batch())
        before = {n: b.clone() for n, b in meta_arch.student.model.named_buffers()}
        meta_arch(name, step)
        after = dict(meta_arch.student.model.named_buffers())
        assert any(not torch.equal(before[n], after[n]) for n in before) == records, name


def test_domain_generalisation_needs_no_target(make_batch: MakeBatch) -> None:
    # docs/fidelity.md, B26; a translator without a target image is simulated by the batch itself.
    meta_arch = built("pull", {"NEGATIVE_STRATEGY": "source"}, "source")
    batch = dataclasses.replace(make_batch(), target_image=None, target_valid=None)
    step = taught(meta_arch, batch)
    assert step.teacher is not None
    assert list(step.teacher.views) == [View("source", "embeddings")]
    loss = meta_arch("pull", step)["loss_pull"]
    loss.backward()
    assert loss.item() > 0


@pytest.mark.parametrize("pairing", ["T2S-DA", "source -> target"])
def test_gradients_reach_the_student_alone(pairing: str, make_batch: MakeBatch) -> None:
    pull_pass, settings, *_ = PAIRINGS[pairing]
    meta_arch = built(pull_pass, settings)
    meta_arch.teacher.requires_grad_(True)
    step = step_of(make_batch())
    step.teacher = meta_arch.teach(step)  # with a graph: what the loss detaches stays detached
    sum(meta_arch(pull_pass, step).values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in meta_arch.teacher.parameters())
    assert any(parameter.grad is not None for parameter in meta_arch.student.parameters())


def taught_with(source: Tensor, target: Tensor, probs: Tensor) -> TeacherOutput:
    return TeacherOutput(
        {
            View("source", "embeddings"): source,
            View("target", "embeddings"): target,
            TARGET_PROBS: probs,
        }
    )


class Projected(torch.nn.Module):
    """A student whose features are its embeddings."""

    def __init__(self, num_classes: int, stride: int) -> None:
        super().__init__()
        self.embedding_spec = FeatureSpec(channels=1, stride=stride)
        self.model = SimpleNamespace(num_classes=num_classes)

    def embed(self, features: Features) -> Tensor:
        return features.deepest


@pytest.mark.parametrize("reduction", ["class_mean", "query_sum"])
@pytest.mark.parametrize(
    ("case", "shape"),
    [
        ("plain", (2, 6, 3, 4)),
        ("absent", (1, 3, 5, 4)),
        ("ignored", (2, 4, 4, 3)),
        ("one class", (2, 4, 3, 3)),
        ("never predicted", (1, 8, 4, 4)),
        ("all ignored", (1, 3, 3, 3)),
    ],
)
def test_the_loss_is_the_paper_from_labels_and_predictions_on(
    case: str, shape: tuple[int, int, int, int], reduction: str
) -> None:
    num_classes, (images, _, height, width) = 4, shape
    generator = torch.Generator().manual_seed(height * width)
    queries, source, target = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    pixels = (images, 4 * height, 4 * width)
    labels = torch.randint(num_classes, pixels, generator=generator)
    logits = 2 * torch.randn(images, num_classes, *pixels[1:], generator=generator)
    if case == "absent":
        labels[labels == 1] = 0
    elif case == "ignored":
        labels[torch.rand(pixels, generator=generator) < 0.5] = 255
    elif case == "one class":
        labels.fill_(2)
    elif case == "never predicted":
        logits[:, 3] = -30
    elif case == "all ignored":
        labels.fill_(255)
    batch = DomainBatch(torch.zeros(images, 3, 1, 1), labels)
    step = step_of(batch)
    probs = logits.double().softmax(dim=1)
    step.teacher = taught_with(source, target, probs)
    DynamicReweighting(num_classes, 0.5, unpredicted="largest").after_teacher(step)
    pull_loss = PullLoss(0.4, 5, 6, reduction=reduction, query_draw="exact", negative_draw="exact")
    pull = Pull(pull_loss, 1.0, "source", 0.5)
    features = Features((queries,), (1, 1))
    found = pull.losses(Projected(num_classes, 4), features, step)["loss_pull"]  # type: ignore[arg-type]
    conf = reweighting.class_confidence(
        probs.amax(dim=1).numpy(), probs.argmax(dim=1).numpy(), num_classes
    )
    expected = reference.exact_pull_loss(
        *(embeddings.numpy() for embeddings in (queries, source, target)),
        labels.numpy(),
        probs.numpy(),
        reweighting.dynamic_class_weights(conf, 0.5, labels.unique().numpy()),
        {**dataclasses.asdict(pull_loss), "unreliable_fraction": 0.5},
    )
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert (expected == 0) == (case == "all ignored")


@pytest.mark.parametrize("apply_to", ["pull", "target"])
def test_weights_threshold_and_loss_wait_for_a_device_once(apply_to: str) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, source, target = (torch.randn(2, 6, 4, 4, generator=generator) for _ in range(3))
    labels = torch.randint(5, (2, 8, 8), generator=generator)
    step = step_of(DomainBatch(torch.zeros(2, 3, 8, 8), labels))
    probs = torch.rand(2, 5, 8, 8, generator=generator).softmax(dim=1)
    step.teacher = taught_with(source, target, probs)
    pull = Pull(PullLoss(num_negatives=8), 1.0, "source", 0.5)
    queries.requires_grad_()
    with HostReads() as host:
        DynamicReweighting(5, 0.5, apply_to).after_teacher(step)
        pull.losses(Projected(5, 2), Features((queries,), (1, 1)), step)["loss_pull"].backward()  # type: ignore[arg-type]
    assert host.reads == 1  # how many positions every class has
    assert queries.grad is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["META_ARCH.PASSES", "[source_pull, mixed, pull]"], "source_pull, pull all carry"),
        (["META_ARCH.PASSES", "[source_pull, mixed]"], "TRANSLATION.NAME: 'FDA' has no effect"),
        (
            [
                *("META_ARCH.PASSES", "[source, pull]", "T2SDA.NEGATIVE_STRATEGY", "source"),
                *("TRANSLATION.NAME", "", "DATASETS.TARGET", ""),
            ],
            "TRANSLATION.NAME: empty, but read by pull",
        ),
        (["T2SDA.OBJECTIVE", "mse"], "T2SDA.NUM_NEGATIVES .*no effect.*info_nce"),
        (
            ["T2SDA.NEGATIVE_STRATEGY", "source", "T2SDA.UNRELIABLE_FRACTION", "0.4"],
            "T2SDA.UNRELIABLE_FRACTION .*no effect",
        ),
        (
            ["T2SDA.QUERY_DRAW", "exact", "T2SDA.QUERY_STRATEGY", "ceqs"],
            "T2SDA.QUERY_STRATEGY .*no effect.*class_mean",
        ),
        (["T2SDA.POSITIVES", "pseudo_target"], "'pseudo_target'.*'translated'"),
    ],
)
def test_pairings_that_make_no_sense_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of("T2SDA", *overrides)


def test_every_setting_reaches_the_loss() -> None:
    settings = {
        "TEMPERATURE": 0.3,
        "QUERIES_PER_CLASS": 7,
        "NUM_NEGATIVES": 12,
        "REDUCTION": "query_sum",
        "QUERY_STRATEGY": "ceqs",
        "NEGATIVE_STRATEGY": "union",
        "QUERY_DRAW": "exact",
        "NEGATIVE_DRAW": "exact",
        "PROTOTYPE_NORM": "both",
    }
    meta_arch = built("pull", {key: str(value) for key, value in settings.items()})
    pull_loss = meta_arch.passes["pull"].pull.pull_loss
    assert isinstance(pull_loss, PullLoss)
    assert {key: getattr(pull_loss, key.lower()) for key in settings} == settings


@pytest.mark.parametrize("path", sorted(ABLATIONS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_ablation_differs_from_its_base(path: Path) -> None:
    cfg = load_config(str(path), [])
    if path.parent != ABLATIONS:
        bases = [load_config(str(base), []) for base in ABLATIONS.glob("base_*.yaml")]
        assert cfg not in bases


def test_the_ablations_change_what_their_name_says() -> None:
    whole = load_config(str(ABLATIONS / "base_deeplabv2.yaml"), []).T2SDA
    row = load_config(str(ABLATIONS / "table_s4/pull.yaml"), [])
    assert (row.T2SDA.QUERY_STRATEGY, row.T2SDA.NEGATIVE_STRATEGY) == ("uniform", "union")
    assert row.HOOKS.NAMES == ("EmaTeacher",)
    differing = {key for key in whole if whole[key] != row.T2SDA[key]}
    assert differing == {"QUERY_STRATEGY", "NEGATIVE_STRATEGY"}
