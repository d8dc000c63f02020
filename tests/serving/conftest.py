"""A model of milliseconds behind the server, without a network."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from t2sda.runtime.loading import load_model
from t2sda.runtime.predictor import Predictor
from t2sda.serving.answers import Limits
from t2sda.serving.app import Server
from t2sda.serving.waiting import Queue
from tests.tiny_onnx import write_tiny

LIMITS = Limits(num_bytes=100_000, num_pixels=128 * 128)
CAPACITY = 3
POST: dict[str, str] = {"Content-Type": "application/octet-stream"}


class HeldModel:
    """A model that labels when it is let go; otherwise that of a file."""

    def __init__(self, model: Predictor) -> None:
        self.taxonomy = model.taxonomy
        self.runtime, self.origin = model.runtime, model.origin
        self._model = model
        self.may_go = threading.Event()
        self.may_go.set()
        self.num_calls = 0

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Of one image."""
        self.num_calls += 1
        assert self.may_go.wait(20)
        return self._model.predict(image)


def encoded(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """An image file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int = 40, width: int = 60) -> np.ndarray:
    """An image whose labels vary."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture
def model(tiny_path: Path) -> HeldModel:
    return HeldModel(load_model(tiny_path, threads=1))


@pytest.fixture
def server(model: HeldModel) -> Server:
    return Server(model, LIMITS, Queue(CAPACITY, 1), body_seconds=0.3)  # type: ignore[arg-type]


@pytest.fixture
def client(server: Server) -> Iterator[TestClient]:
    with TestClient(server.app()) as client:
        yield client
