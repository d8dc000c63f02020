"""How a predictor sees an image while it is scored: whole or by windows, mirrored, at scales."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from t2sda.data.transforms import Box, keep_ratio_size, resize_image
from t2sda.errors import UserError
from t2sda.evaluation.entries import Protocol
from t2sda.inference.windows import average_windows, default_step
from t2sda.runtime.letterbox import resize_maps
from t2sda.runtime.predictor import FilePredictor, Predictor

_BAND = 64
"""Rows at a time, where all at once would take another copy of the maps."""


class Labelled(NamedTuple):
    """What is predicted.

    Attributes:
        labels: (H, W) uint8 train ids.
        confidence: (H, W) float32, the probability of each; None if it was not asked for.
    """

    labels: np.ndarray
    confidence: np.ndarray | None


def protocol_for(
    predictor: Predictor,
    *,
    image_size: tuple[int, int] | None = None,
    window: tuple[int, int] | None = None,
    step: tuple[int, int] | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> Protocol:
    """A protocol that a predictor can be scored with.

    Args:
        predictor: of any runtime.
        image_size: bound (height, width); None: as in the run's evaluations, or of the file.
        window: (height, width); None: as in the run's evaluations, or the whole image.
        step: from one window to the next; None: as there, or two thirds of the window.
        flip, scales: see Protocol.

    Raises:
        UserError: if the options contradict each other, or the model cannot do it.
    """
    fixed = predictor.letterbox.size
    if window is None and predictor.scored_window is not None:
        window, step = predictor.scored_window, step or predictor.scored_step
    check_options(window, step, scales)
    if fixed is not None:
        _check_fixed(predictor, fixed, image_size, window, scales)
    if window is not None and step is None:
        step = default_step(window)
    if fixed is None:
        image_size = image_size or predictor.letterbox.bound
    elif window is None:
        image_size = fixed
    return Protocol(image_size, window, step, flip, tuple(map(float, scales)))


class Views:
    """A predictor as a protocol has it.

    Logits are averaged where windows overlap, softmax over mirrored and scaled images; both come
    back to the image's own size bilinearly, before the argmax (docs/fidelity.md, A11).

    Args:
        predictor: of any runtime.
        protocol: see `protocol_for`.
        with_confidence: whether the probability of each label is asked for.

    Raises:
        UserError: if the predictor gives labels where maps are needed.
    """

    def __init__(
        self, predictor: Predictor, protocol: Protocol, *, with_confidence: bool = False
    ) -> None:
        self.protocol = protocol
        self.with_confidence = with_confidence
        self.views = list(itertools.product(protocol.scales, (False, True)[: 1 + protocol.flip]))
        self._as_is = self.views == [(1.0, False)] and protocol.window is None
        self._whole = predictor.bounded(protocol.image_size)
        self._bare = predictor.bounded(None)  # images come resized
        self._kind = _output_kind(predictor)
        self._check_kind()

    def __call__(self, image: np.ndarray) -> Labelled:
        """Label an image (H, W, 3) uint8."""
        if self._as_is and not self.with_confidence:
            return Labelled(self._whole.predict(image), None)
        if self._as_is and self._kind == "probabilities":
            return self._labelled(self._whole.probabilities(image), of_logits=False)
        if self._as_is:
            return self._labelled(self._whole.logits(image), of_logits=True)
        if len(self.views) == 1:
            return self._labelled(self._logits(image, *self.views[0]), of_logits=True)
        return self._labelled(self._mean_softmax(image), of_logits=False)

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """(C, H, W) float32 class probabilities of an image (H, W, 3) uint8, over all views."""
        if not self._as_is:
            return self._mean_softmax(image)
        if self._kind == "probabilities":
            return self._whole.probabilities(image)
        maps = self._whole.logits(image)
        _softmax_(maps)
        return maps

    def _labelled(self, maps: np.ndarray, *, of_logits: bool) -> Labelled:
        labels = maps.argmax(axis=0).astype(np.uint8)
        if not self.with_confidence:
            return Labelled(labels, None)
        highest = maps.max(axis=0)
        return Labelled(labels, _highest_softmax(maps, highest) if of_logits else highest)

    def _mean_softmax(self, image: np.ndarray) -> np.ndarray:
        total: np.ndarray | None = None
        for view in self.views:
            maps = self._logits(image, *view)
            _softmax_(maps)
            total = maps if total is None else np.add(total, maps, out=total)
        assert total is not None
        total /= len(self.views)
        return total

    def _logits(self, image: np.ndarray, scale: float, mirrored: bool) -> np.ndarray:
        """(C, H, W) float32 of one view, at the image's size and the right way round."""
        size = (image.shape[0], image.shape[1])
        seen = resize_image(image, self._seen_size(size, scale))
        if mirrored:
            seen = np.ascontiguousarray(seen[:, ::-1])
        maps = self._windowed(seen) if self.protocol.window else self._bare.logits(seen)
        return resize_maps(maps[..., ::-1] if mirrored else maps, size)

    def _seen_size(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        fixed = self._bare.letterbox.size is not None and self.protocol.window is None
        height, width = keep_ratio_size(size, None if fixed else self.protocol.image_size, scale)
        return max(height, 1), max(width, 1)

    def _windowed(self, image: np.ndarray) -> np.ndarray:
        window, step = self.protocol.window, self.protocol.step
        assert window is not None
        assert step is not None

        def logits_of(seen: Box) -> np.ndarray:
            return self._bare.logits(np.ascontiguousarray(seen.of(image)))

        return average_windows(logits_of, (image.shape[0], image.shape[1]), window, step)

    def _check_kind(self) -> None:
        if self._kind == "logits" or (self._as_is and not self.with_confidence):
            return
        if self._kind == "probabilities" and self._as_is:
            return
        asked = "confidence" if self._as_is else "windows, mirrored or scaled images"
        raise UserError(
            f"the model gives {self._kind} alone, but {asked} need logits; export it with "
            f"--output-kind logits, or score whole images without --calibration"
        )


def _output_kind(predictor: Predictor) -> str:
    return predictor.metadata.output_kind if isinstance(predictor, FilePredictor) else "logits"


def _highest_softmax(logits: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """(H, W) float32, the softmax of the highest logit, of (C, H, W) and their maximum."""
    total = np.zeros_like(highest)
    for own in logits:
        total += np.exp(own - highest)
    return 1 / total


def _softmax_(maps: np.ndarray) -> None:
    """Softmax of logits (C, H, W) float32 over the classes, in their place."""
    for top in range(0, maps.shape[1], _BAND):
        band = maps[:, top : top + _BAND]
        band -= band.max(axis=0)
        np.exp(band, out=band)
        band /= band.sum(axis=0)


def check_options(
    window: Sequence[int] | None, step: Sequence[int] | None, scales: Sequence[float]
) -> None:
    """Raise UserError for options that contradict each other, whatever the model."""
    if step is not None and window is None:
        raise UserError("step: there is no window to move; give a window as well")
    if step is not None and window is not None and (step[0] > window[0] or step[1] > window[1]):
        raise UserError(
            f"step {step[0]} {step[1]} is larger than window {window[0]} {window[1]}: pixels "
            f"between the windows would be left out"
        )
    if not scales or len(set(scales)) < len(scales):
        raise UserError(f"scales: {list(scales)} is empty or lists one twice; give each once")
    if wrong := [scale for scale in scales if not 1 / 16 <= scale <= 16]:
        raise UserError(
            f"scales: {wrong[0]} is no factor of an image's size; give some from 1/16 to 16, such "
            f"as 0.5 and 1.75"
        )


def _check_fixed(
    predictor: Predictor,
    fixed: tuple[int, int],
    image_size: tuple[int, int] | None,
    window: tuple[int, int] | None,
    scales: Sequence[float],
) -> None:
    """Raise UserError for what a graph of one size cannot do."""
    takes = f"the model takes images of {fixed[0]}x{fixed[1]} only"
    if image_size not in (None, fixed) and window is None:
        assert image_size is not None
        raise UserError(f"image size {image_size[0]} {image_size[1]}: {takes}; export --dynamic")
    if window not in (None, fixed):
        assert window is not None
        raise UserError(
            f"window {window[0]} {window[1]}: {takes}; use a window of {fixed[0]} {fixed[1]}"
        )
    if tuple(scales) != (1.0,) and window is None:
        raise UserError(f"scales {list(scales)}: {takes}; export --dynamic, or use windows")
