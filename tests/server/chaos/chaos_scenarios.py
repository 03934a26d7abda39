"""What is done to the server. Each scenario gives figures; a wrong answer is an ``AssertionError``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import struct
import time
from collections import Counter
from typing import Any

from chaos_server import ChaosServer

Figures = dict[str, Any]
AT_A_TIME = 64
STREAM = {"prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": True, "stream": True, "temperature": 0}
SLOW = 'setpoint_http_connections_cut_total{reason="slow_reader"}'
KNOWN = {400, 401, 404, 405, 408, 413, 422, 429, 431, 503}


def post(body: object, path: str = "/v1/completions") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave as a killed client does."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def cut_clients(server: ChaosServer, count: int, seed: int = 1) -> Figures:
    """``count`` clients that leave in mid-stream: after the head, or after some events, politely or not."""
    dice = random.Random(seed)
    gate = asyncio.Semaphore(AT_A_TIME)
    left: Counter[str] = Counter()

    async def one(events: int, rude: bool) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(post(STREAM))
            status = await reader.readline()
            assert b" 200 " in status, status
            seen = 0
            while seen < events and (line := await reader.readline()):
                seen += line.startswith(b"data:")
            left[f"after {events} events" if events else "after the status line"] += 1
            if rude:
                reset(writer)
            else:
                writer.close()

    await asyncio.gather(*(one(dice.randrange(4), dice.random() < 0.5) for _ in range(count)))
    return {"clients": count, "left": dict(sorted(left.items()))}


async def idle_connections(server: ChaosServer, count: int, asks: int = 5) -> Figures:
    """``count`` connections of which half never speak and half spoke once, while a normal client asks."""
    alone_s = sorted([await server.serves() for _ in range(asks)])[asks // 2]
    connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(count)]
    for reader, writer in connections[::2]:
        writer.write(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n")
        assert b" 200 " in await reader.readline()
    held = (await server.state()).connections
    beside_s = sorted([await server.serves() for _ in range(asks)])[asks // 2]
    for _, writer in connections:
        writer.close()
    assert held >= count, f"the server held {held} connections of {count}"
    return {"connections": count, "request_alone_s": round(alone_s, 4), "request_beside_them_s": round(beside_s, 4)}


async def slow_readers(server: ChaosServer, count: int) -> Figures:
    """``count`` clients that read nothing of what they asked for; all are cut, and what they had in line is never begun.

    A kernel takes megabytes for a client that does not read, and the demo model would take minutes to say as much: so they
    ask for large answers that cost no steps. A stream that is not read is cut in ``test_server_connection.py``.
    """
    before = await server.metric(SLOW)
    loop = asyncio.get_running_loop()
    raws = [_narrow_socket(server.port) for _ in range(count)]
    asked = post({"text": "1 " * 15_000}, "/tokenize") * 8
    for _ in range(40):
        answered = await server.metric("setpoint_http_responses_total")
        await asyncio.gather(*(asyncio.wait_for(loop.sock_sendall(raw, asked), 5) for raw in raws), return_exceptions=True)
        if not await _more_answers(server, answered + count * 8):
            break
    for raw in raws:
        with contextlib.suppress(OSError):
            raw.send(post(STREAM))
    beside_s = await server.serves()
    until_s = time.monotonic() + 30
    while (cut := await server.metric(SLOW) - before) < count:
        assert time.monotonic() < until_s, f"only {cut} of {count} were cut"
        await asyncio.sleep(0.1)
    for raw in raws:
        raw.close()
    return {"readers": count, "cut": int(cut), "request_beside_them_s": round(beside_s, 4)}


def _narrow_socket(port: int) -> socket.socket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    raw.setblocking(False)
    return raw


async def _more_answers(server: ChaosServer, wanted: float) -> bool:
    """Whether the server comes to have sent so many answers: it stops, once nobody takes them."""
    sent, moved_s = 0.0, time.monotonic()
    while time.monotonic() < moved_s + 1.0:
        now = await server.metric("setpoint_http_responses_total")
        if now >= wanted:
            return True
        # Our own question is an answer too.
        if now > sent + 1:
            moved_s = time.monotonic()
        sent = now
        await asyncio.sleep(0.05)
    return False


async def killed_step(server: ChaosServer, streams: int) -> Figures:
    """A step is lost under ``streams`` streams; all of them end, with an error they can read, and the engine comes back."""
    before = await server.metric("setpoint_engine_restarts_total")

    async def one() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(post(STREAM).replace(b"host: t", b"host: t\r\nconnection: close"))
            answer = await reader.read()
        finally:
            writer.close()
        status = answer.split(b" ", 2)[1].decode()
        if status != "200":
            assert b'"error"' in answer
            return status
        assert b"[DONE]" in answer, "a stream was cut without an end"
        return "error event" if b"killed in mid-step" in answer else "whole"

    tasks = [asyncio.create_task(one()) for _ in range(streams)]
    while (await server.state()).running < min(streams, 4):
        await asyncio.sleep(0.01)
    server.fail_a_step()
    began_s = time.perf_counter()
    ends = Counter(await asyncio.gather(*tasks))
    while (await server.ask("GET", "/health")).status != 200:
        await asyncio.sleep(0.05)
    restarts = await server.metric("setpoint_engine_restarts_total") - before
    assert restarts == 1, f"{restarts} restarts"
    assert set(ends) <= {"error event", "500", "503"}, ends
    assert ends["error event"] + ends["500"] >= 1
    return {"streams": streams, "ends": dict(ends), "healthy_again_after_s": round(time.perf_counter() - began_s, 2)}


async def sigterm_under_load(server: ChaosServer, streams: int) -> Figures:
    """SIGTERM while ``streams`` streams run: all of them end whole, who comes now is told why not, and the exit code is 0."""
    accepted = asyncio.Semaphore(0)

    async def one() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(post({**STREAM, "max_tokens": 60}))
            first = await reader.readline()
            accepted.release()
            answer = first + await reader.read()
        finally:
            writer.close()
        return b" 200 " in first and b'"finish_reason":"length"' in answer and answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")

    tasks = [asyncio.create_task(one()) for _ in range(streams)]
    for _ in range(min(streams, 8)):
        await accepted.acquire()
    server.process.send_signal(signal.SIGTERM)
    health = Counter[int]()
    while True:  # the signal is taken a moment later
        status = (await server.ask("GET", "/health")).status
        health[status] += 1
        if status == 503:
            break
    refused = await server.ask("POST", "/v1/completions", {"prompt": "late", "max_tokens": 1})
    assert refused.status == 503, refused
    assert json.loads(refused.body)["error"]["code"] == "server_shutting_down"
    whole = sum(await asyncio.gather(*tasks))
    assert whole == streams, f"{streams - whole} accepted streams were lost"
    code = await asyncio.to_thread(server.process.wait, 60)
    assert code == 0, f"exit code {code}"
    return {"streams": streams, "whole": whole, "exit_code": code}
