"""Does the written file compute what its source computes? It is run to find out.

A float32 label may differ only where the source's two best logits are within TIE of each other: the
order of additions in two runtimes is not the same, and there is no better label there. Of fewer
digits a share of the pixels may change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from t2sda.data.transforms import resize_image
from t2sda.errors import MissingFileError, UserError
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.letterbox import softmax
from t2sda.runtime.metadata import Metadata, OutputKind
from t2sda.runtime.onnxruntime_file import SessionRunner, checked_properties, open_session
from t2sda.runtime.opened import Runner
from t2sda.runtime.packages import require
from t2sda.runtime.sliding import sliding
from t2sda.runtime.whole_batches import whole_batches
from t2sda.streets import DOMAINS, draw_street

TIE = 1e-4


class Tolerance(NamedTuple):
    """What may differ.

    Attributes:
        logits: largest difference, times the largest logit where that is > 1.
        changed: share of the pixels that may get another label; None: ties alone.
        spread: root mean square of the difference in the worst class, over the standard deviation
            of all logits; None: not looked at. A fault that shifts every pixel a little, such as a
            wrong mean or weight, is seen here, where the largest difference drowns in rounding.
    """

    logits: float
    changed: float | None
    spread: float | None = None

    def allowing(self, changed: float) -> Tolerance:
        """The same with another share of changed pixels; more of them allow more noise."""
        spread = self.spread
        if spread is not None and self.changed is not None:
            spread *= max(changed / self.changed, 1.0)
        return self._replace(changed=changed, spread=spread)


TOLERANCES = {
    "fp32": Tolerance(1e-4, None),
    "fp16": Tolerance(0.02, 0.005, 0.02),
    "bf16": Tolerance(0.15, 0.01, 0.08),
    "int8": Tolerance(0.5, 0.03, 0.08),
}
"""By precision. The share is what counts below fp32; the largest of millions of differences shows
only whether something is broken."""
SMALLEST_STREET = 64
FAINTEST = -7.0
"""Logarithm of the smallest probability that is compared: smaller ones vanish in fewer digits."""
SOFTMAX_DIFFERENCE = 0.01
"""Largest of a probability from the softmax of the file's own logits, which bf16 rounds."""
STREET_SEED = 9
"""A series of drawn streets that no dataset uses."""


@dataclass(frozen=True)
class VerificationReport:
    """How far a file and its source agree.

    Attributes:
        shapes: (B, H, W) of every batch that was compared.
        max_logit_difference: over all pixels and classes; of logarithms of probabilities, from
            FAINTEST on, where the file gives those alone; None where it gives labels alone.
        max_logit: the largest absolute logit, to judge the difference by.
        spread: see Tolerance; None where the file gives no logits.
        num_pixels: compared.
        num_changed: pixels with another label than the source's.
        num_ties: those of them where the source's two best logits are within TIE.
        tolerance: what may differ.
    """

    shapes: tuple[tuple[int, int, int], ...]
    max_logit_difference: float | None
    max_logit: float
    num_pixels: int
    num_changed: int
    num_ties: int
    tolerance: Tolerance = TOLERANCES["fp32"]
    spread: float | None = None

    @property
    def changed(self) -> float:
        """Share of the pixels with another label."""
        return self.num_changed / self.num_pixels

    @property
    def passed(self) -> bool:
        """Whether the file may be shipped; a NaN anywhere says no."""
        allowed = self.tolerance.logits * max(1.0, self.max_logit)
        if self.tolerance.changed is None:
            labels_agree = self.num_changed == self.num_ties
        else:
            labels_agree = self.changed <= self.tolerance.changed
        difference = self.max_logit_difference
        spread_fits = None in (self.spread, self.tolerance.spread) or (
            self.spread <= self.tolerance.spread  # type: ignore[operator]
        )
        return (difference is None or difference <= allowed) and labels_agree and spread_fits

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        logits = "its logits cannot be seen"
        if self.max_logit_difference is not None:
            logits = (
                f"logits differ by at most {self.max_logit_difference:.1e} (largest logit "
                f"{self.max_logit:.3g})"
            )
        if self.spread is not None:
            logits += f", in the worst class by {self.spread:.1e} of their spread"
        return (
            f"{logits}, {self.num_changed} of {self.num_pixels} labels differ "
            f"({self.changed:.3%}), {self.num_ties} of these where the source's two best logits "
            f"are within {TIE:g}; batches of {shapes}"
        )


def verify(
    file: Network, source: Network, batches: Iterable[np.ndarray], tolerance: Tolerance
) -> VerificationReport:
    """`compared`, and UserError if they disagree beyond the tolerance."""
    report = compared(file, source, batches, tolerance)
    if not report.passed:
        raise UserError(
            f"the exported file disagrees with its source and is not kept: {report}; "
            f"{allowed_by(tolerance)}"
        )
    return report


def allowed_by(tolerance: Tolerance) -> str:
    """What may differ, in words."""
    share = "at ties alone" if tolerance.changed is None else f"in {tolerance.changed:.2%}"
    return (
        f"allowed are {tolerance.logits:g} of the largest logit, {tolerance.spread or 'any'} of "
        f"the spread, and other labels {share}"
    )


