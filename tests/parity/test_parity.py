"""Shipped methods, five iterations in float64, against the public training code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from t2sda.modeling import hrda
from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.heads.daformer import DAFormerHead
from t2sda.modeling.hrda import HRDA, HRDAFeatures
from t2sda.modeling.segmentor import SegmentationModel, enlarged
from tests.parity import recipe
from tests.parity.depthwise import conv2d, library_conv2d
from tests.parity.runs import (
    Iteration,
    load_recipe_,
    read_record,
    run,
    set_exact_normalisation_,
)

# Half a minute each; that nothing has changed since is what the golden runs show.
SLOW = ("daformer", "mic", "hrda", "mic_hrda")
TAUGHT = tuple(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)
CASES = ("source_only", *TAUGHT)
LIKE_MIC = ["META_ARCH.BN_TRACK=[source, mixed, masked]"]
"""MIC's student records masked images; ours does not unless it is told to."""
Run = tuple[dict[str, Any], list[Iteration]]


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Record and run of a case; each is run once."""
    done: dict[str, Run] = {}

    def of(case: str) -> Run:
        if case not in done:
            record = read_record(case)
            settings = LIKE_MIC if "mic" in case else []
            with pytest.MonkeyPatch.context() as monkeypatch:
                folder = tmp_path_factory.mktemp(case)
                done[case] = record, run(case, record, folder, monkeypatch, settings)
        return done[case]

    return of


def assert_same_tensors(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Probes agree to 1e-7 of a tensor's norm; names are the same."""
    assert found.keys() == recorded.keys()
    for name, (_, norm, _) in recorded.items():
        assert np.abs(np.subtract(found[name], recorded[name])).max() <= 1e-7 * norm, name


def test_the_recipe_makes_the_records_weights_and_inputs() -> None:
    first, last = recipe.batch(0), recipe.batch(4)
    found = {
        "embedding": recipe.weight("backbone.patch_embed1.proj.weight", (32, 3, 7, 7)),
        "frozen": recipe.weight("backbone.patch_embed1.proj.weight", (32, 3, 7, 7), "imnet."),
        "classifier": recipe.weight("decode_head.conv_seg.weight", (19, 64, 1, 1)),
        **{f"first {key}": value for key, value in first.items()},
        **{f"last {key}": value for key, value in last.items()},
    }
    digests = {
        key: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        for key, value in found.items()
    }
    assert digests == {
        "embedding": "a5bcdd47173ee441",
        "frozen": "fd6a5f699ab0f03a",
        "classifier": "3ee1628d2e015495",
        "first source_image": "b9c188fcd7004e84",
        "first source_label": "dddcb41aab74112a",
        "first target_image": "6f65c8605ab2e56c",
        "last source_image": "802c8238cb4e135f",
        "last source_label": "14fd01d543f0b24a",
        "last target_image": "f210b0fa83e48e08",
    }


