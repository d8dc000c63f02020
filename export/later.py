"""A file that was exported some time ago: is it whole, does it run, does it still agree?"""

from __future__ import annotations

from pathlib import Path

from t2sda.errors import UserError
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.runtime.loading import load_model
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.predictor import FilePredictor
from t2sda.runtime.runtimes import TORCH, runtime_for
from t2sda.runtime.tensorrt_file import ENGINE_SUFFIXES

from .engines import ENGINE_TOLERANCES
from .openvino import EXAMPLE_SIZE, ir_network
from .verify import (
    TOLERANCES,
    Network,
    VerificationReport,
    allowed_by,
    compared,
    metadata_of_onnx,
    onnx_network,
    street_batches,
    torch_network,
)


def open_exported(path: Path, device: str | None = None) -> FilePredictor:
    """An exported file, whose digest and weights are checked.

    Raises:
        UserError: if it is a checkpoint, none of ours, damaged or changed.
    """
    if runtime_for(path, None) == TORCH:
        raise UserError(
            f"{path}: a checkpoint or a run's folder; an exported file is due here, such as "
            f"`t2sda export` writes"
        )
    model = load_model(path, device=device)
    assert isinstance(model, FilePredictor)
    return model


def run_once(model: FilePredictor) -> int:
    """Label drawn streets of the sizes that the file takes; returns how many pixels.

    Raises:
        UserError: if it does not run, or gives what are no labels.
    """
    size = model.metadata.image_size or EXAMPLE_SIZE
    batches = street_batches(model.metadata, size)
    return sum(model.predict(image).size for images in batches for image in images)


def agreement(
    path: Path, model: FilePredictor, against: Path, max_changed: float | None = None
) -> VerificationReport:
    """A file beside the run, checkpoint or file that it was made of, on drawn streets.

    Args:
        path: of the file.
        model: of `open_exported`.
        against: a run's folder, a checkpoint, an ONNX file or an OpenVINO IR.
        max_changed: share of the pixels that may get another label; None: that of the precision.

    Raises:
        UserError: if they have other classes, one does not run, or they disagree.
    """
    metadata = model.metadata
    by_precision = ENGINE_TOLERANCES if path.suffix.lower() in ENGINE_SUFFIXES else TOLERANCES
    tolerance = by_precision[metadata.precision]
    if max_changed is not None:
        tolerance = tolerance.allowing(max_changed)
    source = _source(against, metadata, path)
    batches = street_batches(metadata, metadata.image_size or EXAMPLE_SIZE)
    report = compared(_network(path, model), source, batches, tolerance)
    if not report.passed:
        raise UserError(f"{path} disagrees with {against}: {report}; {allowed_by(tolerance)}")
    return report


def _network(path: Path, model: FilePredictor) -> Network:
    """With the logits of a file of labels where its graph can be cut."""
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return onnx_network(path, model.metadata)
    if suffix == ".xml":
        return ir_network(path, model.metadata)
    return Network(model.run, model.metadata.output_kind, model.metadata.layout)


def _source(against: Path, metadata: Metadata, path: Path) -> Network:
    suffix = against.suffix.lower()
    if suffix in ENGINE_SUFFIXES:
        raise UserError(f"--against {against}: an engine gives no logits to compare with")
    if runtime_for(against, None) == TORCH:
        checkpoint = open_checkpoint(against)
        _check_classes(checkpoint.taxonomy.class_names, metadata, path, against)
        branch = str(metadata.origin.get("branch", "student"))
        return torch_network(model_of_checkpoint(checkpoint, branch))
    if suffix == ".xml":
        other = open_exported(against).metadata
        network = ir_network(against, other)
    else:
        other = metadata_of_onnx(against)
        network = onnx_network(against, other)
    _check_classes(other.taxonomy.class_names, metadata, path, against)
    if other.image_size not in (None, metadata.image_size):
        height, width = other.image_size
        raise UserError(
            f"--against {against}: takes images of {height}x{width} alone, and {path} others"
        )
    if network.output_kind != "logits":
        raise UserError(f"--against {against}: its logits cannot be seen")
    return network


def _check_classes(names: tuple[str, ...], metadata: Metadata, path: Path, against: Path) -> None:
    if names != metadata.taxonomy.class_names:
        raise UserError(f"--against {against}: has other classes than {path}")
