"""`t2sda export info FILE`: what an exported file says about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser
from t2sda.errors import printable
from t2sda.export.later import open_exported
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.packages import require
from t2sda.runtime.predictor import FilePredictor


def command(argv: Sequence[str]) -> int:
    """Print a line for each thing; a damaged file is a UserError."""
    path = Path(build_parser().parse_args(argv).file)
    model = open_exported(path)
    rows = [("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB), as it was written")]
    rows += [*_described(model.metadata, model), *(_graph(path) if _is_onnx(path) else ())]
    for name, text in rows:
        print(printable(f"{name:<13}{text}"))
    return 0


def build_parser() -> ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda export info",
        description="What an exported file takes, gives and comes from; its digest is checked.",
    )
    parser.add_argument("file", metavar="FILE", help="of `t2sda export`: .onnx, .xml or .engine")
    return parser


def _described(metadata: Metadata, model: FilePredictor) -> Iterator[tuple[str, str]]:
    size = _size(metadata.image_size)
    number = {None: "any number", 1: "one"}.get(model.max_batch_size, str(model.max_batch_size))
    yield "runs in", model.runtime
    yield "takes", f"{number} at once, {size}, uint8 RGB, {metadata.layout}"
    if metadata.image_bound:
        yield "", f"images are resized to fit {_size(metadata.image_bound)} first"
    if metadata.window_step:
        yield "", f"slides in steps of {_size(metadata.window_step)}"
    yield "gives", f"{metadata.output_kind}, computed in {metadata.precision}"
    names = metadata.taxonomy.class_names
    yield "classes", f"{len(names)} of {metadata.taxonomy.name}: {', '.join(names)}"
    for key, values in (("comes from", metadata.origin), ("written by", metadata.versions)):
        yield key, ", ".join(f"{name} {value}" for name, value in values.items()) or "not said"


def _graph(path: Path) -> Iterator[tuple[str, str]]:
    proto = require("onnx", "onnx").load(path, load_external_data=False)
    yield "opset", ", ".join(f"{item.domain} {item.version}".strip() for item in proto.opset_import)
    kinds = Counter(node.op_type for node in proto.graph.node)
    yield "operators", ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))


def _is_onnx(path: Path) -> bool:
    return path.suffix.lower() == ".onnx"


def _size(size: tuple[int, int] | None) -> str:
    return "any size" if size is None else f"{size[0]}x{size[1]} (height x width)"