@pytest.mark.parametrize("case", CASES)
def test_losses_agree(case: str, run_of: Callable[[str], Run]) -> None:
    record, iterations = run_of(case)
    for found, recorded in zip(iterations, record["iterations"], strict=True):
        assert found.losses == pytest.approx(recorded["losses"], rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_gradient_norms_agree_in_every_module(case: str, run_of: Callable[[str], Run]) -> None:
    record, iterations = run_of(case)
    for found, recorded in zip(iterations, record["iterations"], strict=True):
        assert found.grad_norm == pytest.approx(recorded["grad_norm"], rel=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_learning_rates_agree(case: str, run_of: Callable[[str], Run]) -> None:
    record, iterations = run_of(case)
    for found, recorded in zip(iterations, record["iterations"], strict=True):
        assert found.learning_rates == pytest.approx(recorded["learning_rates"], rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_parameters_and_buffers_agree_after_the_first_and_last_step(
    case: str, run_of: Callable[[str], Run]
) -> None:
    record, iterations = run_of(case)
    for index in (0, -1):
        assert_same_tensors(
            iterations[index].student, record["iterations"][index]["student_after_step"]
        )


@pytest.mark.parametrize("case", TAUGHT)
def test_pseudo_labels_and_their_quality_are_equal(case: str, run_of: Callable[[str], Run]) -> None:
    record, iterations = run_of(case)
    for found, recorded in zip(iterations, record["iterations"], strict=True):
        assert found.quality == recorded["quality"]
        assert found.pseudo_label_counts == recorded["pseudo_label_counts"]


@pytest.mark.parametrize("case", TAUGHT)
def test_the_teachers_parameters_agree(case: str, run_of: Callable[[str], Run]) -> None:
    record, iterations = run_of(case)
    recorded = record["iterations"][-1]["teacher_in_this_iteration"]
    parameters = {name: value for name, value in recorded.items() if ".running_" not in name}
    found = {name: value for name, value in iterations[-1].teacher.items() if name in parameters}
    assert_same_tensors(found, parameters)


@pytest.mark.parametrize("case", TAUGHT)
def test_by_intent_the_teachers_buffers_are_the_students_and_theirs_follow_the_target(
    case: str, run_of: Callable[[str], Run]
) -> None:
    record, iterations = run_of(case)
    theirs = record["iterations"][-1]["teacher_in_this_iteration"]
    ours, student = iterations[-1].teacher, iterations[-2].student
    buffers = [name for name in theirs if ".running_" in name]
    assert buffers
    assert all(ours[name] == student[name] for name in buffers)
    assert all(abs(theirs[name][1] / ours[name][1] - 1) > 1e-3 for name in buffers)


@pytest.mark.slow
def test_by_intent_masked_images_leave_the_students_statistics_alone(
    run_of: Callable[[str], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, tracked = run_of("mic")
    record = {**record, "iterations": record["iterations"][:1]}
    (shipped,) = run("mic", record, tmp_path, monkeypatch, [])
    buffers = {name for name in shipped.student if ".running_" in name}
    same = {name for name in shipped.student if shipped.student[name] == tracked[0].student[name]}
    assert same == shipped.student.keys() - buffers


def attenuated_late(context: Tensor, detail: Tensor, attention: Tensor) -> Tensor:
    """`fuse`, but the context is enlarged before it is attenuated."""
    size = (detail.shape[-2], detail.shape[-1])
    attention = enlarged(attention, size)
    return attention * detail + (1 - attention) * enlarged(context, size)


def masked_late(model: HRDA, features: HRDAFeatures) -> Tensor:
    """`HRDA.logits`, but the attention is cut at the box after it is enlarged."""
    if features.box is None:
        return logits(model, features)
    box, size, stride = features.box, features.size, model.stride
    context, detail = model.head(features.levels), model._detail(features)
    attention = model.attention(features.levels).sigmoid()
    features.detail_logits = detail
    fine = enlarged(attention, (size[0] // stride, size[1] // stride))
    fused = box.within_zeros(box.of(fine, stride) * detail, size, stride)
    attenuated = (1 - model._inside(attention, box, size)) * context
    return enlarged(fused + enlarged(attenuated, fused.shape[-2:]), size)


def one_by_one(model: HRDA, image: Tensor) -> Tensor:
    """`HRDA._logits_of`, a window at a time."""
    return torch.cat([logits_of(model, window) for window in image.split(recipe.BATCH_SIZE)])


logits, logits_of = HRDA.logits, HRDA._logits_of


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "loss"),
    [
        (hrda, "fuse", attenuated_late, "loss_source"),
        (HRDA, "logits", masked_late, "loss_source"),
        (HRDA, "_logits_of", one_by_one, "loss_mixed"),
    ],
)
def test_another_order_of_hrda_would_be_noticed(
    owner: Any, name: str, mutant: Any, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record("hrda")
    record = {**record, "iterations": record["iterations"][:1]}
    monkeypatch.setattr(owner, name, mutant)
    (found,) = run("hrda", record, tmp_path, monkeypatch, [])
    assert abs(found.losses[loss] / record["iterations"][0]["losses"][loss] - 1) > 1e-4


def test_inference_agrees_on_odd_sizes() -> None:
    backbone = MiT("b0")
    model = SegmentationModel(backbone, DAFormerHead(backbone.feature_specs, 19, 64)).double()
    set_exact_normalisation_(model)
    load_recipe_(model.eval())
    image = torch.from_numpy(recipe.batch(0)["target_image"]).permute(0, 3, 1, 2)
    for recorded in read_record("inference")["outputs"]:
        height, width = recorded["size"]
        with torch.no_grad():
            logits = model(image[..., :height, :width])
        norm = recorded["probe"][1]
        np.testing.assert_allclose(
            recipe.probe(logits.numpy()), recorded["probe"], rtol=0, atol=1e-9 * norm
        )
        counts = logits.argmax(1).flatten().bincount(minlength=19).tolist()
        assert counts == recorded["argmax_counts"]


@pytest.mark.parametrize("dilation", [1, 6])
def test_shifted_products_are_the_librarys_depthwise_convolution(dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 5, 9, 8, dtype=torch.float64, generator=generator).requires_grad_()
    kernel = torch.randn(5, 1, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    bias = torch.randn(5, dtype=torch.float64, generator=generator)
    found, expected = (
        convolve(image, kernel, bias, (1, 1), (dilation,) * 2, (dilation,) * 2, 5)
        for convolve in (conv2d, library_conv2d)
    )
    assert "ShiftedProducts" in str(found.grad_fn.next_functions)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    for one, two in zip(
        torch.autograd.grad((found * weights).sum(), (image, kernel)),
        torch.autograd.grad((expected * weights).sum(), (image, kernel)),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-13)
