"""Does the written file compute what PyTorch computes? It is run to find out.

A label may differ from PyTorch's only where PyTorch's two best logits are within TIE of each other:
the order of additions in two runtimes is not the same, and there is no better label there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2sda.data.streets import DOMAINS, draw_street
from t2sda.data.transforms import resize_image
from t2sda.errors import UserError
from t2sda.modeling.segmentor import SegmentationModel

from .deployable import INPUT_NAME, OutputKind
from .metadata import Metadata
from .packages import require
from .session import open_session

LOGIT_TOLERANCE = 1e-4
"""Of float32 exports: largest difference of a logit, times the largest logit where that is > 1."""
TIE = 1e-4
SMALLEST_STREET = 64
STREET_SEED = 9
"""A series of drawn streets that no dataset uses."""


@dataclass(frozen=True)
class VerificationReport:
    """How far a file and PyTorch agree.

    Attributes:
        shapes: (B, H, W) of every batch that was compared.
        max_logit_difference: over all pixels and classes.
        max_logit: the largest absolute logit, to judge the difference by.
        num_pixels: compared.
        num_changed: pixels with another label than PyTorch's.
        num_ties: those of them where PyTorch's two best logits are within TIE.
    """

    shapes: tuple[tuple[int, int, int], ...]
    max_logit_difference: float
    max_logit: float
    num_pixels: int
    num_changed: int
    num_ties: int

    @property
    def passed(self) -> bool:
        """Whether the file may be shipped; a NaN anywhere says no."""
        tolerance = LOGIT_TOLERANCE * max(1.0, self.max_logit)
        return self.max_logit_difference <= tolerance and self.num_changed == self.num_ties

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        return (
            f"logits differ by at most {self.max_logit_difference:.1e} (largest logit "
            f"{self.max_logit:.3g}), {self.num_changed} of {self.num_pixels} labels differ, "
            f"{self.num_ties} of these where PyTorch's two best logits are within {TIE:g}; "
            f"batches of {shapes}"
        )


def verify_onnx(
    path: Path, model: SegmentationModel, metadata: Metadata, image_size: tuple[int, int]
) -> VerificationReport:
    """Run a file in ONNX Runtime and its network in PyTorch on the same pictures.

    Args:
        path: the file, of any name.
        model: what it was exported from, in evaluation mode, on the CPU.
        metadata: of the file.
        image_size: (height, width) of the pictures; a dynamic graph gets others as well.

    Raises:
        UserError: if the file does not run, or disagrees beyond the tolerance.
    """
    file = _OnnxFile(path, metadata.output_kind)
    shapes = static_shapes(image_size) if metadata.image_size else dynamic_shapes(image_size)
    comparisons = [
        _compare(file, model, street_pictures(shape, index)) for index, shape in enumerate(shapes)
    ]
    report = VerificationReport(
        shapes=tuple(shapes),
        max_logit_difference=float(np.max([item.max_logit_difference for item in comparisons])),
        max_logit=float(np.max([item.max_logit for item in comparisons])),
        num_pixels=sum(item.num_pixels for item in comparisons),
        num_changed=sum(item.num_changed for item in comparisons),
        num_ties=sum(item.num_ties for item in comparisons),
    )
    if not report.passed:
        raise UserError(
            f"the exported file disagrees with PyTorch and is not kept: {report}; the exporter of "
            f"torch {torch.__version__} does not get this network right"
        )
    return report


def static_shapes(image_size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Batches (B, H, W) for a graph of one size: three pictures, one by one."""
    return [(1, *image_size)] * 3


def dynamic_shapes(image_size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Batches (B, H, W) for a graph of any size: more and fewer pictures, odd sides, portrait."""
    height, width = image_size
    odd = (max(height * 3 // 4, SMALLEST_STREET) | 1, max(width * 2 // 3, SMALLEST_STREET) | 1)
    portrait = (max(width // 2, SMALLEST_STREET) | 1, max(height // 2, SMALLEST_STREET) | 1)
    return [(2, *image_size), (1, *image_size), (1, *odd), (3, *portrait)]


def street_pictures(shape: tuple[int, int, int], index: int) -> np.ndarray:
    """Drawn streets, (B, H, W, 3) uint8; another `index` gives others."""
    batch_size, height, width = shape
    drawn_size = (max(height, SMALLEST_STREET), max(width, SMALLEST_STREET))
    domain = DOMAINS[index % len(DOMAINS)]
    pictures = [
        resize_image(draw_street(domain, STREET_SEED, 10 * index + i, drawn_size)[0], shape[1:])
        for i in range(batch_size)
    ]
    return np.stack(pictures)


class _OnnxFile:
    """The file as it is, and for a file of labels its logits, through a second output."""

    def __init__(self, path: Path, output_kind: OutputKind) -> None:
        self.output_kind = output_kind
        self.session = open_session(path, "cpu")
        self.logits_session = self.session
        if output_kind == "labels":
            self.logits_session = open_session(_giving_logits(path), "cpu", name=path)

    def labels(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W) train ids."""
        output = _run(self.session, images)
        return output if self.output_kind == "labels" else output.argmax(axis=1)

    def logits(self, images: np.ndarray) -> Tensor:
        """(B, C, H, W)."""
        return torch.from_numpy(_run(self.logits_session, images))


def _run(session: Any, images: np.ndarray) -> np.ndarray:
    try:
        return session.run(None, {INPUT_NAME: images})[0]
    except Exception as error:  # its errors have no common base but Exception
        raise UserError(
            f"the exported file does not run on pictures of shape {images.shape} and is not kept: "
            f"{error}"
        ) from None


def _giving_logits(path: Path) -> bytes:
    """The graph of labels, cut off before its argmax."""
    onnx = require("onnx", "onnx")
    model_proto = onnx.load(path)
    argmax = next(node for node in reversed(model_proto.graph.node) if node.op_type == "ArgMax")
    float32 = onnx.TensorProto.FLOAT
    del model_proto.graph.output[:]
    model_proto.graph.output.append(
        onnx.helper.make_tensor_value_info(argmax.input[0], float32, [None] * 4)
    )
    return model_proto.SerializeToString()


@torch.inference_mode()
def _compare(file: _OnnxFile, model: SegmentationModel, images: np.ndarray) -> VerificationReport:
    expected = model(torch.from_numpy(images).permute(0, 3, 1, 2))
    best_two = expected.topk(2, dim=1).values
    tied = best_two[:, 0] - best_two[:, 1] <= TIE
    labels, logits = torch.from_numpy(file.labels(images)), file.logits(images)
    if logits.shape != expected.shape or labels.shape != tied.shape:
        raise UserError(
            f"the exported file gives logits of shape {tuple(logits.shape)} and labels of shape "
            f"{tuple(labels.shape)} for pictures of shape {images.shape}, and is not kept; PyTorch "
            f"gives {tuple(expected.shape)}"
        )
    changed = labels != expected.argmax(dim=1)
    return VerificationReport(
        shapes=(images.shape[:3],),
        max_logit_difference=float((logits - expected).abs().max()),
        max_logit=float(expected.abs().max()),
        num_pixels=changed.numel(),
        num_changed=int(changed.sum()),
        num_ties=int((changed & tied).sum()),
    )
