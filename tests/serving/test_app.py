"""The application without a network: answers, limits, the queue, metrics, the description."""

from __future__ import annotations

import io
import json
import re
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from t2sda.errors import UserError
from t2sda.inference.visualisation import overlay
from t2sda.runtime.loading import load_model
from t2sda.serving.answers import Limits
from t2sda.serving.app import Server
from tests.serving.conftest import CAPACITY, LIMITS, POST, HeldModel, encoded, noise


def post(
    client: TestClient, content: bytes, accept: str = "application/json", **headers: str
) -> Any:
    return client.post("/segment", content=content, headers={**POST, "Accept": accept, **headers})


def test_train_ids_overlay_and_shares_are_those_of_the_bare_call(
    client: TestClient, tiny_path: Path
) -> None:
    image = noise(2, 3).repeat(20, axis=0).repeat(20, axis=1)  # areas, as JPEG keeps them
    model = load_model(tiny_path)
    labels = model.predict(image)
    ids = post(client, encoded(image), "image/png")
    assert ids.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(ids.content))), labels)
    shown = post(client, encoded(image), "image/jpeg")
    drawn = np.asarray(Image.open(io.BytesIO(shown.content))).astype(int)
    due = overlay(image, labels, model.taxonomy)
    assert np.abs(drawn - due).mean() < np.abs(drawn - image).mean() / 4  # JPEG is not exact
    told = post(client, encoded(image)).json()
    assert told["size"] == [40, 60]
    counts = np.bincount(labels.ravel(), minlength=19)
    assert {one["train_id"]: one["pixels"] for one in told["classes"]} == {
        index: count for index, count in enumerate(counts.tolist()) if count
    }
    assert sum(one["share"] for one in told["classes"]) == pytest.approx(1, abs=1e-4)
    assert told["classes"][0]["name"] in model.taxonomy.class_names


def bomb() -> bytes:
    """A PNG of a few kB that says it has 400 million pixels' rows."""
    content = bytearray(encoded(noise(8, 8)))
    content[16:24] = (20_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "is empty"),
        (b"hello, world", 415, "no image file"),
        (b"%PDF-1.7 " + bytes(100), 415, "no image file"),
        (encoded(noise())[:500], 422, "cannot be decoded"),
        (encoded(noise(129, 128)), 413, "129x128"),
        (bomb(), 413, "20000x20000"),
        (b"P6\n99999999 99999999\n255\n", 413, "exceeds limit"),
        (bytes(LIMITS.num_bytes + 1), 413, "100000 bytes"),
    ],
)
def test_over_the_limits_it_says_what_and_decodes_nothing(
    client: TestClient, model: HeldModel, content: bytes, status: int, words: str
) -> None:
    answer = post(client, content)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert model.num_calls == 0


def test_a_body_of_unknown_length_is_counted_while_it_comes(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(5_000)

    answer = client.post("/segment", content=parts(), headers=POST)
    assert answer.status_code == 413
    assert post(client, encoded(noise())).status_code == 200  # its place is free again


@pytest.mark.parametrize("sent_as", ["text/plain", "multipart/form-data; boundary=x"])
def test_what_a_page_of_another_site_can_send_unasked_is_refused(
    client: TestClient, sent_as: str
) -> None:
    answer = post(client, encoded(noise()), **{"Content-Type": sent_as})
    assert answer.status_code == 415
    assert sent_as in answer.json()["error"]
    assert client.post("/segment", content=encoded(noise())).status_code == 415


def test_a_full_queue_answers_503_and_when_to_come_again(
    client: TestClient, model: HeldModel, server: Server
) -> None:
    model.may_go.clear()
    with ThreadPoolExecutor(CAPACITY) as pool:
        waiting = [pool.submit(post, client, encoded(noise())) for _ in range(CAPACITY)]
        while server.queue.length < CAPACITY:
            time.sleep(0.005)
        refused = post(client, encoded(noise()))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert f"{CAPACITY} requests" in refused.json()["error"]
        assert client.get("/health").json()["queue"] == {"length": 3, "capacity": 3}
        model.may_go.set()
        assert [future.result().status_code for future in waiting] == [200] * CAPACITY
    assert server.queue.length == 0
    assert model.num_calls == CAPACITY


def test_a_fault_of_the_model_is_no_fault_of_the_client(
    client: TestClient, model: HeldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: np.ndarray) -> np.ndarray:
        raise UserError("tiny.onnx: gives labels 0 to 40")

    monkeypatch.setattr(model, "predict", fails)
    answer = post(client, encoded(noise()))
    assert answer.status_code == 500
    assert "labels 0 to 40" in answer.json()["error"]
    assert client.get("/health").status_code == 200


def test_an_image_that_memory_is_short_for_is_413(
    client: TestClient, model: HeldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: np.ndarray) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(model, "predict", fails)
    answer = post(client, encoded(noise()))
    assert answer.status_code == 413
    assert "more memory than there is" in answer.json()["error"]


def test_metrics_count_answers_and_time_stages(client: TestClient) -> None:
    post(client, encoded(noise()))
    post(client, b"none")
    text = client.get("/metrics").text
    assert 't2sda_requests_total{status="200"} 1.0' in text
    assert 't2sda_requests_total{status="415"} 1.0' in text
    for stage in ("wait", "decode", "network", "encode"):
        assert f't2sda_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert re.search(r"^t2sda_queue_length 0\.0$", text, re.MULTILINE)


def test_the_description_names_every_route_and_the_page_asks_nobody_else(
    client: TestClient, server: Server
) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    routes = {route.path for route in server.app().routes} - {"/"}  # type: ignore[attr-defined]
    assert set(document["paths"]) == routes
    assert set(document["paths"]["/segment"]["post"]["responses"]) >= {"200", "413", "415", "503"}
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in routes:
        assert path in page.text
    assert not re.search(r"(src|href)=.https?:", page.text)


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes overwritten, and often the end cut off."""
    changed = bytearray(content)
    for place in random.integers(0, len(content), 8):
        changed[place] = random.integers(256)
    return bytes(changed[: random.integers(1, 2 * len(changed))])


def test_hostile_bodies_get_an_answer_and_the_server_lives(client: TestClient) -> None:
    seeds = [encoded(noise(), kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")]
    random = np.random.default_rng(0)
    codes = {
        post(client, damaged(seeds[index % len(seeds)], random)).status_code for index in range(200)
    }
    assert {200, 422} < codes <= {200, 413, 415, 422}
    assert json.loads(post(client, encoded(noise())).content)["size"] == [40, 60]


def test_a_side_longer_than_the_answers_format_takes_is_refused_and_others_are_given(
    client: TestClient, server: Server
) -> None:
    server.limits = Limits(num_bytes=1 << 20, num_pixels=1 << 20)
    long = encoded(np.zeros((1, 70_000, 3), np.uint8))
    refused = post(client, long, "image/jpeg")
    assert refused.status_code == 413
    assert "1x70000" in refused.json()["error"]
    assert post(client, long, "image/png").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 405),
        ("PUT", "/segment", 405),
        ("GET", "/segment", 405),
        ("DELETE", "/health", 405),
        ("POST", "/predict", 404),
        ("POST", "/segment/", 404),
        ("OPTIONS", "/segment", 405),
    ],
)
def test_another_address_or_method_is_told_where_to_send_an_image(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path, content=bytes(LIMITS.num_bytes), headers=POST)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(f"{method} {path}: ")
    assert "POST an image file to /segment" in answer.json()["error"]
    assert ("allow" in answer.headers) == (status == 405)
    assert "location" not in answer.headers
