"""From a trained network to one ONNX file that needs no code around it, verified first.

What the exporter of torch gets wrong by itself is dealt with here: a batch of 1 in the example
would be baked in, the paths of source files would be written into every node, and output dimensions
would have no names.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import t2sda
from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.files import atomic_writer, make_writable_dir
from t2sda.modeling.backbones.adapters import without_adapters
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.metadata import Layout, Metadata, OutputKind, sealed
from t2sda.runtime.onnx_content import content_of
from t2sda.runtime.packages import require

from .deployable import INPUT_NAME, Deployable, in_half_precision
from .same_padding import same_padding_by_name
from .verify import Tolerance, VerificationReport, verify_onnx

OPSET = 20
OPSETS = (17, 18, 19, 20)
"""What can be asked for: from LayerNormalization as one operator on."""
DYNAMIC_AXES: dict[Layout, dict[int, str]] = {
    "nhwc": {0: "batch", 1: "height", 2: "width"},
    "nchw": {0: "batch", 2: "height", 3: "width"},
}
_NO_LIMIT = 2**31  # elements
_STRIDE = 32
"""Networks halve images five times."""


def export_onnx(
    model: SegmentationModel,
    taxonomy: Taxonomy,
    output: Path,
    *,
    image_size: tuple[int, int],
    dynamic: bool = False,
    batch_size: int = 1,
    opset: int = OPSET,
    output_kind: OutputKind = "labels",
    layout: Layout = "nhwc",
    precision: str = "fp32",
    image_bound: tuple[int, int] | None = None,
    origin: Mapping[str, str | int] | None = None,
    tolerance: Tolerance | None = None,
) -> VerificationReport:
    """Write `output`, unless the file would disagree with PyTorch.

    The graph takes `images`, (B, H, W, 3) or (B, 3, H, W) uint8 RGB, and gives `labels`, (B, H, W)
    uint8 train ids, or `logits` or `probabilities`, (B, C, H, W) float32.

    Args:
        model: on the CPU; exported as in evaluation mode.
        taxonomy: of its classes.
        output: the file; an old one is replaced once the new one is verified, and never before.
        image_size: (height, width) of the graph; where it is dynamic, of the example it is made
            from and of the images it is verified with.
        dynamic: any batch, height and width instead of `batch_size` images of `image_size`.
        batch_size: images that a graph which is not dynamic takes at once, no more and no fewer.
        opset: version of the operators, of OPSETS.
        output_kind, layout, image_bound, origin: see Metadata.
        precision: "fp32", or "fp16" for a backbone and head in float16.
        tolerance: how far it may disagree with PyTorch; by default that of its precision.

    Raises:
        UserError: if the file cannot be written, the network cannot be exported, or the file
            disagrees with PyTorch beyond the tolerance.
    """
    require("onnxscript", "onnx")
    check_output(output, (".onnx",))
    if dynamic and batch_size > 1:
        raise UserError("--batch: --dynamic takes any number of images; leave one of them out")
    window_step = _window_step(model, image_size, output_kind, dynamic)
    if window_step and batch_size > 1:
        raise UserError(
            "--batch: a graph of windows takes one at once; give the --size of whole images"
        )
    metadata = Metadata(
        taxonomy=taxonomy,
        image_size=None if dynamic else image_size,
        image_bound=image_bound if dynamic or window_step else None,
        pixel_mean=tuple(model.pixel_mean.flatten().tolist()),
        pixel_std=tuple(model.pixel_std.flatten().tolist()),
        layout=layout,
        output_kind=output_kind,
        precision=precision,
        origin=origin or {},
        versions=_versions(),
        window_step=window_step,
    )
    with _evaluating(model):
        plain = without_adapters(model)
        shipped = in_half_precision(plain) if precision == "fp16" else plain
        deployable = Deployable(shipped, output_kind, layout)
        model_proto = _exported(deployable, image_size, dynamic, batch_size, opset)
        _clear_source_paths(model_proto)
        set_properties(model_proto, metadata)
        return write_verified(
            model_proto,
            output,
            lambda written: verify_onnx(
                written, model, metadata, image_size, tolerance, batch_size
            ),
        )


def _window_step(
    model: SegmentationModel,
    image_size: tuple[int, int],
    output_kind: OutputKind,
    dynamic: bool,
) -> tuple[int, int] | None:
    """That of a model that slides, for a graph of one window; one of another size slides itself.

    Raises:
        UserError: if it cannot be exported so.
    """
    if model.sliding is None:
        return None
    window, step = model.sliding
    if dynamic:
        raise UserError(
            f"--dynamic: this {type(model).__name__} takes windows of {window[0]}x{window[1]} and "
            f"slides over images of any size; leave it out"
        )
    if image_size != window:
        return None
    if output_kind != "logits":
        raise UserError(
            f"--output-kind {output_kind}: windows of {window[0]}x{window[1]} give logits, which "
            f"are averaged; leave it out, or give the --size of whole images"
        )
    return step


def _least(deployable: Deployable, axis: str) -> int | None:
    """Least size along a dynamic axis; None: torch's own.

    A plain transformer takes two tokens or more on a side: of one torch makes a constant.
    """
    tokens = deployable.model.backbone.tokens
    return None if tokens is None or axis == "batch" else int(tokens.stride) + 1


def _exported(
    deployable: Deployable,
    image_size: tuple[int, int],
    dynamic: bool,
    batch_size: int,
    opset: int,
) -> Any:
    """The ModelProto as torch exports it."""
    number = batch_size
    if dynamic:
        number = 2  # 1 would be baked into the graph
        # Of another example torch concludes that sides are multiples of 32 less its remainder.
        image_size = (
            -(-image_size[0] // _STRIDE) * _STRIDE,
            -(-image_size[1] // _STRIDE) * _STRIDE,
        )
    example = torch.zeros((number, *image_size, 3), dtype=torch.uint8)
    if deployable.layout == "nchw":
        example = example.permute(0, 3, 1, 2).contiguous()
    dims = {
        axis: torch.export.Dim(name, min=_least(deployable, name))
        for axis, name in DYNAMIC_AXES[deployable.layout].items()
    }
    try:
        with _quiet(), same_padding_by_name(deployable):
            program = torch.onnx.export(
                deployable,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[deployable.output_kind],
                dynamic_shapes=(dims,) if dynamic else None,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        advice = "; without --dynamic it may work" if dynamic else ""
        raise UserError(f"torch cannot export this network{advice}: {error}") from error
    assert program is not None
    with _quiet():
        _fold_constants(program.model)
    return program.model_proto


def _fold_constants(model_ir: Any) -> None:
    """Compute what depends on weights alone, whatever its size, and keep only the results.

    So the file holds merged weights of a head and position embeddings of its one size of image.
    """
    optimizer = require("onnxscript.optimizer", "onnx")
    optimizer.fold_constants(model_ir, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    optimizer.remove_unused_nodes(model_ir)


def _clear_source_paths(model_proto: Any) -> None:
    """Remove what the exporter notes about the Python code that made a node."""
    del model_proto.metadata_props[:]
    for holder in (model_proto.graph, *model_proto.functions):
        _clear(holder)


def _clear(holder: Any) -> None:
    """Clear a graph or function, its nodes and values, and the graphs within its nodes."""
    items = [holder, *holder.node, *holder.value_info]
    for name in ("input", "output", "initializer"):  # of a function mere names, or missing
        items += [item for item in getattr(holder, name, ()) if not isinstance(item, str)]
    for item in items:
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    for node in holder.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _clear(attribute.g)
            for graph in attribute.graphs:
                _clear(graph)


def set_properties(model_proto: Any, metadata: Metadata) -> None:
    """Write our metadata, and nothing of whatever wrote the graph."""
    del model_proto.metadata_props[:]
    model_proto.producer_name, model_proto.producer_version = "t2sda", t2sda.__version__
    model_proto.graph.name = "t2sda"
    for key, value in metadata.to_properties().items():
        model_proto.metadata_props.add(key=key, value=value)


def write_verified(
    model_proto: Any, output: Path, verify: Callable[[Path], VerificationReport]
) -> VerificationReport:
    """Write beside `output`, check and run that file, and only then give it its name.

    Raises:
        UserError: if it cannot be written, or `verify` refuses it.
    """
    onnx = require("onnx", "onnx")
    try:
        with atomic_writer(output) as partial:
            partial.write_bytes(model_proto.SerializeToString())
            seal_onnx(partial)
            onnx.checker.check_model(str(partial), full_check=True)
            return verify(partial)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None


def seal_onnx(path: Path) -> None:
    """Write the digest of a file's metadata, graph and weights into it."""
    onnx = require("onnx", "onnx")
    model_proto = onnx.load(path, load_external_data=False)
    properties = {item.key: item.value for item in model_proto.metadata_props}
    properties = sealed(properties, content_of(path))
    onnx.helper.set_model_props(model_proto, properties)
    path.write_bytes(model_proto.SerializeToString())


def check_output(output: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Find out before minutes of work whether the file can be written, and loaded by its name."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; --output names the file to write")
    if suffixes and output.suffix.lower() not in suffixes:
        raise UserError(
            f"{output}: must end in {' or '.join(suffixes)}; `load_model` goes by the ending"
        )
    make_writable_dir(output.parent, "--output")


def _versions() -> dict[str, str]:
    onnx = require("onnx", "onnx")
    return {
        "t2sda": t2sda.__version__,
        "torch": str(torch.__version__),
        "onnx": onnx.__version__,
    }


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within, the former mode after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's talk about its own deprecations and optional packages."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
