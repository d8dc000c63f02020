"""OpenVINO IR: the fast path on CPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.errors import UserError
from t2sda.files import atomic_pair_writer
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.openvino_file import (
    OpenVinoRunner,
    read_model,
    seal_ir,
    set_properties,
    with_blank_digest,
)
from t2sda.runtime.packages import require
from t2sda.runtime.sliding import sliding
from t2sda.runtime.whole_batches import whole_batches

from .onnx import check_output
from .verify import (
    TOLERANCES,
    Network,
    Tolerance,
    VerificationReport,
    metadata_of_onnx,
    onnx_network,
    street_batches,
    verify,
)

EXAMPLE_SIZE = (256, 512)
"""(height, width) of the images that files of any size are verified with."""


def export_openvino(
    source: Path,
    output: Path,
    *,
    precision: str,
    image_size: tuple[int, int] | None = None,
    dynamic: bool = False,
    reference: Path | None = None,
    images: list[np.ndarray] | None = None,
    tolerance: Tolerance | None = None,
) -> VerificationReport:
    """Write an IR (`output` and its `.bin`) of an ONNX file, unless they disagree.

    Args:
        source: of `t2sda export onnx`; for int8 an int8 file.
        output: ends in .xml.
        precision: "fp32", "bf16" (weights stored in 16 bits, computed in bf16) or "int8".
        image_size: (height, width) to fix a graph of any size to.
        dynamic: leave a graph of any size so; slower than a fixed one.
        reference: the float32 ONNX file to compare with; by default `source`.
        images: batches (1, H, W, 3) to compare on; by default drawn streets.
        tolerance: by default that of `precision`.

    Raises:
        UserError: if the file cannot be read or written, the size or precision does not fit, or
            the IR disagrees beyond the tolerance.
    """
    check_xml_output(output)
    metadata = metadata_of_onnx(source)
    graph = read_model(source)
    _check_precision(metadata, precision, source)
    check_size(metadata, image_size, dynamic, source)
    if metadata.image_size is None and image_size is not None:
        _fix_size(graph, metadata, image_size)
        metadata = replace(metadata, image_size=image_size, image_bound=None)
    openvino = require("openvino", "openvino")
    versions = {**metadata.versions, "openvino": openvino.__version__.split("-")[0]}
    metadata = replace(metadata, precision=precision, versions=versions)
    set_properties(graph, with_blank_digest(metadata.to_properties()))
    compared = reference or source
    with _both_written_whole(output) as partial:
        openvino.save_model(graph, str(partial), compress_to_fp16=precision == "bf16")
        seal_ir(partial)
        batches = images or street_batches(metadata, metadata.image_size or EXAMPLE_SIZE)
        return verify(
            ir_network(partial, metadata),
            onnx_network(compared, metadata_of_onnx(compared)),
            batches,
            tolerance or TOLERANCES[precision],
        )


def ir_network(path: Path, metadata: Metadata) -> Network:
    """An IR as it is, and for labels and probabilities its logits, through a second output."""
    graph, kind = read_model(path), metadata.output_kind
    if kind != "logits":
        last = {"labels": "TopK", "probabilities": "Softmax"}[kind]
        found = [op for op in graph.get_ordered_ops() if op.get_type_name() == last]
        graph.add_outputs([found[-1].input_value(0)])
    number = graph.inputs[0].get_partial_shape()[0]
    size = number.get_length() if number.is_static else None
    run = OpenVinoRunner(graph, "cpu", metadata.precision, 0, path)
    to_logits = whole_batches(lambda images: run.all_outputs(images)[-1], size)
    return Network(
        sliding(whole_batches(run, size), metadata),
        kind,
        metadata.layout,
        None if kind == "logits" else to_logits,
    )


def _check_precision(metadata: Metadata, precision: str, source: Path) -> None:
    fitting = {"fp32": ("fp32", "bf16"), "fp16": ("bf16",), "int8": ("int8",)}[metadata.precision]
    if precision not in fitting:
        advice = "; --calibration quantises it" if precision == "int8" else ""
        raise UserError(
            f"{source}: is in {metadata.precision}, of which an IR in {' or '.join(fitting)} can "
            f"be made, not in {precision}{advice}"
        )


def check_size(
    metadata: Metadata, image_size: tuple[int, int] | None, dynamic: bool, source: object
) -> None:
    """Raise UserError if the size asked for is not that of an ONNX file, or none is said."""
    fixed = metadata.image_size
    if fixed is None and image_size is None and not dynamic:
        raise UserError(f"{source}: takes any size; say --size HEIGHT WIDTH, or --dynamic")
    if fixed is not None and (dynamic or image_size not in (None, fixed)):
        raise UserError(
            f"{source}: takes images of {fixed[0]}x{fixed[1]} only; leave out --size and "
            f"--dynamic, or export another ONNX file"
        )


def _fix_size(graph: Any, metadata: Metadata, image_size: tuple[int, int]) -> None:
    channels_first = metadata.layout == "nchw"
    graph.reshape([1, 3, *image_size] if channels_first else [1, *image_size, 3])


def check_xml_output(output: Path) -> None:
    """Find out before minutes of work whether both files can be written."""
    if output.suffix != ".xml":
        raise UserError(f"{output}: an OpenVINO file ends in .xml; its .bin is written beside it")
    check_output(output)


@contextlib.contextmanager
def _both_written_whole(output: Path) -> Iterator[Path]:
    """Yields the .xml to write (its .bin comes beside it); both get their names, or neither.

    An old .xml goes before its .bin is replaced: an .xml that is there has its own weights.
    """
    try:
        with atomic_pair_writer(output.with_suffix(".bin"), output) as (_, partial):
            yield partial
    except (OSError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{output}: cannot be written ({error})") from None
