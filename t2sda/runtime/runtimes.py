"""What runs which files, as a table: a runtime of one's own is one file and one line.

RUNTIMES["npz"] = Runtime((".npz",), runs(open_npz))

where `open_npz(path, options)` gives an OpenedFile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from t2sda.errors import MissingFileError, UserError

from .description import check_signature, described
from .metadata import Metadata, is_ours
from .onnxruntime_file import open_in_onnxruntime, takes_gpu
from .opened import LoadOptions, OpenedFile
from .openvino_file import open_in_openvino
from .predictor import FilePredictor, Predictor
from .tensorrt_file import ENGINE_SUFFIXES, has_gpu, open_engine, target_of
from .whole_batches import whole_batches

Load = Callable[[Path, LoadOptions, str], Predictor]
"""Of a file, and the runtime's own name in the table."""


@dataclass(frozen=True)
class Runtime:
    """What runs files of some endings.

    Attributes:
        suffixes: endings of the files that it can run, in lower case.
        load: a file, ready to run.
        default_device: where it runs if no device is asked for.
        takes: whether it can run a file of such an ending; asked where the ending is not enough.
        uses_gpu: whether it would run on a GPU here, of the device that is asked for.
    """

    suffixes: tuple[str, ...]
    load: Load
    default_device: str = "cpu"
    takes: Callable[[Path], bool] = lambda path: True
    uses_gpu: Callable[[str], bool] = lambda device: False


def runs(open_file: Callable[[Path, LoadOptions], OpenedFile]) -> Load:
    """The `load` of a runtime that opens graphs: metadata is read and checked against the graph."""

    def load(path: Path, options: LoadOptions, runtime: str) -> Predictor:
        opened = _without_channels(open_file(path, options), options, path)
        metadata = _metadata(opened, options, path)
        check_branch(options.branch, metadata, path)
        if opened.signature is not None:
            check_signature(opened.signature, metadata, path)
        return FilePredictor(
            path,
            whole_batches(opened.run, _number_of_images(opened)),
            metadata,
            runtime=runtime,
            max_batch_size=opened.max_batch_size,
            input_type=opened.signature.input_type if opened.signature else "uint8",
        )

    return load


def _without_channels(opened: OpenedFile, options: LoadOptions, path: Path) -> OpenedFile:
    """What was opened, without the channels that a description drops; nothing of a file of ours."""
    dropped = options.description.dropped_channels
    if not dropped or is_ours(opened.properties) or opened.signature is None:
        return opened
    from .channels import without_channels  # for few files of others

    signature, run = without_channels(opened.signature, opened.run, dropped, path)
    return replace(opened, signature=signature, run=run)


def _number_of_images(opened: OpenedFile) -> int | None:
    """That a graph takes at once; None for any."""
    shape = opened.signature.input_shape if opened.signature else ()
    return shape[0] if shape else None


def _metadata(opened: OpenedFile, options: LoadOptions, path: Path) -> Metadata:
    if not is_ours(opened.properties) and opened.signature is not None:
        return described(opened.signature, options.description, path)
    if options.description:
        raise UserError(
            f"{path}: describes itself; leave out --taxonomy, --pixel-mean and the like"
        )
    return Metadata.from_properties(opened.properties, path)


def check_branch(branch: str | None, metadata: Metadata, path: Path) -> None:
    """Raise UserError if another branch is asked for than an exported file holds."""
    held = metadata.origin.get("branch")
    if branch is not None and branch != held:
        said = f"the {held}" if held else "one network, without saying whose"
        raise UserError(f"--branch {branch}: {path} holds {said}; give a checkpoint that has both")


def _load_checkpoint(path: Path, options: LoadOptions, runtime: str) -> Predictor:
    try:
        from .checkpoints import load_checkpoint_predictor  # the only one that needs torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: a checkpoint; this needs the package '{error.name}', which is not installed "
            f"here; `pip install t2sda`, or load a file that `t2sda export` wrote"
        ) from None
    if options.description:
        raise UserError(f"{path}: a checkpoint describes itself; leave the description out")
    return load_checkpoint_predictor(path, options)


def _engine_of(target: str) -> Runtime:
    return Runtime(
        ENGINE_SUFFIXES,
        runs(open_engine),
        default_device="cuda",
        takes=lambda path: target_of(path) == target,
        uses_gpu=lambda device: True,
    )


TORCH = "torch"
"""Runs checkpoints: folders of runs, and files of every ending that nothing else runs."""

RUNTIMES: dict[str, Runtime] = {
    TORCH: Runtime((".pth",), _load_checkpoint, uses_gpu=lambda d: d != "cpu" and has_gpu()),
    "onnxruntime": Runtime((".onnx",), runs(open_in_onnxruntime), uses_gpu=takes_gpu),
    "openvino": Runtime((".xml", ".onnx"), runs(open_in_openvino)),
    "tensorrt": _engine_of("tensorrt"),
    "tensorrt-rtx": _engine_of("tensorrt-rtx"),
}
"""By name; of those that can run a file the first is the default."""


def runtime_for(path: Path, runtime: str | None) -> str:
    """What runs the file: what is asked for, or its default; see `load_model`."""
    if runtime is None:
        return _able(path)[0]
    return runtimes_for(path, [runtime])[0]


def runtimes_for(path: Path, asked: Sequence[str]) -> list[str]:
    """Those of `asked` that can run the file, in their order; UserError if none can."""
    for runtime in asked:
        if runtime not in RUNTIMES:
            raise UserError(f"runtime '{runtime}': unknown; one of {', '.join(RUNTIMES)}")
    able = _able(path)
    found = [runtime for runtime in asked if runtime in able]
    if not found:
        engine = asked[0].startswith("tensorrt") and able[0] == "onnxruntime"
        advice = "; `t2sda export tensorrt` makes an engine of it" if engine else ""
        raise UserError(
            f"{path}: is a file for {' or '.join(able)}; {' and '.join(asked)} cannot run it"
            f"{advice}"
        )
    return found


def _able(path: Path) -> Sequence[str]:
    if not path.exists():
        is_url = re.match(r"[a-z][a-z0-9+.-]+:/", str(path))
        hint = "; models are read from this machine, so copy it here first" if is_url else ""
        raise MissingFileError(f"{path}: no such file or folder{hint}")
    if not path.is_file():
        return (TORCH,)
    suffix = path.suffix.lower()
    named = [name for name, runtime in RUNTIMES.items() if suffix in runtime.suffixes]
    return [name for name in named if RUNTIMES[name].takes(path)] or named or (TORCH,)
