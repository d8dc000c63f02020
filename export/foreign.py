"""Files that `t2sda export` did not write: what their graph tells, and what has to be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from t2sda.data.catalog import DATASETS
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.errors import UserError

from .deployable import LAYOUTS, OUTPUT_KINDS, Layout, OutputKind
from .metadata import Metadata


@dataclass(frozen=True)
class Signature:
    """What a graph of one input and one output takes and gives; None for a size that varies.

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
        layout: of the input, where its shape does not tell.
        output_kind: where the output's type does not tell.
    """

    taxonomy: str | None = None
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    layout: Layout | None = None
    output_kind: OutputKind | None = None

    def __bool__(self) -> bool:
        return self != Description()


FLAGS = {
    "taxonomy": "--taxonomy NAME (what the classes are)",
    "pixel_mean": "--pixel-mean R G B (the graph takes floats, so it does not normalise)",
    "pixel_std": "--pixel-std R G B (likewise)",
    "layout": f"--layout {'|'.join(LAYOUTS)}",
    "output_kind": f"--output-kind {'|'.join(OUTPUT_KINDS)}",
}


def described(signature: Signature, said: Description, path: object) -> Metadata:
    """Metadata of a foreign file, from its graph and from what the user says.

    Raises:
        UserError: if something is missing (all of it in one message), contradicts the graph, or
            the graph is none that segments pictures.
    """
    if len(signature.input_shape) != 4 or signature.input_type not in ("uint8", "float32"):
        raise UserError(
            f"{path}: takes {signature.input_type} of shape {signature.input_shape}; pictures are "
            f"uint8 or float32 with four axes"
        )
    found = replace(
        said,
        layout=said.layout or _layout_of(signature.input_shape),
        output_kind=said.output_kind or _output_kind_of(signature),
    )
    needed = [*("taxonomy", "layout", "output_kind")]
    needed += ["pixel_mean", "pixel_std"] if signature.input_type == "float32" else []
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
    taxonomy = taxonomy_called(found.taxonomy or "")
    _check_classes(signature, found.output_kind, taxonomy, path)
    return Metadata(
        taxonomy=taxonomy,
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


def taxonomy_called(name: str) -> Taxonomy:
    """The label set, or that of a dataset; UserError lists the names."""
    known = {CITYSCAPES_19.name: CITYSCAPES_19}
    for dataset in DATASETS.names():
        taxonomy = getattr(DATASETS.get(dataset), "taxonomy", None)
        if isinstance(taxonomy, Taxonomy):
            known |= {taxonomy.name: taxonomy, dataset: taxonomy}
    if name not in known:
        raise UserError(f"--taxonomy {name}: unknown; one of {', '.join(sorted(known))}")
    return known[name]


def normalised(images: np.ndarray, metadata: Metadata) -> np.ndarray:
    """(B, H, W, 3) uint8 -> float32 less the mean, over the deviation."""
    mean = np.asarray(metadata.pixel_mean, dtype=np.float32)
    std = np.asarray(metadata.pixel_std, dtype=np.float32)
    return (images.astype(np.float32) - mean) / std


def _check_said(signature: Signature, said: Description, path: object) -> None:
    """Raise UserError for what the graph says otherwise, or cannot use."""
    if signature.input_type == "uint8" and (said.pixel_mean or said.pixel_std):
        raise UserError(
            f"{path}: takes uint8, so it normalises by itself; leave out --pixel-mean, --pixel-std"
        )
    told = _layout_of(signature.input_shape)
    if said.layout and told not in (None, said.layout):
        raise UserError(
            f"{path}: takes pictures of shape {signature.input_shape}, which is {told}, not "
            f"--layout {said.layout}"
        )
    batch_size = signature.input_shape[0]
    if batch_size not in (None, 1):
        raise UserError(
            f"{path}: takes exactly {batch_size} pictures at once; export it for one, or for any "
            f"number"
        )


def _layout_of(shape: Sequence[int | None]) -> Layout | None:
    by_axis: dict[int, Layout] = {1: "nchw", 3: "nhwc"}
    found = [layout for axis, layout in by_axis.items() if shape[axis] == 3]
    return found[0] if len(found) == 1 else None


def _output_kind_of(signature: Signature) -> OutputKind | None:
    integers = signature.output_type in ("uint8", "int32", "int64")
    by_rank: dict[tuple[int, bool], OutputKind] = {(3, True): "labels", (4, False): "logits"}
    return by_rank.get((len(signature.output_shape), integers))


def _size_in(shape: Sequence[int | None], layout: Layout) -> tuple[int, int] | None:
    height, width = shape[1:3] if layout == "nhwc" else shape[2:4]
    return None if height is None or width is None else (height, width)


def _check_classes(
    signature: Signature, output_kind: OutputKind, taxonomy: Taxonomy, path: object
) -> None:
    axes = 3 if output_kind == "labels" else 4
    if len(signature.output_shape) != axes:
        raise UserError(
            f"{path}: gives {signature.output_type} of shape {signature.output_shape}; "
            f"{output_kind} have {axes} axes"
        )
    channels = signature.output_shape[1] if output_kind != "labels" else None
    if channels not in (None, taxonomy.num_classes):
        raise UserError(
            f"{path}: gives {channels} classes, but --taxonomy {taxonomy.name} has "
            f"{taxonomy.num_classes}"
        )
