"""Files that `t2sda export` did not write: what their graph says, and what the user has to say."""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from t2sda.data.label_tables import TAXONOMIES
from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.registry import nearest_first

from .metadata import LAYOUTS, OUTPUT_KINDS, Layout, Metadata, OutputKind


@dataclass(frozen=True)
class Signature:
    """What a graph takes and what the output that counts is; None for a size that varies.

    Types are NumPy's names ("uint8", "float32").
    """

    input_shape: tuple[int | None, ...]
    input_type: str
    output_shape: tuple[int | None, ...]
    output_type: str


@dataclass(frozen=True)
class Description:
    """What a user says about a file that does not describe itself; None: not said.

    Attributes:
        taxonomy: name of a label set, such as "cityscapes_19", or of a dataset that uses it.
        pixel_mean, pixel_std: of R, G, B in [0, 255], for a graph that does not normalise.
        layout: of the input, where its shape leaves it open.
        output_kind: where the output's type leaves it open.
        output: name of the output that counts, of a graph with several; None: the first.
        dropped_channels: of an output with more channels than there are classes, those that stand
            for none, such as ESPNet's last one.
    """

    taxonomy: str | None = None
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    layout: Layout | None = None
    output_kind: OutputKind | None = None
    output: str | None = None
    dropped_channels: tuple[int, ...] | None = None

    def __bool__(self) -> bool:
        return self != Description()


FLAGS = {
    "taxonomy": "--taxonomy NAME (what the classes are)",
    "pixel_mean": "--pixel-mean R G B (the graph takes floats, so it does not normalise)",
    "pixel_std": "--pixel-std R G B (likewise)",
    "layout": f"--layout {'|'.join(LAYOUTS)}",
    "output_kind": f"--output-kind {'|'.join(OUTPUT_KINDS)}",
}
_FEW = 3
"""Channels that are likely to stand for no class; more are of another label set."""
FLOATS = ("float16", "float32")
INTEGERS = ("uint8", "int32", "int64")


def described(signature: Signature, said: Description, path: object) -> Metadata:
    """Metadata of a file of others, from its graph and from what the user says.

    Raises:
        UserError: if something is missing (all of it in one message), contradicts the graph, or
            the graph is none that segments images.
    """
    check_takes_images(signature, path)
    found = replace(
        said,
        layout=said.layout or _layout_of(signature.input_shape),
        output_kind=said.output_kind or _output_kind_of(signature),
    )
    needed = [*("taxonomy", "layout", "output_kind")]
    needed += ["pixel_mean", "pixel_std"] if signature.input_type in FLOATS else []
    _check_said(signature, said, path)
    missing = [FLAGS[name] for name in needed if getattr(found, name) is None]
    if missing:
        raise UserError(
            f"{path}: a file that `t2sda export` did not write; it does not say what its classes "
            f"and pixels are. Add {', '.join(missing)}; or export the checkpoint with "
            f"`t2sda export`"
        )
    assert found.layout is not None
    assert found.output_kind is not None
    return Metadata(
        taxonomy=taxonomy_called(found.taxonomy or ""),
        image_size=_size_in(signature.input_shape, found.layout),
        image_bound=None,
        pixel_mean=found.pixel_mean or (0.0,) * 3,
        pixel_std=found.pixel_std or (1.0,) * 3,
        layout=found.layout,
        output_kind=found.output_kind,
        precision="fp32",
        origin={},
        versions={},
    )


def check_signature(signature: Signature, metadata: Metadata, path: object) -> None:
    """Raise UserError if a graph is not what its metadata, or the user, says it is."""
    check_takes_images(signature, path)
    shape, size = signature.input_shape, metadata.image_size
    channels = shape[3] if metadata.layout == "nhwc" else shape[1]
    if channels not in (None, 3):
        raise UserError(
            f"{path}: takes images of shape {shape}, which is not {metadata.layout} with 3 channels"
        )
    taken = _size_in(shape, metadata.layout)
    if taken != size:
        raise UserError(
            f"{path}: takes images of {_text(taken)}, but its metadata says {_text(size)}; export "
            f"the checkpoint again"
        )
    _check_output(signature, metadata, path)


def check_takes_images(signature: Signature, path: object) -> None:
    """Raise UserError for a graph whose input is no batch of images."""
    if len(signature.input_shape) != 4 or signature.input_type not in ("uint8", *FLOATS):
        raise UserError(
            f"{path}: takes {signature.input_type} of shape {signature.input_shape}; images are "
            f"uint8 or floats with four axes"
        )


