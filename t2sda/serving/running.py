"""A server's process: its address, and how it ends."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from types import FrameType

import numpy as np
import uvicorn

from t2sda.errors import UserError
from t2sda.files import reason
from t2sda.runtime.predictor import Predictor
from t2sda.serving.app import Server

UNREAD_SECONDS = 30.0
"""After which a connection is closed whose client takes nothing of its answer."""

logger = logging.getLogger(__name__)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket on an address of this machine; port 0: any that is free.

    Raises:
        UserError: if the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, TypeError, ValueError) as error:  # the last: no name of a host
        raise UserError(
            f"cannot listen on '{host}' port {port} ({reason(error)}); choose another --port or "
            f"--host"
        ) from None
    # Connections inherit it; without, a body waits 40 ms for the client's word on the headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        # A client that does not read its answer would hold it in memory, and the end of the server.
        milliseconds = round(1000 * UNREAD_SECONDS)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return listening


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def warm_up(model: Predictor) -> None:
    """Label a grey image: a model that cannot is no server's; raises its UserError."""
    model.predict(np.full((64, 64, 3), 128, dtype=np.uint8))


def serve(server: Server, listening: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT; what is under way then is finished first.

    A second SIGINT ends it at once.
    """
    config = uvicorn.Config(
        server.app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
    )
    # uvicorn raises the signal again when all is done; without these it would kill the process.
    previous = {number: signal.signal(number, _done) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _Uvicorn(config).run(sockets=[listening])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Uvicorn(uvicorn.Server):
    """What a second signal cuts off is no error, and has no traceback."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by signals."""
        if self.should_exit:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)


def _done(number: int, _: FrameType | None) -> None:
    logger.info("%s: what was under way is finished", signal.Signals(number).name)
