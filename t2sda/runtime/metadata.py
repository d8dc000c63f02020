"""What travels inside an exported file, so that whoever runs it needs no configuration."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError

from .letterbox import Letterbox

FORMAT = "t2sda onnx 2"
OutputKind = Literal["labels", "logits", "probabilities"]
OUTPUT_KINDS: tuple[OutputKind, ...] = ("labels", "logits", "probabilities")
Layout = Literal["nhwc", "nchw"]
LAYOUTS: tuple[Layout, ...] = ("nhwc", "nchw")
"""Order of the input's axes; decoders give nhwc."""
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
DIGEST_KEY = "digest"
KEYS = (
    *("format", "taxonomy", "class_names", "palette", "subsets", "image_size", "image_bound"),
    *("pixel_mean", "pixel_std", "layout", "output_kind", "precision"),
    *("origin", "versions", "window_step"),
)
"""What the file holds besides its digest, each a JSON value; further keys, such as those of other
tools, may be."""
MAX_SIDE = 1 << 15
MAX_PIXELS = 1 << 26
"""Of `image_size` and `image_bound`: what is decoded at most, 8192 x 8192."""
MAX_LENGTH = 1 << 20
"""Of a value's text."""


@dataclass(frozen=True)
class Metadata:
    """What a file says about itself.

    Attributes:
        taxonomy: class names and colors, by train id.
        image_size: (height, width) that the graph takes; None where it takes any.
        image_bound: (height, width) that images of other sizes are resized to fit before a graph
            that takes any size or slides, ratio kept, as in the run's evaluations; None: as they
            are.
        pixel_mean, pixel_std: of R, G, B in [0, 255]; applied inside the graph.
        layout: of the input, "nhwc" or "nchw".
        output_kind: "labels", "logits" or "probabilities".
        precision: "fp32", "fp16", "bf16" or "int8": what most of the network computes in.
        origin: where the weights come from: run, iteration, branch, config_sha256.
        versions: of the libraries that wrote the file.
        window_step: (height, width) from one window of `image_size` to the next, where the graph
            slides over images and its logits are averaged; None: it takes images whole.
    """

    taxonomy: Taxonomy
    image_size: tuple[int, int] | None
    image_bound: tuple[int, int] | None
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    layout: Layout
    output_kind: OutputKind
    precision: str
    origin: Mapping[str, str | int]
    versions: Mapping[str, str]
    window_step: tuple[int, int] | None = None

    @property
    def letterbox(self) -> Letterbox:
        """How images of any size are brought to what the graph takes: on the mean color.

        A graph that slides takes them as they are, continued to the size of a window.
        """
        if self.window_step is not None:
            assert self.image_size is not None
            return Letterbox(bound=self.image_bound, smallest=self.image_size)
        red, green, blue = (min(max(round(value), 0), 255) for value in self.pixel_mean)
        return Letterbox(self.image_size, self.image_bound, (red, green, blue))

    def to_properties(self) -> dict[str, str]:
        """JSON values by key, as the file holds them; `sealed` adds the digest."""
        values: dict[str, object] = {
            "format": FORMAT,
            "taxonomy": self.taxonomy.name,
            "class_names": self.taxonomy.class_names,
            "palette": self.taxonomy.palette,
            "subsets": dict(self.taxonomy.subsets),
            "image_size": self.image_size or "dynamic",
            "image_bound": self.image_bound,
            "pixel_mean": self.pixel_mean,
            "pixel_std": self.pixel_std,
            "layout": self.layout,
            "output_kind": self.output_kind,
            "precision": self.precision,
            "origin": dict(self.origin),
            "versions": dict(self.versions),
            "window_step": self.window_step,
        }
        return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], path: object) -> Metadata:
        """Read back what `to_properties` gave; `path` names the file in messages.

        Raises:
            UserError: if the file was not written by `t2sda export`, or a value is none that it
                could have written.
        """
        if not is_ours(properties):
            raise UserError(
                f"{path}: a file that `t2sda export` did not write (no '{FORMAT}' mark in its "
                f"metadata), so its classes, input and output are unknown"
            )
        try:
            return _parsed({key: _json(properties[key]) for key in KEYS})
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path}: its metadata is damaged ({type(error).__name__}: {_short(error)}); "
                f"export the checkpoint again"
            ) from None


def is_ours(properties: Mapping[str, str]) -> bool:
    """Whether a file's metadata was written by `t2sda export`."""
    return properties.get("format") == json.dumps(FORMAT)


