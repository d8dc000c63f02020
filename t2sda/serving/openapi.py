"""What a server says about itself: OpenAPI 3.1, and a page of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

import t2sda
from t2sda.data.taxonomies import Taxonomy
from t2sda.serving.answers import Limits

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src blob: data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"
}
"""The page asks nobody but this server."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TAKEN = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
_ERRORS = {
    "400": "The body is empty",
    "406": "No such media type can be given",
    "408": "The body did not arrive in time",
    "413": "More bytes or pixels than are taken; nothing was decoded",
    "415": "No image file",
    "422": "An image file that is damaged",
    "500": "The model's fault",
    "503": "All places in the queue are taken; Retry-After says when to come again",
}


def description(taxonomy: Taxonomy, limits: Limits, capacity: int) -> dict[str, Any]:
    """The OpenAPI document of a server."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "t2sda serve",
            "version": t2sda.__version__,
            "description": f"Labels images with the {taxonomy.num_classes} classes of "
            f"{taxonomy.name}. At most {limits.num_bytes} bytes and {limits.num_pixels} pixels an "
            f"image, {capacity} requests at once.",
        },
        "paths": {
            "/segment": {"post": _segment(taxonomy)},
            "/health": {"get": _get("The model is loaded", "application/json")},
            "/metrics": {"get": _get("Counters and times for Prometheus", "text/plain")},
            "/openapi.json": {"get": _get("This description", "application/json")},
        },
    }


def _segment(taxonomy: Taxonomy) -> dict[str, Any]:
    labels = {
        "description": "Labels of every pixel, at the image's size upright",
        "content": {
            "application/json": {"schema": _shares_schema(taxonomy)},
            "image/png": {
                **_BINARY,
                "x-what": f"train ids, 8 bits: 0 to {taxonomy.num_classes - 1}",
            },
            "image/jpeg": {**_BINARY, "x-what": "the image under the classes' colors"},
        },
    }
    problem = {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}
    errors = {
        status: {"description": text, "content": {"application/json": problem}}
        for status, text in _ERRORS.items()
    }
    errors["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return {
        "summary": "Label an image",
        "description": "The body is the image file itself. Accept says what is given: classes and "
        "their shares (JSON), train ids (PNG) or an overlay (JPEG).",
        "requestBody": {
            "required": True,
            "content": dict.fromkeys(_TAKEN, _BINARY),
        },
        "responses": {"200": labels, **errors},
    }


def _shares_schema(taxonomy: Taxonomy) -> dict[str, Any]:
    one_class = {
        "train_id": {"type": "integer"},
        "name": {"enum": list(taxonomy.class_names)},
        "color": {"type": "array", "items": {"type": "integer"}},
        "pixels": {"type": "integer"},
        "share": {"type": "number"},
    }
    return {
        "type": "object",
        "properties": {
            "size": {"type": "array", "items": {"type": "integer"}, "description": "height, width"},
            "taxonomy": {"type": "string"},
            "classes": {"type": "array", "items": {"type": "object", "properties": one_class}},
        },
    }


def _get(what: str, media_type: str) -> dict[str, Any]:
    return {
        "summary": what,
        "responses": {"200": {"description": what, "content": {media_type: {}}}},
    }


def page(document: Mapping[str, Any]) -> str:
    """The description for people, in one HTML file that asks no other server."""
    return _template().render(document=document)


@cache
def _template() -> jinja2.Template:
    source = (Path(__file__).with_name("page.html")).read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True).from_string(source)
