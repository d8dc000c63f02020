"""`t2sda serve` as a process: its address, its end, and what is wrong with its arguments."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from t2sda.cli.main import main
from t2sda.serving import running
from t2sda.serving.running import bound_socket, is_loopback
from tests.serving.conftest import POST, encoded, noise


@pytest.fixture
def process(tiny_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "t2sda", "serve", str(tiny_path), "--port", "0"]
    started = subprocess.Popen(
        [*command, "--device", "cpu", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield started
    started.kill()
    started.communicate()


def test_sigterm_finishes_what_is_under_way(process: subprocess.Popen[str]) -> None:
    """A body of which half has been sent is still taken, labelled and answered."""
    assert process.stdout is not None
    said = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
    assert found, said + process.stderr.read()  # type: ignore[union-attr]
    port = int(found[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = encoded(noise())
    connection.putrequest("POST", "/segment")
    connection.putheader("Content-Type", POST["Content-Type"])
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[:1000])
    wait_until_inside(port)
    process.send_signal(signal.SIGTERM)
    assert process.poll() is None
    connection.send(body[1000:])
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["size"] == [40, 60]
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "SIGTERM: what was under way is finished" in out
    assert errors == ""


@pytest.mark.slow  # a process
def test_a_second_ctrl_c_ends_it_at_once_without_a_traceback(
    process: subprocess.Popen[str],
) -> None:
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
    assert found is not None
    with socket.create_connection(("127.0.0.1", int(found[1]))) as connection:
        head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: {POST['Content-Type']}\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode() + bytes(10))
        wait_until_inside(int(found[1]))
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""


def wait_until_inside(port: int) -> None:
    for _ in range(400):
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        asking.request("GET", "/health")
        length = json.loads(asking.getresponse().read())["queue"]["length"]
        asking.close()
        if length:
            return
    raise AssertionError("the request never arrived")


def test_what_is_wrong_with_the_arguments_is_one_message(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, words in (
            ([str(tiny_path), "--port", port], f"port {port} (Address already in use"),
            ([str(tiny_path), "--port", "0", "--host", "203.0.113.7"], "choose another --port"),
            ([str(tiny_path), "--port", "0", "--host", "no..host"], "choose another --port"),
            ([str(tiny_path), "--port", "0", "--host", "é" * 99], "choose another --port"),
            ([str(tmp_path / "none.onnx"), "--port", "0"], "no such file"),
            ([str(tiny_path), "--queue", "1", "--workers", "2"], "less than --workers"),
            ([str(tiny_path), "--max-pixels", str(10**9)], "are ever decoded"),
        ):
            assert main(["serve", *arguments]) == 2
            assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", str(tiny_path), "--port", "65536"])


def test_loopback_is_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.2", "example.org")))


def test_without_the_extra_it_says_how_to_install_it(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert main(["serve", str(tiny_path)]) == 2
    assert "pip install 't2sda[serve]'" in capsys.readouterr().err


def test_no_connection_waits_for_the_clients_word_between_headers_and_body() -> None:
    with (
        bound_socket("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
def test_a_client_that_does_not_read_its_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "UNREAD_SECONDS", 0.1)
    with (
        bound_socket("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as connection,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        with pytest.raises(OSError, match="timed out") as found:
            connection.sendall(bytes(1 << 26))
        assert found.value.errno == errno.ETIMEDOUT  # not Python's own limit above