def compared(
    file: Network, source: Network, batches: Iterable[np.ndarray], tolerance: Tolerance
) -> VerificationReport:
    """Run a file and its source on the same images.

    Args:
        file: what was written.
        source: what it was made from; gives logits.
        batches: (B, H, W, 3) uint8 each.
        tolerance: what may differ.

    Raises:
        UserError: if the file does not run.
    """
    reports = [_compare(file, source, images, tolerance) for images in batches]
    seen = [item.max_logit_difference for item in reports if item.max_logit_difference is not None]
    spreads = [item.spread for item in reports if item.spread is not None]
    return VerificationReport(
        shapes=tuple(shape for item in reports for shape in item.shapes),
        max_logit_difference=float(np.max(seen)) if seen else None,
        max_logit=float(np.max([item.max_logit for item in reports])),
        num_pixels=sum(item.num_pixels for item in reports),
        num_changed=sum(item.num_changed for item in reports),
        num_ties=sum(item.num_ties for item in reports),
        tolerance=tolerance,
        spread=float(np.max(spreads)) if spreads else None,
    )


def metadata_of_onnx(path: Path) -> Metadata:
    """What an ONNX file of ours says about itself; UserError if it is none, or was changed."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    return Metadata.from_properties(checked_properties(path), path)


def verify_onnx(
    path: Path,
    model: SegmentationModel,
    metadata: Metadata,
    image_size: tuple[int, int],
    tolerance: Tolerance | None = None,
    batch_size: int = 1,
) -> VerificationReport:
    """Run a file in ONNX Runtime and its network in PyTorch on the same drawn streets.

    Args:
        path: the file, of any name.
        model: what it was exported from, in evaluation mode, on the CPU.
        metadata: of the file.
        image_size: (height, width) of the images; a dynamic graph gets others as well.
        tolerance: by default that of the file's precision.
        batch_size: images at once, of a graph that takes so many.

    Raises:
        UserError: if the file does not run, or disagrees beyond the tolerance.
    """
    return verify(
        onnx_network(path, metadata),
        torch_network(model),
        street_batches(metadata, image_size, batch_size),
        tolerance or TOLERANCES[metadata.precision],
    )


def street_batches(
    metadata: Metadata, image_size: tuple[int, int], batch_size: int = 1
) -> Iterable[np.ndarray]:
    """Drawn streets of the shapes that the graph takes."""
    if metadata.window_step:
        shapes = sliding_shapes(image_size, metadata.window_step)
    else:
        static = metadata.image_size is not None
        shapes = static_shapes(image_size, batch_size) if static else dynamic_shapes(image_size)
    return (street_images(shape, index) for index, shape in enumerate(shapes))


def static_shapes(image_size: tuple[int, int], batch_size: int = 1) -> list[tuple[int, int, int]]:
    """Batches (B, H, W) for a graph of one size: three images one by one, or three batches."""
    return [(batch_size, *image_size)] * 3


def sliding_shapes(window: tuple[int, int], step: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Batches (B, H, W) for a graph that slides: a window, and an image of two that overlap."""
    return [(1, *window), (1, window[0], window[1] + step[1] // 2)]


def dynamic_shapes(image_size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Batches (B, H, W) for a graph of any size: more and fewer images, odd sides, portrait."""
    height, width = image_size
    odd = (max(height * 3 // 4, SMALLEST_STREET) | 1, max(width * 2 // 3, SMALLEST_STREET) | 1)
    portrait = (max(width // 2, SMALLEST_STREET) | 1, max(height // 2, SMALLEST_STREET) | 1)
    return [(2, *image_size), (1, *image_size), (1, *odd), (3, *portrait)]


def street_images(shape: tuple[int, int, int], index: int) -> np.ndarray:
    """Drawn streets, (B, H, W, 3) uint8; another `index` gives others."""
    batch_size, height, width = shape
    drawn_size = (max(height, SMALLEST_STREET), max(width, SMALLEST_STREET))
    domain = DOMAINS[index % len(DOMAINS)]
    images = [
        resize_image(draw_street(domain, STREET_SEED, 10 * index + i, drawn_size)[0], shape[1:])
        for i in range(batch_size)
    ]
    return np.stack(images)


class Network:
    """A file or model to be compared: batches (B, H, W, 3) uint8 in.

    Args:
        run: batches in the order of axes that it takes -> its output.
        kind: of that output.
        layout: of what it takes.
        to_logits: the same as `run`, but cut off before argmax or softmax; None where nothing can
            look behind the output.
    """

    def __init__(
        self,
        run: Runner,
        kind: OutputKind,
        layout: str = "nhwc",
        to_logits: Runner | None = None,
    ) -> None:
        self._run = run
        self._kind = kind
        self._layout = layout
        self._to_logits = to_logits

    @property
    def output_kind(self) -> OutputKind:
        """What `maps` gives; "labels" if it gives None. A source gives logits."""
        return "logits" if self._to_logits else self._kind

    def labels(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W) train ids."""
        output = self._run(as_layout(images, self._layout))
        return output if self._kind == "labels" else output.argmax(axis=1)

    def maps(self, images: np.ndarray) -> np.ndarray | None:
        """(B, C, H, W) logits or probabilities.

        Raises:
            UserError: if probabilities of the file are not the softmax of its logits.
        """
        taken = as_layout(images, self._layout)
        if self._to_logits is None:
            return None if self._kind == "labels" else self._run(taken)
        logits = self._to_logits(taken)
        if self._kind == "probabilities":
            check_softmax(self._run(taken), logits)
        return logits


def torch_network(model: SegmentationModel) -> Network:
    """A segmentation model in evaluation mode on the CPU."""

    @torch.inference_mode()
    def logits(images: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

    return Network(logits, "logits")


def onnx_network(path: Path, metadata: Metadata) -> Network:
    """An ONNX file as it is, and the logits of a file of labels or probabilities."""
    kind = metadata.output_kind
    size = number_of_images(path)
    run = sliding(whole_batches(SessionRunner(open_session(path, "cpu")), size), metadata)
    to_logits = None
    if kind != "logits":
        cut = open_session(giving_logits(path, kind), "cpu", name=path)
        to_logits = whole_batches(SessionRunner(cut), size)
    return Network(run, kind, metadata.layout, to_logits)


def number_of_images(path: Path) -> int | None:
    """How many an ONNX file takes at once; None for any number."""
    graph = require("onnx", "onnx").load(path, load_external_data=False).graph
    return graph.input[0].type.tensor_type.shape.dim[0].dim_value or None


def check_softmax(probabilities: np.ndarray, logits: np.ndarray) -> None:
    """Raise UserError if (B, C, H, W) probabilities are not the softmax of the logits."""
    expected = softmax(logits, axis=1)
    difference = np.abs(probabilities - expected).max()
    if not difference <= SOFTMAX_DIFFERENCE:
        raise UserError(
            f"probabilities differ by up to {difference:.1e} from the softmax of the logits"
        )


def as_layout(images: np.ndarray, layout: str) -> np.ndarray:
    """(B, H, W, 3) in the order of axes that a graph takes."""
    if layout == "nhwc":
        return images
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def giving_logits(path: Path, output_kind: OutputKind) -> bytes:
    """The graph of labels or probabilities, cut off before its argmax or softmax."""
    onnx = require("onnx", "onnx")
    model_proto = onnx.load(path)
    last = {"labels": "ArgMax", "probabilities": "Softmax"}[output_kind]
    cut = next(node for node in reversed(model_proto.graph.node) if node.op_type == last)
    float32 = onnx.TensorProto.FLOAT
    del model_proto.graph.output[:]
    model_proto.graph.output.append(
        onnx.helper.make_tensor_value_info(cut.input[0], float32, [None] * 4)
    )
    return model_proto.SerializeToString()


def _compare(
    file: Network, source: Network, images: np.ndarray, tolerance: Tolerance
) -> VerificationReport:
    logits = source.maps(images)
    assert logits is not None
    expected = torch.from_numpy(logits)
    labels, maps = _run(file, images)
    if (maps is not None and maps.shape != expected.shape) or labels.shape != images.shape[:3]:
        raise UserError(
            f"the exported file gives logits of shape {None if maps is None else tuple(maps.shape)}"
            f" and labels of shape {tuple(labels.shape)} for images of shape {images.shape}, and "
            f"is not kept; its source gives logits of shape {tuple(expected.shape)}"
        )
    best_two = expected.topk(2, dim=1).values
    tied = best_two[:, 0] - best_two[:, 1] <= TIE
    changed = labels != expected.argmax(dim=1)
    difference = spread = None
    if maps is not None and file.output_kind == "probabilities":
        faintest = expected.log_softmax(dim=1).clamp(min=FAINTEST)
        difference = float((maps.log().clamp(min=FAINTEST) - faintest).abs().max())
    elif maps is not None:
        difference = float((maps - expected).abs().max())
        per_class = (maps - expected).square().mean(dim=(0, 2, 3)).sqrt()
        spread = float(per_class.max() / expected.std().clamp(min=1e-6))
    return VerificationReport(
        shapes=(images.shape[:3],),
        max_logit_difference=difference,
        max_logit=float(expected.abs().max()),
        num_pixels=changed.numel(),
        num_changed=int(changed.sum()),
        num_ties=int((changed & tied).sum()),
        tolerance=tolerance,
        spread=spread,
    )


def _run(file: Network, images: np.ndarray) -> tuple[Tensor, Tensor | None]:
    try:
        maps: Any = file.maps(images)
        labels = torch.from_numpy(file.labels(images).astype(np.int64))
    except UserError as error:
        raise UserError(
            f"the exported file does not run on images of shape {images.shape} and is not kept: "
            f"{error}"
        ) from None
    return labels, None if maps is None else torch.from_numpy(maps)
