"""`t2sda serve`: a model behind HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2

from t2sda.cli.common import ArgumentParser, positive_int
from t2sda.cli.loading import add_model_arguments, description_of, load_for_models
from t2sda.data.parallel import num_cores
from t2sda.errors import UserError
from t2sda.images.files import MAX_PIXELS
from t2sda.runtime.loading import load_model
from t2sda.runtime.packages import require
from t2sda.runtime.predictor import Predictor
from t2sda.runtime.runtimes import RUNTIMES, runtime_for

LARGEST_PORT = 65535


def command(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    args = build_parser().parse_args(argv)
    for package in ("starlette", "uvicorn", "prometheus_client", "jinja2"):
        require(package, "serve")
    # Imported when it is known that their packages are here.
    from t2sda.serving.answers import Limits
    from t2sda.serving.app import Server
    from t2sda.serving.running import bound_socket, is_loopback, serve, warm_up
    from t2sda.serving.waiting import Queue

    if args.max_pixels > MAX_PIXELS:
        raise UserError(f"--max-pixels {args.max_pixels}: at most {MAX_PIXELS} are ever decoded")
    if args.queue < args.workers:
        raise UserError(f"--queue {args.queue}: is less than --workers {args.workers}")
    with bound_socket(args.host, args.port) as listening:
        model = _model(args)
        warm_up(model)
        cv2.setNumThreads(1)  # the requests are what is done in parallel
        queue = Queue(args.queue, args.workers)
        server = Server(model, Limits(args.max_bytes, args.max_pixels), queue)
        host, port = listening.getsockname()[:2]
        if not is_loopback(args.host):
            print(
                "note: others can reach this address; there is neither TLS nor a password, so put "
                "a proxy that has them in front"
            )
        address = f"[{host}]" if ":" in host else host
        print(f"{args.model} in {model.runtime}: http://{address}:{port}", flush=True)
        serve(server, listening)
    return 0


def _model(args: argparse.Namespace) -> Predictor:
    path = Path(args.model)
    load_for_models([path], args.plugin, args.file)
    runtime = RUNTIMES[runtime_for(path, args.runtime)]
    on_cpu = not runtime.uses_gpu(args.device)
    return load_model(
        path,
        args.runtime,
        args.device,
        threads=args.threads or (max(num_cores() // args.workers, 1) if on_cpu else 0),
        streams=args.workers,
        description=description_of(args),
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"'{text}' is no port from 0 to {LARGEST_PORT}")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda serve",
        description="Label images over HTTP. POST an image file to /segment; Accept says whether "
        "train ids (image/png), an overlay (image/jpeg) or shares of classes (application/json) "
        "come back. GET / describes it all, /health and /metrics are for those who watch.",
    )
    parser.add_argument(
        "model", metavar="FILE", help="a file of `t2sda export`, checkpoint, or run folder"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: this machine alone"
    )
    parser.add_argument("--port", type=_port, default=8000, help="default: 8000; 0: any free one")
    parser.add_argument(
        "--queue",
        type=positive_int,
        default=16,
        metavar="N",
        help="requests that wait or are in work, default 16; beyond them the answer is 503",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=1,
        metavar="N",
        help="images in work at once, default 1; they share the cores",
    )
    parser.add_argument(
        "--max-bytes",
        type=positive_int,
        default=32 << 20,
        metavar="N",
        help="of an image file, default 32 MiB; beyond it the answer is 413",
    )
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
        default=1 << 25,
        metavar="N",
        help="of an image, default 8192x4096; beyond it the answer is 413",
    )
    add_model_arguments(parser)
    return parser