def _check_output(signature: Signature, metadata: Metadata, path: object) -> None:
    kind, shape = metadata.output_kind, signature.output_shape
    gives = f"{path}: gives {signature.output_type} of shape {shape}"
    if kind == "labels":
        fits = len(shape) == 3 or (len(shape) == 4 and shape[1] in (None, 1))
        if not fits or signature.output_type not in INTEGERS:
            raise UserError(f"{gives}; labels are integers of shape (images, height, width)")
        return
    if len(shape) != 4 or signature.output_type not in FLOATS:
        raise UserError(f"{gives}; {kind} are floats of shape (images, classes, height, width)")
    found, due = shape[1], metadata.taxonomy.num_classes
    if found is not None and found != due:
        raise UserError(
            f"{path}: gives {found} classes, but {metadata.taxonomy.name} has {due}"
            f"{_which_to_drop(found, due)}"
        )


def _which_to_drop(channels: int, num_classes: int) -> str:
    """Advice where there are some too many; empty where there are too few, or of other classes."""
    few = range(num_classes, channels if channels <= num_classes + _FEW else num_classes)
    last = " ".join(map(str, few))
    return f"; name those that stand for no class, such as --drop-channels {last}" if last else ""


def chosen_output(outputs: Sequence[Collection[str]], wanted: str | None, path: object) -> int:
    """Which output counts: the one that is asked for by its name, else the first.

    Args:
        outputs: the names of each.
        wanted: by Description.output.
        path: for messages.
    Raises:
        UserError: if none is called like that; it lists the names.
    """
    if wanted is None:
        return 0
    found = [index for index, names in enumerate(outputs) if wanted in names]
    if not found:
        names = [name for own in outputs for name in sorted(own)]
        known = ", ".join(nearest_first(wanted, names)) or "none has a name"
        raise UserError(f"{path}: has no output '{wanted}'; its outputs, nearest first: {known}")
    return found[0]


def taxonomy_called(name: str) -> Taxonomy:
    """The label set, or that of a dataset; UserError lists the names.

    Datasets are looked through where the name is of no label set: their readers need packages that
    running a file does not.
    """
    if name in TAXONOMIES:
        return TAXONOMIES[name]
    try:
        importlib.import_module("t2sda.builtin")
        datasets = importlib.import_module("t2sda.data.catalog").DATASETS
    except ImportError as error:
        raise UserError(
            f"--taxonomy {name}: none of {', '.join(sorted(TAXONOMIES))}; names of datasets need "
            f"all packages of t2sda ({error})"
        ) from None
    known = dict(TAXONOMIES)
    for dataset in datasets.names():
        taxonomy = getattr(datasets.get(dataset), "taxonomy", None)
        if isinstance(taxonomy, Taxonomy):
            known |= {taxonomy.name: taxonomy, dataset: taxonomy}
    if name not in known:
        raise UserError(f"--taxonomy {name}: unknown; one of {', '.join(sorted(known))}")
    return known[name]


def _check_said(signature: Signature, said: Description, path: object) -> None:
    """Raise UserError for what the graph says otherwise, or cannot use."""
    for flag, numbers, low in (
        ("--pixel-mean", said.pixel_mean, -math.inf),
        ("--pixel-std", said.pixel_std, 0.0),
    ):
        if numbers is not None and not all(low < value < math.inf for value in numbers):
            due = "above 0" if low == 0 else "finite"
            raise UserError(f"{flag} {' '.join(map(str, numbers))}: each must be {due}")
    if signature.input_type == "uint8" and (said.pixel_mean or said.pixel_std):
        raise UserError(
            f"{path}: takes uint8, so it normalises by itself; leave out --pixel-mean, --pixel-std"
        )
    seen = _layout_of(signature.input_shape)
    if said.layout and seen not in (None, said.layout):
        raise UserError(
            f"{path}: takes images of shape {signature.input_shape}, which is {seen}, not "
            f"--layout {said.layout}"
        )
    batch_size = signature.input_shape[0]
    if batch_size not in (None, 1):
        raise UserError(
            f"{path}: takes exactly {batch_size} images at once; export it for one, or for any "
            f"number"
        )


def _layout_of(shape: Sequence[int | None]) -> Layout | None:
    by_axis: dict[int, Layout] = {1: "nchw", 3: "nhwc"}
    found = [layout for axis, layout in by_axis.items() if shape[axis] == 3]
    return found[0] if len(found) == 1 else None


def _output_kind_of(signature: Signature) -> OutputKind | None:
    shape = signature.output_shape
    if signature.output_type in INTEGERS and (len(shape) == 3 or shape[1:2] == (1,)):
        return "labels"
    return "logits" if len(shape) == 4 and signature.output_type in FLOATS else None


def _size_in(shape: Sequence[int | None], layout: Layout) -> tuple[int, int] | None:
    height, width = shape[1:3] if layout == "nhwc" else shape[2:4]
    return None if height is None or width is None else (height, width)


def _text(size: tuple[int, int] | None) -> str:
    return "any size" if size is None else f"{size[0]}x{size[1]}"
