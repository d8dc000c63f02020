"""What travels inside an exported file, so that whoever runs it needs no configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError

from .deployable import LAYOUTS, OUTPUT_KINDS, Layout, OutputKind

FORMAT = "t2sda onnx 1"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
KEYS = (
    *("format", "taxonomy", "class_names", "palette", "subsets", "image_size", "image_bound"),
    *("pixel_mean", "pixel_std", "layout", "output_kind", "precision"),
    *("origin", "versions"),
)
"""What the file holds, each a JSON value; further keys, such as those of other tools, may be."""


@dataclass(frozen=True)
class Metadata:
    """What a file says about itself.

    Attributes:
        taxonomy: class names and colours, by train id.
        image_size: (height, width) that the graph takes; None where it takes any.
        image_bound: (height, width) that pictures of other sizes are resized to fit before a graph
            that takes any size, ratio kept, as in the run's evaluations; None: as they are.
        pixel_mean, pixel_std: of R, G, B in [0, 255]; applied inside the graph.
        layout: of the input, "nhwc" or "nchw".
        output_kind: "labels", "logits" or "probabilities".
        precision: "fp32", "fp16", "bf16" or "int8": what most of the network computes in.
        origin: where the weights come from: run, iteration, branch, config_sha256.
        versions: of the libraries that wrote the file.
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

    def to_properties(self) -> dict[str, str]:
        """JSON values by key, as the file holds them."""
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
        }
        return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], path: object) -> Metadata:
        """Read back what `to_properties` gave; `path` names the file in messages.

        Raises:
            UserError: if the file was not written by `t2sda export`, or by a newer one.
        """
        if not is_ours(properties):
            raise UserError(
                f"{path}: a file that `t2sda export` did not write (no '{FORMAT}' mark in its "
                f"metadata), so its classes, input and output are unknown"
            )
        try:
            return cls._parsed({key: json.loads(properties[key]) for key in KEYS})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: its metadata is damaged ({type(error).__name__}: {error}); export the "
                f"checkpoint again"
            ) from None

    @classmethod
    def _parsed(cls, values: dict) -> Metadata:
        for key, known in (
            ("output_kind", OUTPUT_KINDS),
            ("layout", LAYOUTS),
            ("precision", PRECISIONS),
        ):
            if values[key] not in known:
                raise ValueError(f"unknown {key} '{values[key]}'")
        taxonomy = Taxonomy(
            name=values["taxonomy"],
            class_names=tuple(values["class_names"]),
            palette=tuple((red, green, blue) for red, green, blue in values["palette"]),
            subsets={name: tuple(ids) for name, ids in values["subsets"].items()},
        )
        return cls(
            taxonomy=taxonomy,
            image_size=None if values["image_size"] == "dynamic" else _size(values["image_size"]),
            image_bound=None if values["image_bound"] is None else _size(values["image_bound"]),
            pixel_mean=tuple(values["pixel_mean"]),
            pixel_std=tuple(values["pixel_std"]),
            layout=values["layout"],
            output_kind=values["output_kind"],
            precision=values["precision"],
            origin=values["origin"],
            versions=values["versions"],
        )


def is_ours(properties: Mapping[str, str]) -> bool:
    """Whether a file's metadata was written by `t2sda export`."""
    return properties.get("format") == json.dumps(FORMAT)


def _size(value: list[int]) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)
