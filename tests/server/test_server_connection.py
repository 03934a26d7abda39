"""Connections within bounds: large heads, late heads, too many connections, readers that do not read, bodies left unread."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scripted_engine import ScriptedEngine
from serving import Served, serving

from setpoint.server import connection
from setpoint.server.connection import MAX_HEADERS, MAX_PIPELINED
from setpoint.server.limits import ServerLimits

GET_HEALTH = b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n"
# Tokens of an answer that no socket buffer holds.
TOO_MUCH = 60_000
LONG = {"prompt": "z" * 100, "max_tokens": 100, "stream": True}


@contextmanager
def bounded(engine: ScriptedEngine | None = None, **limits: float) -> Iterator[Served]:
    with serving(engine, server_limits=ServerLimits(**limits)) as served:  # type: ignore[arg-type]
        yield served


def connected(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=30)


def narrow(served: Served, body: object) -> socket.socket:
    """A connection that holds little unread, on which ``body`` was posted."""
    content = json.dumps(body).encode()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(30)
    raw.connect(("127.0.0.1", served.port))
    raw.sendall(f"POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)
    return raw


def to_the_end(raw: socket.socket) -> bytes:
    received = []
    try:
        while chunk := raw.recv(65536):
            received.append(chunk)
    except ConnectionResetError:
        pass
    return b"".join(received)


def answer_on(raw: socket.socket, request: bytes) -> tuple[int, http.client.HTTPResponse]:
    raw.sendall(request)
    response = http.client.HTTPResponse(raw)
    response.begin()
    response.read()
    return response.status, response


def cut_for(served: Served, reason: str) -> float:
    text = served.ask("GET", "/metrics").raw.decode()
    found = re.search(rf'setpoint_http_connections_cut_total{{reason="{reason}"}} (\S+)', text)
    assert found is not None
    return float(found[1])


def error_code(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    code: str = json.loads(body)["error"]["code"]
    return code


@pytest.mark.parametrize("where", ["url", "one header", "many bytes", "many headers"])
def test_a_head_that_is_too_large_is_refused_and_the_rest_of_the_world_served(where: str) -> None:
    sent = {
        "url": b"GET /" + b"a" * 3000,
        "one header": b"GET /health HTTP/1.1\r\nx: " + b"a" * 3000,
        "many bytes": b"GET /health HTTP/1.1\r\n" + b"x: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 60,
        "many headers": b"GET /health HTTP/1.1\r\n" + b"a:b\r\n" * (MAX_HEADERS + 2),
    }[where]
    with bounded(max_header_bytes=2048) as served, connected(served) as raw:
        raw.sendall(sent)
        answer = to_the_end(raw)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert error_code(answer) == "headers_too_large"
        assert cut_for(served, "header_too_large") == 1


def test_a_head_of_just_the_size_passes_and_bodies_do_not_count() -> None:
    with bounded(max_header_bytes=2048) as served, connected(served) as raw:
        head = b"GET /health HTTP/1.1\r\nhost: t\r\nx: "
        assert answer_on(raw, head + b"a" * (2048 - len(head) - 4) + b"\r\n\r\n")[0] == 200
        assert answer_on(raw, GET_HEALTH)[0] == 200
        assert served.ask("POST", "/v1/completions", {"prompt": "a" * 200, "user": "b" * 10_000}).status == 200


def test_a_head_that_does_not_end_is_cut_and_so_is_silence() -> None:
    with bounded(header_timeout_s=0.3) as served:
        with connected(served) as slow, connected(served) as silent, connected(served) as second:
            assert answer_on(second, GET_HEALTH)[0] == 200
            slow.sendall(b"GET /health HTTP/1.1\r\nx: ")
            second.sendall(b"GET ")
            assert to_the_end(silent) == b""
            for raw in (slow, second):
                answer = to_the_end(raw)
                assert answer.startswith(b"HTTP/1.1 408 ")
                assert error_code(answer) == "request_timeout"
        assert cut_for(served, "slow_header") == 3


def test_nonsense_is_answered_with_an_error_object_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with bounded() as served:
        for sent in (
            b"\x00\x01\x02\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\n\r\n",
            b"POST /\xff HTTP/1.1\r\n\r\n",
        ):
            with connected(served) as raw:
                raw.sendall(sent + b"\r\n\r\n")
                answer = to_the_end(raw)
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert error_code(answer) == "invalid_http"
        assert cut_for(served, "malformed") == 4
    assert caplog.records == []


def test_when_all_connections_are_taken_the_longest_idle_gives_way() -> None:
    with bounded(max_connections=2) as served, connected(served) as first, connected(served) as second:
        assert answer_on(first, GET_HEALTH)[0] == 200
        assert answer_on(second, GET_HEALTH)[0] == 200
        assert answer_on(first, GET_HEALTH)[0] == 200
        assert served.ask("POST", "/v1/completions", {"prompt": "new"}).status == 200
        assert to_the_end(second) == b""
        assert answer_on(first, GET_HEALTH)[0] == 200


def test_when_all_connections_are_busy_health_is_still_answered() -> None:
    engine = ScriptedEngine(auto=False)
    with bounded(engine, max_connections=2) as served:
        with served.open("/v1/completions", LONG), served.open("/v1/completions", LONG):
            engine.wait_until(lambda: len(engine.streams) == 2)
            refused = served.ask("POST", "/v1/completions", {"prompt": "late"})
            assert (refused.status, refused.error["code"]) == (503, "server_is_overloaded")
            assert refused.headers["connection"] == "close"
            assert int(refused.headers["retry-after-ms"]) > 0
            assert served.ask("GET", "/health").status == 200
        engine.wait_until(lambda: not engine.streams)
        assert served.ask("GET", "/v1/models").status == 200


def test_a_reader_that_reads_nothing_is_cut_and_its_request_with_it() -> None:
    engine = ScriptedEngine(max_model_len=200_000)
    body = {"prompt": "z" * TOO_MUCH, "max_tokens": TOO_MUCH, "stream": True}
    with bounded(engine, slow_reader_s=0.3) as served:
        with narrow(served, body) as raw:
            engine.wait_until(lambda: len(engine.ended) == 1)
            assert any(cut_for(served, "slow_reader") == 1 for _ in range(10_000))
            assert len(to_the_end(raw)) < TOO_MUCH * 100, "the whole answer was sent"
        assert served.ask("POST", "/v1/completions", {"prompt": "quick"}).status == 200


def test_a_reader_that_only_pauses_gets_everything() -> None:
    engine = ScriptedEngine(max_model_len=200_000)
    body = {"prompt": "z" * 30_000, "max_tokens": 30_000, "stream": True}
    with bounded(engine, slow_reader_s=30) as served, narrow(served, body) as raw:
        engine.wait_until(lambda: len(engine.ended) == 1)
        received = b""
        while not received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            received = received[-64:] + raw.recv(1 << 20)


def test_a_body_that_stays_away_after_the_answer_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.3)
    head = b"GET /health HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n"
    with bounded() as served:
        with connected(served) as never, connected(served) as later:
            assert answer_on(never, head)[0] == 200
            assert answer_on(later, head)[0] == 200
            later.sendall(b"0123456789")
            assert answer_on(later, GET_HEALTH)[0] == 200
            assert to_the_end(never) == b""
        assert cut_for(served, "slow_body") == 1


def test_a_client_that_asks_to_close_still_sees_why_its_body_is_too_large() -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 8000000\r\n\r\n"
    with bounded(max_body_bytes=1000) as served, connected(served) as raw:
        raw.sendall(head)
        raw.sendall(b"a" * 8_000_000)
        answer = to_the_end(raw)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"}")
    with bounded() as served:
        assert served.ask("GET", "/health").status == 200


def test_a_client_that_leaves_with_requests_in_line_has_all_of_them_ended() -> None:
    engine = ScriptedEngine(auto=False)
    with bounded(engine) as served:
        content = json.dumps(LONG).encode()
        request = f"POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content
        with connected(served) as raw:
            raw.sendall(request * 3)
            engine.wait_until(lambda: len(engine.streams) == 1)
            engine.step_from_outside(2)
            assert raw.recv(64).startswith(b"HTTP/1.1 200")
        engine.step_from_outside(2)  # the first write to a connection that is gone finds that out
        engine.wait_until(lambda: not engine.streams)
        assert len(engine.submitted) == 1


def test_requests_in_line_are_bounded() -> None:
    engine = ScriptedEngine(auto=False)
    with bounded(engine) as served, served.open("/v1/completions", LONG) as raw:
        engine.wait_until(lambda: len(engine.streams) == 1)
        raw.sendall(GET_HEALTH * (MAX_PIPELINED + 2))
        engine.wait_until(lambda: not engine.streams)
        assert to_the_end(raw) == b""


def test_trailers_without_an_end_are_refused_and_those_with_one_are_no_headers() -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
    with bounded(max_header_bytes=2000) as served:
        endless = connected(served)
        endless.settimeout(10)
        endless.sendall(head + b"0\r\nx: ")
        sent = 0
        try:
            while sent < 8 << 20:
                sent += endless.send(b"a" * 65536)
        except (ConnectionError, TimeoutError):
            pass
        assert sent < 4 << 20, "somebody went on reading"
        endless.close()
        assert cut_for(served, "header_too_large") == 1
        body = json.dumps({"prompt": "hello", "max_tokens": 1}).encode()
        chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\nx-slo-ttft-ms: nonsense\r\n\r\n"
        raw = connected(served)
        assert answer_on(raw, head + chunks)[0] == 200
        raw.close()