def sealed(properties: Mapping[str, str], content: Iterable[bytes | memoryview]) -> dict[str, str]:
    """Metadata with the digest that binds it to the graph and weights it describes.

    Args:
        properties: of `to_properties`.
        content: graph and weights in the order in which a reader meets them.
    """
    return {**properties, DIGEST_KEY: json.dumps(_digest(properties, content))}


def check_seal(
    properties: Mapping[str, str], content: Iterable[bytes | memoryview], path: object
) -> None:
    """Raise UserError if metadata, graph and weights are not those that were written together."""
    if properties.get(DIGEST_KEY) != json.dumps(_digest(properties, content)):
        raise UserError(
            f"{path}: its metadata and its weights do not belong together: one of them was "
            f"changed, exchanged or damaged after the export; copy all its files again, or export "
            f"the checkpoint again"
        )


def _digest(properties: Mapping[str, str], content: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for key in KEYS:
        digest.update(f"{key}={properties.get(key, '')}\n".encode(errors="surrogateescape"))
    for part in content:
        digest.update(part)
    return digest.hexdigest()


def _json(text: str) -> Any:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a value of {len(text)} characters")
    return json.loads(text)


def _parsed(values: dict[str, Any]) -> Metadata:
    return Metadata(
        taxonomy=Taxonomy(
            name=_word(values["taxonomy"]),
            class_names=tuple(_word(name) for name in _list(values["class_names"])),
            palette=tuple(_color(color) for color in _list(values["palette"])),
            subsets=_subsets(values["subsets"], len(values["class_names"])),
        ),
        image_size=None if values["image_size"] == "dynamic" else _size(values["image_size"]),
        image_bound=None if values["image_bound"] is None else _size(values["image_bound"]),
        pixel_mean=_numbers(values["pixel_mean"]),
        pixel_std=positive(_numbers(values["pixel_std"])),
        layout=_one_of(values["layout"], LAYOUTS),
        output_kind=_one_of(values["output_kind"], OUTPUT_KINDS),
        precision=_one_of(values["precision"], PRECISIONS),
        origin=_record(values["origin"]),
        versions=_record(values["versions"]),
        window_step=_step(values),
    )


def _step(values: dict[str, Any]) -> tuple[int, int] | None:
    """Of windows, which overlap or touch; logits alone can be averaged."""
    if values["window_step"] is None:
        return None
    step, window = _size(values["window_step"]), _size(values["image_size"])
    if values["output_kind"] != "logits" or any(map(operator.gt, step, window)):
        raise ValueError(
            f"windows of {window} in steps of {step} that give {values['output_kind']}"
        )
    return step


def positive(deviations: tuple[float, ...]) -> tuple[float, ...]:
    """Standard deviations; raises ValueError for one that nothing can be divided by."""
    if not all(value > 0 for value in deviations):
        raise ValueError(f"{list(deviations)} are no standard deviations: above 0 is due")
    return deviations


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError(f"{_short(value)} is no list")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise TypeError(f"{_short(repr(value))} is no name")
    return value


def _integer(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{_short(value)} is not from {low} to {high}")
    return value


def _color(value: Any) -> tuple[int, int, int]:
    red, green, blue = (_integer(part, 0, 255) for part in _list(value))
    return red, green, blue


def _subsets(value: Any, num_classes: int) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, dict):
        raise TypeError(f"{_short(value)} are no subsets")
    return {
        _word(name): tuple(_integer(index, 0, num_classes - 1) for index in _list(ids))
        for name, ids in value.items()
    }


def _size(value: Any) -> tuple[int, int]:
    height, width = (_integer(side, 1, MAX_SIDE) for side in _list(value))
    if height * width > MAX_PIXELS:
        raise ValueError(f"{height}x{width} are more than {MAX_PIXELS} pixels")
    return height, width


def _numbers(value: Any) -> tuple[float, ...]:
    numbers = _list(value)
    if len(numbers) != 3 or any(type(item) not in (int, float) for item in numbers):
        raise ValueError(f"{_short(value)} are not three numbers")
    if not all(math.isfinite(item) for item in numbers):
        raise ValueError(f"{_short(value)} are not finite")
    return tuple(map(float, numbers))


def _one_of(value: Any, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise ValueError(f"'{_short(value)}' is none of {', '.join(known)}")
    return value


def _record(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(v, (str, int)) for v in value.values()):
        raise TypeError(f"{_short(value)} is no record of words and numbers")
    return value


def _short(value: object) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value))
    return text if len(text) <= 120 else f"{text[:120]}…"
