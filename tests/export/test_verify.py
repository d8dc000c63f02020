"""The comparison of a file with PyTorch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from t2sda.errors import UserError
from t2sda.export.verify import (
    TOLERANCES,
    Network,
    Tolerance,
    VerificationReport,
    check_softmax,
    dynamic_shapes,
    static_shapes,
    street_images,
    verify,
    verify_onnx,
)
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.runtime.metadata import Metadata, OutputKind
from tests.deployed import DYNAMIC, IMAGE_SIZE, STATIC, Export, shared_checkpoint, shared_export

GOOD = VerificationReport(
    shapes=((1, 2, 5),),
    max_logit_difference=1e-5,
    max_logit=0.5,
    num_pixels=10,
    num_changed=1,
    num_ties=1,
)


def metadata_of(path: Path) -> Metadata:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return Metadata.from_properties(session.get_modelmeta().custom_metadata_map, path)


def test_what_passes() -> None:
    assert GOOD.passed
    assert replace(GOOD, max_logit_difference=5e-4, max_logit=10.0).passed  # relative beyond 1
    assert not replace(GOOD, max_logit_difference=5e-4).passed
    assert not replace(GOOD, max_logit_difference=float("nan")).passed
    assert not replace(GOOD, num_changed=2).passed


def test_tolerances_are_those_of_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs/deployment.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.e-]+) \| (?:([\d.]+) %|where .*) \| ([\d.]*) \|$", text, re.M
    )
    stated = {
        name: (
            float(logits),
            float(share) / 100 if share else None,
            float(spread) if spread else None,
        )
        for name, logits, share, spread in rows
    }
    assert stated == {name: tuple(tolerance) for name, tolerance in TOLERANCES.items()}


def test_dynamic_files_see_odd_portrait_and_single_images() -> None:
    shapes = dynamic_shapes((256, 512))
    assert {batch_size for batch_size, _, _ in shapes} >= {1, 2}
    assert any(height % 2 and width % 2 and height % 32 for _, height, width in shapes)
    assert any(height > width for _, height, width in shapes)


def test_static_files_see_several_images() -> None:
    assert set(static_shapes((256, 512))) == {(1, 256, 512)}
    images = [street_images((1, 40, 64), index) for index in range(3)]  # below what is drawn
    assert images[0].shape == (1, 40, 64, 3)
    assert not (images[0] == images[1]).all()


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> SegmentationModel:
    return model_of_checkpoint(open_checkpoint(shared_checkpoint(tmp_path_factory)))


@pytest.mark.parametrize("export", [DYNAMIC, STATIC])
def test_a_file_of_other_weights_is_refused(
    tmp_path_factory: pytest.TempPathFactory, model: SegmentationModel, export: Export
) -> None:
    path = shared_export(tmp_path_factory, export)
    metadata = metadata_of(path)
    assert verify_onnx(path, model, metadata, IMAGE_SIZE).max_logit > 0.5  # not all zero
    with torch.no_grad():
        model.head.classifier.bias[3] += 0.01  # type: ignore[operator, index, union-attr]
    with pytest.raises(UserError, match="logits differ by at most 1.0e-02"):
        verify_onnx(path, model, metadata, IMAGE_SIZE)


def test_a_file_that_does_not_take_the_images_is_refused(
    tmp_path_factory: pytest.TempPathFactory, model: SegmentationModel
) -> None:
    path = shared_export(tmp_path_factory, STATIC)
    with pytest.raises(UserError, match=r"does not run on images of shape \(1, 64, 96, 3\)"):
        verify_onnx(path, model, metadata_of(path), (64, 96))


def test_probabilities_that_are_not_the_softmax_of_the_logits_are_refused() -> None:
    logits = np.array([4.0, 1.0, -2.0], np.float32).reshape(1, 3, 1, 1)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    check_softmax(probabilities, logits)
    with pytest.raises(UserError, match=r"probabilities differ by up to .* from the softmax"):
        check_softmax(np.full_like(logits, 1 / 3), logits)
    with pytest.raises(UserError, match="differ by up to nan"):
        check_softmax(np.full_like(logits, np.nan), logits)


def fixed(output_kind: OutputKind, maps: np.ndarray) -> Network:
    """A network that always gives the same, such as an engine of probabilities."""
    return Network(lambda images: maps, output_kind)


def test_probabilities_alone_are_compared_by_their_logarithms() -> None:
    logits = np.array([[30.0, -20.0], [3.0, 2.0], [1.0, 9.0]], np.float32).reshape(1, 3, 1, 2)
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    batch = [np.zeros((1, 1, 2, 3), np.uint8)]
    source = fixed("logits", logits)
    tolerance = Tolerance(0.02, 0.005)
    report = verify(fixed("probabilities", probabilities), source, batch, tolerance)
    assert report.max_logit == 30
    assert report.max_logit_difference == pytest.approx(0, abs=1e-5)
    probabilities[0, :, 0, 1] = [0.1, 0.1, 0.8]  # the same labels
    with pytest.raises(UserError, match="disagrees with its source"):
        verify(fixed("probabilities", probabilities), source, batch, tolerance)
