"""A client that leaves takes its request out of the engine, wherever it was."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest
from scripted_engine import ScriptedEngine
from serving import CHAT, Served, serving

from setpoint.engine.request import FinishReason


def reset(raw: socket.socket) -> None:
    """Close with a reset, as a killed client does."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def expect_cancelled(served: Served, count: int) -> None:
    served.engine.wait_until(lambda: len(served.engine.ended) == count and not served.engine.streams)
    assert all(stats.finish_reason is FinishReason.CANCELLED for stats in served.engine.ended)


@pytest.mark.parametrize("close", [socket.socket.close, reset])
@pytest.mark.parametrize("stream", [False, True])
def test_leaving_before_the_first_token(stream: bool, close: Callable[[socket.socket], None]) -> None:
    with serving(ScriptedEngine(auto=False)) as served:
        raw = served.open("/v1/chat/completions", {**CHAT, "stream": stream})
        served.engine.wait_until(lambda: len(served.engine.streams) == 1)
        close(raw)
        expect_cancelled(served, 1)
        assert served.ask("GET", "/health").status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_in_the_middle(stream: bool) -> None:
    with serving(ScriptedEngine(auto=False)) as served:
        raw = served.open("/v1/chat/completions", {**CHAT, "stream": stream})
        served.engine.wait_until(lambda: len(served.engine.streams) == 1)
        served.engine.step_from_outside(3)
        if stream:
            assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        raw.close()
        expect_cancelled(served, 1)
        assert b'request_cut_total{finished_reason="cancelled"' in served.ask("GET", "/metrics").raw


def test_a_hundred_leave_at_once() -> None:
    with serving(ScriptedEngine(auto=False)) as served:
        raws = [served.open("/v1/chat/completions", {**CHAT, "stream": True}) for _ in range(100)]
        served.engine.wait_until(lambda: len(served.engine.streams) == 100)
        served.engine.step_from_outside()
        for raw in raws:
            reset(raw)
        expect_cancelled(served, 100)


def test_leaving_inside_the_body_reaches_no_engine() -> None:
    with serving() as served:
        raw = socket.create_connection(("127.0.0.1", served.port), timeout=30)
        raw.sendall(b'POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{"pro')
        raw.close()
        assert served.ask("POST", "/v1/completions", {"prompt": "ok"}).status == 200
        assert len(served.engine.submitted) == 1


def test_a_reader_that_never_reads_holds_up_nobody() -> None:
    with serving(ScriptedEngine(max_model_len=4096)) as served:
        body = {"prompt": "z" * 2000, "max_tokens": 2000, "stream": True}
        idle = [served.open("/v1/completions", body) for _ in range(4)]
        reply = served.ask("POST", "/v1/completions", {"prompt": "quick"})
        assert reply.json["choices"][0]["text"] == "quick"
        for raw in idle:
            raw.close()
        served.engine.wait_until(lambda: not served.engine.streams)
