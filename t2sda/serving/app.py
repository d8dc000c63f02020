"""The server as a Starlette application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import t2sda
from t2sda.errors import UserError
from t2sda.runtime.predictor import Predictor
from t2sda.serving.answers import (
    MEDIA_TYPES_TAKEN,
    Answer,
    Limits,
    RefusedError,
    answer,
    chosen_media_type,
)
from t2sda.serving.metrics import Metrics
from t2sda.serving.openapi import PAGE_HEADERS, description, page
from t2sda.serving.waiting import Queue

logger = logging.getLogger(__name__)
BODY_SECONDS = 10.0
"""Within which a body must arrive: whoever sends slowly would keep others out."""
DISCARDED = 64 << 20
"""Bytes of a refused body that are read: who still sends does not hear the answer."""


class Server:
    """Answers requests with a model's labels.

    Args:
        model: already loaded.
        limits: of what is sent.
        queue: of this server alone.
        body_seconds: within which a body must arrive.
    """

    def __init__(
        self,
        model: Predictor,
        limits: Limits,
        queue: Queue,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self.model = model
        self.limits = limits
        self.queue = queue
        self.metrics = Metrics(queue)
        self._body_seconds = body_seconds
        self._description = description(model.taxonomy, limits, queue.capacity)

    def app(self) -> Starlette:
        """The application; it ends the queue's threads when it ends."""
        app = Starlette(
            routes=[
                Route("/segment", self.segment, methods=["POST"]),
                Route("/health", self.health),
                Route("/metrics", self.tell_metrics),
                Route("/openapi.json", self.describe),
                Route("/", self.show),
            ],
            exception_handlers={HTTPException: self.point_the_way},
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False  # to http://, also behind a proxy that has TLS
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self.queue.close()

    async def segment(self, request: Request) -> Response:
        """`POST /segment`: an image in, its labels out."""
        try:
            given = await self._answer(request)
            response = Response(given.content, media_type=given.media_type)
        except RefusedError as error:
            if error.status != HTTPStatus.REQUEST_TIMEOUT:
                await self._discard(request)
            response = _error(error.status, str(error))
            if error.retry_after is not None:
                response.headers["Retry-After"] = str(error.retry_after)
        except ClientDisconnect:
            response = _error(HTTPStatus.BAD_REQUEST, "the connection was closed")
        except UserError as error:  # of the model
            logger.error("%s", error)
            response = _error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        response.headers["Vary"] = "Accept"
        self.metrics.requests.labels(response.status_code).inc()
        return response

    async def _answer(self, request: Request) -> Answer:
        media_type = chosen_media_type(request.headers.get("accept", ""))
        sent_as = request.headers.get("content-type", "(none)").lower()
        if not sent_as.startswith(MEDIA_TYPES_TAKEN):
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type: {sent_as[:120]}: send the image file itself, as image/jpeg, "
                f"image/png or application/octet-stream",
            )
        self._check_length(int(request.headers.get("content-length", "0")))
        async with self.queue.place():
            content = await self._body(request)
            waiting = time.perf_counter()
            async with self.queue.turn():
                if await request.is_disconnected():
                    raise ClientDisconnect
                seconds = {"wait": time.perf_counter() - waiting}
                given = await self.queue.run(answer, self.model, content, media_type, self.limits)
        for stage, took in (*seconds.items(), *given.seconds.items()):
            self.metrics.seconds.labels(stage).observe(took)
        return given

    async def _body(self, request: Request) -> bytes:
        parts = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for part in request.stream():
                    parts += part
                    self._check_length(len(parts))
        except TimeoutError:
            raise RefusedError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"after {self._body_seconds:g} s the body is not complete; send it faster",
            ) from None
        request.state.is_read = True
        return bytes(parts)

    def _check_length(self, num_bytes: int) -> None:
        if num_bytes > self.limits.num_bytes:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has more than the {self.limits.num_bytes} bytes that are taken; send a "
                f"smaller file",
            )

    async def _discard(self, request: Request) -> None:
        """Read what a refused client still sends, up to a limit, and keep none of it."""
        if getattr(request.state, "is_read", False) or "expect" in request.headers:
            return  # there is no more, or it waits for our word
        num_bytes = 0
        with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
            async with asyncio.timeout(self._body_seconds):
                while num_bytes < DISCARDED:
                    message = await request.receive()
                    num_bytes += len(message.get("body", b""))
                    if not message.get("more_body"):
                        break

    async def health(self, _: Request) -> Response:
        """`GET /health`: the model is loaded, and what it is."""
        model = self.model
        return JSONResponse(
            {
                "status": "ok",
                "version": t2sda.__version__,
                "runtime": model.runtime,
                "taxonomy": model.taxonomy.name,
                "origin": dict(model.origin),
                "queue": {"length": self.queue.length, "capacity": self.queue.capacity},
            }
        )

    async def tell_metrics(self, _: Request) -> Response:
        """`GET /metrics`: for Prometheus."""
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def describe(self, _: Request) -> Response:
        """`GET /openapi.json`."""
        return JSONResponse(self._description)

    async def point_the_way(self, request: Request, error: Exception) -> Response:
        """What is asked of another address, or in another way: where to go instead."""
        assert isinstance(error, HTTPException)
        await self._discard(request)
        headers = error.headers or {}
        found = f"takes {headers['Allow']} alone" if "Allow" in headers else "is nothing here"
        response = _error(
            HTTPStatus(error.status_code),
            f"{request.method} {request.url.path[:120]}: {found}; POST an image file to /segment, "
            f"GET / describes the rest",
        )
        response.headers.update(headers)
        return response

    async def show(self, _: Request) -> Response:
        """`GET /`: the description as a page, with a form to try it."""
        return HTMLResponse(page(self._description), headers=PAGE_HEADERS)


def _error(status: HTTPStatus, message: str) -> Any:
    return JSONResponse({"error": message}, status_code=status)
