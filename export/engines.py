"""Engine files: built, verified where a GPU can run them, and marked where none can."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from t2sda.errors import MissingFileError, UserError
from t2sda.files import atomic_pair_writer
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.sliding import sliding
from t2sda.runtime.tensorrt_file import (
    ENGINE_SUFFIXES,
    PROFILE_KEY,
    TARGET_KEY,
    EngineRunner,
    read_sidecar,
    sidecar_of,
    sidecar_text,
)
from t2sda.runtime.whole_batches import whole_batches

from .onnx import check_output
from .tensorrt import BuiltEngine, EngineSettings, Profile, build_engine
from .verify import (
    TOLERANCES,
    Network,
    Tolerance,
    VerificationReport,
    metadata_of_onnx,
    number_of_images,
    onnx_network,
    street_batches,
    street_images,
    verify,
)

UNVERIFIED_SUFFIX = ".unverified"
ENGINE_TOLERANCES = {**TOLERANCES, "fp32": Tolerance(0.02, 0.005)}
"""Of an engine in float32: TensorRT may multiply in TF32."""


@dataclass(frozen=True)
class ExportedEngine:
    """An engine file.

    Attributes:
        path: its name; it ends in `.unverified` where nothing could run it.
        built: what is in it.
        report: None where nothing could run it.
    """

    path: Path
    built: BuiltEngine
    report: VerificationReport | None


def export_engine(onnx_path: Path, output: Path, settings: EngineSettings) -> ExportedEngine:
    """Build an engine and run it beside its ONNX file, or mark it as unverified.

    It is unverified without a GPU, and where `settings` asks for other GPUs than the one here.

    Raises:
        UserError: see `build_engine`; also if the engine disagrees with its file, or cannot be
            written. What was there before stays then.
    """
    check_output(output, ENGINE_SUFFIXES)
    metadata = metadata_of_onnx(onnx_path)
    built = build_engine(onnx_path, settings)
    runs_here = _is_built_for_this_machine(settings)
    report = None
    if runs_here:
        report = _verified(built.content, onnx_path, metadata, settings.target, settings.profile)
    path = output if runs_here else output.with_name(output.name + UNVERIFIED_SUFFIX)
    extra = {
        "tensorrt_version": built.version,
        "engine_precision": built.precision,
        PROFILE_KEY: settings.profile,
    }
    text = sidecar_text(metadata, settings.target, extra, built.content)
    _write(path, built.content, text)
    return ExportedEngine(path, built, report)


def verify_engine(onnx_path: Path, output: Path) -> VerificationReport:
    """Run `output`.unverified on this GPU beside its ONNX file, and give it its name.

    Its target and profile are those that it was built with.

    Raises:
        UserError: if there is no such file or no GPU, they disagree, or `output` cannot be written.
    """
    unverified = output.with_name(output.name + UNVERIFIED_SUFFIX)
    if not unverified.is_file():
        raise MissingFileError(f"{unverified}: no such file; leave out --verify-only to build it")
    if not torch.cuda.is_available():
        raise UserError("--verify-only runs the engine, and no GPU is usable here")
    described = read_sidecar(unverified)
    batches = described[PROFILE_KEY]
    profile = Profile(*((b, h, w) for b, h, w in batches)) if batches else None
    metadata = metadata_of_onnx(onnx_path)
    content, text = unverified.read_bytes(), sidecar_of(unverified).read_text(encoding="utf-8")
    report = _verified(content, onnx_path, metadata, described[TARGET_KEY], profile)
    _write(output, content, text)
    unverified.unlink()
    sidecar_of(unverified).unlink()
    return report


def _is_built_for_this_machine(settings: EngineSettings) -> bool:
    if not torch.cuda.is_available():
        return False
    asked = [capability.replace(".", "") for capability in settings.compute_capabilities]
    return not asked or "{}{}".format(*torch.cuda.get_device_capability()) in asked


def _verified(
    content: bytes, onnx_path: Path, metadata: Metadata, target: str, profile: Profile | None
) -> VerificationReport:
    if profile is not None:
        batches = [street_images(shape, index) for index, shape in enumerate(profile)]
    else:
        assert metadata.image_size is not None
        batches = list(street_batches(metadata, metadata.image_size))
    run = whole_batches(EngineRunner(content, target), number_of_images(onnx_path))
    return verify(
        Network(sliding(run, metadata), metadata.output_kind, metadata.layout),
        onnx_network(onnx_path, metadata),
        batches,
        ENGINE_TOLERANCES[metadata.precision],
    )


def _write(path: Path, content: bytes, sidecar: str) -> None:
    try:
        with atomic_pair_writer(path, sidecar_of(path)) as (partial, partial_sidecar):
            partial.write_bytes(content)
            partial_sidecar.write_text(sidecar, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
