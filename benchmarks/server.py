"""`t2sda serve` on loopback beside the bare call: latencies, overload, memory.

    python -m benchmarks.server FILE IMAGE [--clients 2 8 32] [--requests 40] [--memory 10000]

Every client sends its next request when the last is answered; after a 503 it waits a moment and
tries again. A line for each number of clients: answers a second, p50 and p99 of the 200s, how
many 503s. The bound for p99 is the queue's length times the median service time times 1.5.
"""

from __future__ import annotations

import argparse
import http.client
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from t2sda import load_model

HEADERS = {"Content-Type": "application/octet-stream", "Accept": "image/png"}
QUEUE = 16
FIRST = 500
"""Requests after which memory is first read."""


def main() -> None:
    """Print the table."""
    args = _parser().parse_args()
    body = args.image.read_bytes()
    bare = _bare(args.file, body)
    print(f"bare call, decoding included: p50 {1e3 * statistics.median(bare):.0f} ms")
    command = [sys.executable, "-m", "t2sda", "serve", str(args.file), "--port", "0"]
    with subprocess.Popen(
        [*command, "--queue", str(QUEUE), "--device", "cpu"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", server.stdout.readline())
            assert found is not None
            port = int(found[1])
            for num_clients in args.clients:
                _load(port, body, num_clients, args.requests)
            if args.memory:
                _memory(port, body, args.memory)
        finally:
            server.send_signal(signal.SIGTERM)
            print(f"after SIGTERM: exit code {server.wait(60)}")


def _bare(file: Path, body: bytes) -> list[float]:
    """Seconds of single calls in this process."""
    model = load_model(file, device="cpu")
    model.predict(body)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        model.predict(body)
        seconds.append(time.perf_counter() - began)
    return seconds


def _load(port: int, body: bytes, num_clients: int, num_requests: int) -> None:
    before = _stages(port)
    seconds: list[float] = []
    refused: list[str] = []
    left = iter(range(num_requests))
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                if next(left, None) is None:
                    return
            while not _sent(connection, body, seconds, refused):
                time.sleep(0.2)

    began = time.perf_counter()
    threads = [threading.Thread(target=client) for _ in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began
    service = (_stages(port) - before) / len(seconds)
    p50, p99 = np.percentile(seconds, [50, 99])
    bound = QUEUE * service * 1.5
    print(
        f"{num_clients:>3} clients: {len(seconds) / wall:5.1f} a second, p50 {1e3 * p50:5.0f} ms, "
        f"p99 {1e3 * p99:5.0f} ms (bound {1e3 * bound:.0f}), service {1e3 * service:.0f} ms, "
        f"{len(refused)} times 503"
    )


def _sent(
    connection: http.client.HTTPConnection, body: bytes, seconds: list[float], refused: list[str]
) -> bool:
    began = time.perf_counter()
    connection.request("POST", "/segment", body, HEADERS)
    answer = connection.getresponse()
    answer.read()
    if answer.status == 503:
        refused.append(answer.headers["Retry-After"])
        return False
    assert answer.status == 200, answer.status
    seconds.append(time.perf_counter() - began)
    return True


def _metric(port: int, pattern: str) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return [float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE)]


def _stages(port: int) -> float:
    """Seconds spent on images since the start, without waiting."""
    return sum(_metric(port, r't2sda_stage_seconds_sum\{stage="(?:decode|network|encode)"\}'))


def _memory(port: int, body: bytes, num_requests: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    early = 0.0
    for index in range(num_requests):
        _sent(connection, body, [], [])
        if index + 1 == FIRST:
            early = _metric(port, "process_resident_memory_bytes")[0]
    late = _metric(port, "process_resident_memory_bytes")[0]
    connection.close()
    print(
        f"memory: {early / 2**20:.0f} MiB after {FIRST} requests, {late / 2**20:.0f} after "
        f"{num_requests}: {late / early:.3f} times"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--requests", type=int, default=80, help="for each number of clients")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="requests, e.g. 10000")
    return parser


if __name__ == "__main__":
    main()
