"""S3 on this machine: moto behind a server of its own that fails on purpose. Loopback alone."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

READ_TIMEOUT, SILENCE = 1.0, 60.0
"""Seconds."""
NO_OTHER_ADDRESS = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}
"""Credentials are not looked for in the cloud, or at home."""
INTERNAL = b"<Error><Code>InternalError</Code><Message>We made a mistake.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

Start = Callable[..., Any]


class FaultyS3:
    """A WSGI application: moto's, but the first requests for each object fail as `faults` says.

    `500`: an internal error. `hang`: no answer within READ_TIMEOUT. `silent`: the request is not
    even read, for SILENCE. `cut`: the connection ends within the body. `short`: a body that is
    whole by its own length, but not the object.
    """

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.faults: dict[str, tuple[str, ...]] = {}
        self.refused: tuple[str, ...] = ()
        """Methods that get AccessDenied."""
        self.seen: Counter[tuple[str, str]] = Counter()
        self.failed: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            number = self.seen[method, path]
            self.seen[method, path] += 1
        kinds = self.faults.get(method, ())
        kind = kinds[number] if number < len(kinds) else ""
        if kind:
            with self._lock:
                self.failed[method, kind] += 1
        if kind in ("hang", "silent"):
            time.sleep(SILENCE if kind == "silent" else READ_TIMEOUT + 0.5)
        if kind in ("500", "hang", "silent"):
            return _answer(environ, start, "500 Internal Server Error", INTERNAL)
        if method in self.refused:
            return _answer(environ, start, "403 Forbidden", DENIED)
        return self._shortened(environ, start, kind) if kind else self.app(environ, start)

    def _shortened(self, environ: dict[str, Any], start: Start, kind: str) -> list[bytes]:
        status: list[Any] = []
        body = b"".join(self.app(environ, lambda *given: status.extend(given)))
        part = body[: len(body) // 2]
        length = len(body) if kind == "cut" else len(part)
        kept = [
            (name, value)
            for name, value in status[1]
            if name.lower() != "content-length" and "checksum" not in name.lower()
        ]
        start(status[0], [*kept, ("Content-Length", str(length))])
        return [part]

    @property
    def objects(self) -> dict[str, bytes]:
        """Everything that is stored, by bucket and key."""
        from moto.s3.models import s3_backends

        buckets = s3_backends["123456789012"]["aws"].buckets
        return {
            f"{bucket}/{key}": held.value
            for bucket, own in buckets.items()
            for key, held in own.keys.items()
        }


def _answer(environ: dict[str, Any], start: Start, status: str, body: bytes) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving(app: FaultyS3) -> Iterator[str]:
    """Answers while the block runs; yields the address."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def settings(address: str, **more: Any) -> dict[str, Any]:
    """What FSSPEC_S3 holds, as a dict."""
    config = {"read_timeout": READ_TIMEOUT, "retries": {"max_attempts": 0}}
    return {"endpoint_url": address, "config_kwargs": config, **more}


def environment(address: str) -> dict[str, str]:
    """For a process that reads and writes there."""
    own = settings(address, key="any", secret="any")
    return {"FSSPEC_S3": json.dumps(own), **NO_OTHER_ADDRESS}
