"""The server as a process: its one line, its exit codes, and what signals do to it and to streams in flight."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from setpoint.server.serve import CannotServe, bind, url_of

SCRIPT = Path(__file__).with_name("serve_echo.py")
LONG = {"prompt": "z" * 8000, "max_tokens": 8000, "stream": True}


@contextmanager
def process(port: int = 0, drain_s: float = 20, mode: str = "auto") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SCRIPT), str(port), str(drain_s), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def port_of(child: subprocess.Popen[str]) -> int:
    """Waits for the line that says the server is ready."""
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line.startswith("setpoint is serving at http://127.0.0.1:")
    return int(line.rsplit(":", 1)[1])


def post(port: int, body: object) -> socket.socket:
    content = json.dumps(body).encode()
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-length: {len(content)}\r\n\r\n"
    raw.sendall(head.encode() + content)
    return raw


def wait_for_one_running(port: int) -> socket.socket:
    """Asks, on a connection it leaves open and idle, until one request is in the engine."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    for _ in range(1000):
        raw.sendall(b"GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n")
        answer = http.client.HTTPResponse(raw)
        answer.begin()
        if b'setpoint_num_requests_running{model_name="echo"} 1.0' in answer.read():
            return raw
    raise AssertionError("the request never reached the engine")


def read_all(raw: socket.socket) -> bytes:
    received = []
    while chunk := raw.recv(65536):
        received.append(chunk)
    return b"".join(received)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_finish(number: signal.Signals) -> None:
    with process() as child:
        with post(port_of(child), LONG) as raw:
            start = raw.recv(1024)
            assert start.startswith(b"HTTP/1.1 200")
            child.send_signal(number)
            answer = start + read_all(raw)
        assert answer.count(b'"text":"z"') == 8000
        assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert child.wait(30) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""


def test_what_the_drain_cannot_finish_is_told_so() -> None:
    with process(drain_s=0, mode="held") as child:
        port = port_of(child)
        with post(port, LONG) as raw, wait_for_one_running(port):
            child.send_signal(signal.SIGTERM)
            answer = read_all(raw)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"server_shutting_down" in answer
        assert child.wait(30) == 0


def test_a_second_signal_ends_at_once() -> None:
    with process(drain_s=600, mode="held") as child:
        port = port_of(child)
        with post(port, LONG), wait_for_one_running(port) as idle:
            child.send_signal(signal.SIGTERM)
            # The drain closes idle connections: by then the first signal has been taken.
            assert idle.recv(1) == b""
            child.send_signal(signal.SIGTERM)
            assert child.wait(30) == -signal.SIGTERM


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(port) as child:
            out, err = child.communicate(timeout=30)
        assert child.returncode == 2
        assert out == ""
        assert err.splitlines() == [f"setpoint: cannot serve on 127.0.0.1:{port}: Address already in use"]


def test_an_engine_that_cannot_start_is_one_line() -> None:
    with process(mode="broken") as child:
        out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (2, "")
    assert err.splitlines() == ["setpoint: cannot serve echo: the model cannot be run"]


@pytest.mark.parametrize(("host", "port"), [("no such host", 0), ("127.0.0.1", 70000), ("203.0.113.1", 0)])
def test_an_address_that_cannot_be_had(host: str, port: int) -> None:
    with pytest.raises(CannotServe, match="cannot serve on"):
        bind(host, port)


def test_port_zero_takes_a_free_one() -> None:
    with bind("127.0.0.1", 0) as one, bind("127.0.0.1", 0) as other:
        assert url_of(one) != url_of(other)
