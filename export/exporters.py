"""What networks are exported to, as a table: a target of one's own is one file and one line.

EXPORTERS["npz"] = Exporter((".npz",), verified(write_npz))
RUNTIMES["npz"] = Runtime((".npz",), runs(open_npz))

where `write_npz(source, output)` makes the file of a verified ONNX file of ours, and
`open_npz(path, options)` opens it again.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from t2sda.errors import UserError
from t2sda.files import atomic_writer
from t2sda.runtime.loading import load_model
from t2sda.runtime.openvino_file import check_precision_runs
from t2sda.runtime.predictor import FilePredictor
from t2sda.runtime.tensorrt_file import ENGINE_SUFFIXES, TARGETS, has_gpu

from .engines import export_engine, verify_engine
from .openvino import EXAMPLE_SIZE, check_size, export_openvino
from .quantization import framed_batch
from .tensorrt import BuiltEngine, EngineSettings, Profile, Shape
from .verify import (
    TOLERANCES,
    Network,
    Tolerance,
    metadata_of_onnx,
    onnx_network,
    street_batches,
    verify,
)


@dataclass(frozen=True)
class Job:
    """One export.

    Attributes:
        source: ONNX file of ours, verified, in the precision that is asked for.
        reference: the same in float32, to compare with.
        output: the file to write.
        precision: None where the exporter takes that of the source.
        image_size: (height, width) that was asked for.
        dynamic: any size was asked for.
        images: of the target domain, to compare on; none: drawn streets.
        tolerance: None: that of the precision.
        options: all arguments, with those of `Exporter.add_options`.
    """

    source: Path
    reference: Path
    output: Path
    precision: str | None = None
    image_size: tuple[int, int] | None = None
    dynamic: bool = False
    images: list[np.ndarray] = field(default_factory=list)
    tolerance: Tolerance | None = None
    options: argparse.Namespace = field(default_factory=argparse.Namespace)

    @property
    def batches(self) -> list[np.ndarray] | None:
        """Images of the target domain as the file will see them."""
        if not self.images:
            return None
        metadata = metadata_of_onnx(self.reference)
        if self.image_size:
            metadata = replace(metadata, image_size=self.image_size, image_bound=None)
        return [framed_batch(image, metadata) for image in self.images[-3:]]


class Written(NamedTuple):
    """What came of an export.

    Attributes:
        said: how the file was verified, in one line or several.
        can_run: False for a file that nothing here can run.
    """

    said: str
    can_run: bool = True


@dataclass(frozen=True)
class Exporter:
    """A kind of file.

    Attributes:
        suffixes: endings of its files.
        write: the file, verified before it gets its name.
        precisions: that it can be in, the first by default.
        takes_checkpoints: else ONNX files alone, whose precision it keeps.
        float_precisions: in which PyTorch writes the source; others are made of the first.
        check: raises UserError before minutes of work for what cannot be.
        add_options: to the parser, of this exporter alone.
    """

    suffixes: tuple[str, ...]
    write: Callable[[Job], Written]
    precisions: tuple[str, ...] = ("fp32",)
    takes_checkpoints: bool = True
    float_precisions: tuple[str, ...] = ("fp32",)
    check: Callable[[argparse.Namespace], None] = lambda args: None
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def verified(write: Callable[[Path, Path], None]) -> Callable[[Job], Written]:
    """The `write` of an exporter that only makes a file of another; it is run and compared here.

    Args:
        write: called with the ONNX file and the file to write, which has the right ending.
    """

    def export(job: Job) -> Written:
        output = job.output
        partial = output.with_name(f"{output.stem}.partial{output.suffix}")
        try:
            write(job.source, partial)
            model = load_model(partial)
            if not isinstance(model, FilePredictor):
                raise UserError(f"{output}: no runtime opens {output.suffix}; add one to RUNTIMES")
            metadata = model.metadata
            network = Network(model.run, metadata.output_kind, metadata.layout)
            report = verify(
                network,
                onnx_network(job.reference, metadata_of_onnx(job.reference)),
                job.batches or street_batches(metadata, metadata.image_size or EXAMPLE_SIZE),
                job.tolerance or TOLERANCES[metadata.precision],
            )
            partial.replace(output)
        except OSError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{output}: cannot be written ({error.strerror})") from None
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        return Written(f"verified in {model.runtime} against ONNX Runtime: {report}")

    return export


def _write_onnx(job: Job) -> Written:
    """The source is the file already."""
    try:
        with atomic_writer(job.output) as partial:
            shutil.copyfile(job.source, partial)
    except OSError as error:
        raise UserError(f"{job.output}: cannot be written ({error.strerror})") from None
    return Written("")


def _write_ir(job: Job) -> Written:
    assert job.precision is not None
    report = export_openvino(
        job.source,
        job.output,
        precision=job.precision,
        image_size=job.image_size,
        dynamic=job.dynamic,
        reference=job.reference,
        tolerance=job.tolerance,
        images=job.batches,
    )
    return Written(f"verified in OpenVINO against ONNX Runtime: {report}")


def _check_ir(args: argparse.Namespace) -> None:
    check_precision_runs(args.precision)
    source = Path(args.source)
    if source.suffix.lower() == ".onnx":
        size = tuple(args.size) if args.size else None
        check_size(metadata_of_onnx(source), size, args.dynamic, source)


def _write_engine(job: Job) -> Written:
    source, output, options = job.source, job.output, job.options
    if options.verify_only:
        report = verify_engine(source, output)
        return Written(f"verified on this GPU: {report}\n{output}.unverified -> {output}")
    exported = export_engine(source, output, _engine_settings(options))
    built = exported.built
    lines = [_layer_table(built)] if options.inspect else []
    lines.append(
        f"{source} -> {exported.path} ({len(built.content) / 1e6:.1f} MB, {built.precision}, "
        f"version {built.version})"
    )
    if exported.report is not None:
        lines.append(f"verified on this GPU: {exported.report}")
    else:
        lines.append(
            f"not run: no GPU that it was built for is usable here. Where there is one: "
            f"t2sda export tensorrt {source} --output {output} --verify-only"
        )
    return Written("\n".join(lines), can_run=exported.report is not None)


def _engine_settings(options: argparse.Namespace) -> EngineSettings:
    return EngineSettings(
        target=options.target,
        precision=options.precision,
        profile=Profile(*options.profile) if options.profile else None,
        timing_cache=Path(options.timing_cache) if options.timing_cache else None,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        compute_capabilities=tuple(options.compute_capability),
    )


def _layer_table(built: BuiltEngine) -> str:
    """How many layers of a kind are in which precision."""
    what = "engine, by its inspector" if built.inspected else "network as parsed (no GPU loads it)"
    counts = Counter((layer.kind, layer.precision) for layer in built.layers)
    first = {(layer.kind, layer.precision): layer.name for layer in reversed(built.layers)}
    rows = [
        f"{kind:<24} {precision:<6} {count:>4}  {first[kind, precision]}"
        for (kind, precision), count in sorted(counts.items())
    ]
    return "\n".join([f"layers of the {what}: kind, precision, how many, the first", *rows])


def _shape(text: str) -> Shape:
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if found is None or "0" in found.groups():
        raise argparse.ArgumentTypeError(f"'{text}' is no batch like 1x512x1024")
    batch, height, width = map(int, found.groups())
    return batch, height, width


def _check_engine(args: argparse.Namespace) -> None:
    if args.evaluate and not has_gpu():
        raise UserError(
            "--evaluate: no GPU is usable here that could run the engine; leave it out, and give "
            "it with --verify-only where there is one"
        )


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        choices=tuple(TARGETS),
        default="tensorrt",
        help="engines of one do not load in the other; tensorrt-rtx builds without a GPU",
    )
    parser.add_argument(
        "--profile",
        nargs=3,
        type=_shape,
        metavar=("SMALLEST", "USUAL", "LARGEST"),
        help="batches BxHxW that an engine of a file of any size takes, such as 1x256x512",
    )
    parser.add_argument(
        "--timing-cache", metavar="FILE", help="reused between builds; TensorRT only"
    )
    parser.add_argument(
        "--version-compatible",
        action="store_true",
        help="loads in later versions too; TensorRT only",
    )
    parser.add_argument(
        "--hardware-compatible", action="store_true", help="loads on all GPUs from Ampere on"
    )
    parser.add_argument(
        "--compute-capability",
        action="append",
        default=[],
        metavar="X.Y",
        help="GPU to build for, repeatable; TensorRT-RTX only (default: the one here, or 8.0)",
    )
    parser.add_argument("--inspect", action="store_true", help="print a table of the layers")
    parser.add_argument(
        "--verify-only",
        action="store_true",
        help="run FILE.unverified on this GPU and give it its name",
    )


EXPORTERS: dict[str, Exporter] = {
    "onnx": Exporter(
        (".onnx",),
        _write_onnx,
        precisions=("fp32", "fp16", "int8"),
        float_precisions=("fp32", "fp16"),
    ),
    "openvino": Exporter(
        (".xml",), _write_ir, precisions=("fp32", "bf16", "int8"), check=_check_ir
    ),
    "tensorrt": Exporter(
        ENGINE_SUFFIXES,
        _write_engine,
        precisions=("fp32", "fp16", "int8"),
        takes_checkpoints=False,
        check=_check_engine,
        add_options=_add_engine_options,
    ),
}
"""By the name of `t2sda export NAME`."""
