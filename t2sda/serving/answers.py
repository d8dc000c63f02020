"""From the bytes of a request to the bytes of its answer; nothing here knows HTTP's library."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import cv2
import numpy as np

from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.files import json_text
from t2sda.images import read_header, read_image
from t2sda.images.content import kind_of_start
from t2sda.images.files import TooManyPixelsError
from t2sda.inference.results import encoded
from t2sda.inference.visualisation import class_counts, overlay
from t2sda.runtime.memory import TooLargeError, named_if_too_large
from t2sda.runtime.predictor import Predictor

NAME = "the body"
"""How messages call what was sent."""
JPEG_QUALITY = 90
MEDIA_TYPES_TAKEN = ("image/", "application/octet-stream")
"""None of them is sent by a page of another site without asking first (CORS)."""


class RefusedError(UserError):
    """A request that gets no labels; `status` says whose fault it is."""

    def __init__(self, status: HTTPStatus, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Answer(NamedTuple):
    """What a request gets.

    Attributes:
        content: of the body.
        media_type: of it.
        seconds: spent on "decode", "network" and "encode".
    """

    content: bytes
    media_type: str
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Limits:
    """What is taken; checked before anything is decoded.

    Attributes:
        num_bytes: of a body.
        num_pixels: of an image, by its header.
    """

    num_bytes: int
    num_pixels: int


def answer(model: Predictor, content: bytes, media_type: str, limits: Limits) -> Answer:
    """The labels of an encoded image as `media_type`, one of ANSWERS.

    Raises:
        RefusedError: for what is no image, is damaged, or has more pixels than `limits`, memory or
            the answer's format allow.
        UserError: for what is wrong with the model.
    """
    started = time.perf_counter()
    try:
        with named_if_too_large(NAME, "send a smaller image"):
            image = _decoded(content, limits)
            decoded = time.perf_counter()
            labels = model.predict(image)
            labelled = time.perf_counter()
            written = ANSWERS[media_type](image, labels, model.taxonomy)
    except (TooLargeError, TooManyPixelsError) as error:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from None
    seconds = {
        "decode": decoded - started,
        "network": labelled - decoded,
        "encode": time.perf_counter() - labelled,
    }
    return Answer(written, media_type, seconds)


def _decoded(content: bytes, limits: Limits) -> np.ndarray:
    if not content:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{NAME} is empty; send an image file in it")
    if kind_of_start(content[:1024]) != "image":
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"{NAME} is no image file; send the bytes of a JPEG, PNG, WebP or TIFF file",
        )
    try:
        height, width = read_header(content, NAME).size
        if height * width > limits.num_pixels:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{NAME}: {height}x{width} (height x width) are more than the {limits.num_pixels} "
                f"pixels that are taken; send a smaller image",
            )
        return read_image(content, name=NAME)
    except RefusedError:
        raise
    except TooManyPixelsError as error:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from None
    except UserError as error:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None


def _as_json(image: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy) -> bytes:
    counts = class_counts(labels, taxonomy)
    classes = [
        {
            "train_id": index,
            "name": name,
            "color": taxonomy.palette[index],
            "pixels": int(counts[index]),
            "share": round(float(counts[index] / labels.size), 6),
        }
        for index, name in enumerate(taxonomy.class_names)
        if counts[index]
    ]
    content = {"size": labels.shape, "taxonomy": taxonomy.name, "classes": classes}
    return json_text(content).encode()


def _as_train_ids(image: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy) -> bytes:
    return encoded(".png", labels, [cv2.IMWRITE_PNG_COMPRESSION, 1], NAME)


def _as_overlay(image: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy) -> bytes:
    drawn = cv2.cvtColor(overlay(image, labels, taxonomy), cv2.COLOR_RGB2BGR)
    return encoded(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY], NAME)


ANSWERS: Mapping[str, Callable[[np.ndarray, np.ndarray, Taxonomy], bytes]] = {
    "application/json": _as_json,
    "image/png": _as_train_ids,
    "image/jpeg": _as_overlay,
}
"""By media type; of several that are as welcome the first is given."""


def chosen_media_type(accept: str) -> str:
    """What an Accept header wants most of ANSWERS (RFC 9110, 12.5.1).

    Raises:
        RefusedError: if it wants none of them.
    """
    wanted = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    best = max(ANSWERS, key=lambda offered: _weight(offered, wanted))
    if _weight(best, wanted) <= 0:
        raise RefusedError(
            HTTPStatus.NOT_ACCEPTABLE,
            f"Accept: {accept[:120]}: none of {', '.join(ANSWERS)}, which are train ids as PNG, "
            f"an overlay as JPEG, and classes with their shares as JSON",
        )
    return best


def _range(part: str) -> tuple[str, float]:
    """A media range and its weight; one that cannot be read weighs nothing."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weights = [piece[2:] for piece in parameters if piece.startswith("q=")]
    try:
        return name, float(weights[0]) if weights else 1.0
    except ValueError:
        return name, 0.0


def _weight(offered: str, wanted: list[tuple[str, float]]) -> float:
    """That of the most specific range that the type is in."""
    for name in (offered, f"{offered.partition('/')[0]}/*", "*/*"):
        weights = [weight for own, weight in wanted if own == name]
        if weights:
            return max(weights)
    return 0.0
