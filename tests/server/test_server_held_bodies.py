"""Bodies that are being read are bounded together, and their bytes come back whatever becomes of their requests."""

from __future__ import annotations

import http.client
import json
import re
import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import ScriptedEngine
from serving import CHAT, Served, serving

from setpoint.server import body
from setpoint.server.app import create_app
from setpoint.server.background import BackgroundServer
from setpoint.server.errors import ApiError
from setpoint.server.held_bodies import BodyBudget, HeldBody
from setpoint.server.limits import ServerLimits

HELD = "setpoint_http_body_bytes"
PATH = "/v1/completions"
SMALL = {"prompt": "x", "max_tokens": 1}
CHAT_PATH = "/v1/chat/completions"
BODIES: dict[str, dict[str, object]] = {PATH: SMALL, CHAT_PATH: {**CHAT, "max_tokens": 1}, "/tokenize": {"text": "x"}}
LONG = {"prompt": "z" * 100, "max_tokens": 100, "stream": True}
CLIENTS, WHOLE, ROOM = 20, 100_000, 300_000
MANY = ServerLimits(max_body_bytes=WHOLE, max_held_body_bytes=ROOM)
# Room for one whole body is always there, whatever was asked for.
ONE = ServerLimits(max_body_bytes=1000, max_held_body_bytes=1)


def head(framing: str) -> bytes:
    return f"POST {PATH} HTTP/1.1\r\nhost: t\r\n{framing}\r\n\r\n".encode()


def half_sent(port: int, length: int) -> socket.socket:
    """A connection on which half of a body of ``length`` bytes was sent."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    raw.sendall(head(f"content-length: {length}") + b"x" * (length // 2))
    return raw


def answered(raw: socket.socket) -> int:
    """The status of the answer that comes on a connection."""
    response = http.client.HTTPResponse(raw)
    response.begin()
    response.read()
    return response.status


def figures(served: Served, *series: str) -> list[float]:
    """Numbers of one look at the server's metrics, 0 for what is not there yet."""
    text = served.ask("GET", "/metrics").raw.decode()
    found = [re.search(rf"^{re.escape(each)} (\S+)$", text, re.MULTILINE) for each in series]
    return [0.0 if each is None else float(each[1]) for each in found]


def comes_to_hold(served: Served, count: int) -> bool:
    return any(figures(served, HELD) == [count] for _ in range(10_000))


@given(
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 60)), max_size=60),
)
def test_never_more_is_held_than_may_be_and_what_is_released_is_free(most: int, actions: list[tuple[int, int | None]]) -> None:
    budget = BodyBudget(most, most_each_bytes=50)
    bodies = [HeldBody(budget) for _ in range(5)]
    held, closed = [0] * 5, [False] * 5
    for which, count in actions:
        if count is None:
            bodies[which].release()
            held[which] = 0
        elif bodies[which].take(count):
            assert not closed[which], "the rest of a body was taken after a part was not"
            held[which] += count
            assert held[which] <= 50
        else:
            closed[which] = True
        budget.check_integrity()
        assert budget.held_bytes == sum(held)
    for one in bodies:
        one.release()
    assert budget.held_bytes == 0


@pytest.mark.parametrize(("count", "status", "code"), [(51, 413, "request_too_large"), (31, 503, "server_is_overloaded")])
def test_a_body_that_was_not_taken_is_refused_for_its_own_size_or_for_that_of_others(
    count: int, status: int, code: str
) -> None:
    budget = BodyBudget(60, most_each_bytes=50)
    other, one = HeldBody(budget), HeldBody(budget)
    assert other.take(30)
    one.require_whole()
    assert not one.take(count)
    with pytest.raises(ApiError) as refused:
        one.require_whole()
    assert (refused.value.status, refused.value.code) == (status, code)


def test_halves_of_many_bodies_are_bounded_and_their_bytes_come_back_when_the_clients_leave() -> None:
    refused_so_far = f'setpoint_http_responses_total{{path="{PATH}",status="503"}}'

    def settled(served: Served) -> bool:
        """Whether each half is held whole, or its client refused and nothing of it held."""
        held, refused = figures(served, HELD, refused_so_far)
        assert held <= ROOM
        return held == (CLIENTS - refused) * WHOLE / 2

    with serving(server_limits=MANY) as served:
        with ExitStack() as opened:
            for _ in range(CLIENTS):
                opened.enter_context(half_sent(served.port, WHOLE))
            assert any(settled(served) for _ in range(10_000))
        assert comes_to_hold(served, 0)
        assert served.ask("POST", PATH, SMALL).status == 200


def test_halves_whose_rest_never_comes_are_cut_and_a_small_request_served_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_TIMEOUT_S", 0.3)
    with serving(server_limits=MANY) as served, ExitStack() as opened:
        raws = [opened.enter_context(half_sent(served.port, WHOLE)) for _ in range(CLIENTS)]
        assert {answered(raw) for raw in raws} <= {408, 503}
        assert comes_to_hold(served, 0)
        assert served.ask("POST", PATH, SMALL).status == 200


@pytest.mark.parametrize("path", BODIES)
def test_one_body_more_than_there_is_room_for_is_told_to_come_back(path: str) -> None:
    large = {**BODIES[path], "user": "u" * 600}
    with serving(server_limits=ONE) as served:
        with half_sent(served.port, 1000):
            assert comes_to_hold(served, 500)
            refused = served.ask("POST", path, large)
            assert (refused.status, refused.error["code"]) == (503, "server_is_overloaded")
            assert refused.headers["x-setpoint-reason"].startswith("bodies_full")
            assert int(refused.headers["retry-after"]) >= 1
            assert served.ask("POST", path, BODIES[path]).status == 200
            assert comes_to_hold(served, 500)
        assert comes_to_hold(served, 0)
        assert served.ask("POST", path, large).status == 200


def test_a_chunked_body_finds_no_room_either_and_one_that_is_too_large_is_told_so() -> None:
    chunk = b"258\r\n" + b"y" * 600 + b"\r\n"
    with serving(server_limits=ONE) as served:
        with half_sent(served.port, 1000), socket.create_connection(("127.0.0.1", served.port), timeout=30) as raw:
            assert comes_to_hold(served, 500)
            raw.sendall(head("transfer-encoding: chunked") + chunk)
            assert answered(raw) == 503
        assert comes_to_hold(served, 0)
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as raw:
            raw.sendall(head("transfer-encoding: chunked") + chunk)
            assert comes_to_hold(served, 600)
            raw.sendall(chunk)
            assert answered(raw) == 413
            assert comes_to_hold(served, 0)


def test_what_is_parsed_is_not_held_while_its_answer_is_made() -> None:
    engine = ScriptedEngine(auto=False)
    with serving(engine) as served, served.open(PATH, LONG):
        engine.wait_until(lambda: len(engine.streams) == 1)
        assert figures(served, HELD) == [0]


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("POST", "/nowhere"), ("GET", "/setpoint/steps")])
def test_a_body_that_nobody_asked_for_is_not_kept(method: str, path: str) -> None:
    with serving() as served:
        served.ask(method, path, raw=b"x" * 10_000)
        assert comes_to_hold(served, 0)


def test_a_body_in_line_counts_and_goes_with_its_client() -> None:
    engine = ScriptedEngine(auto=False)
    with serving(engine) as served:
        with served.open(PATH, LONG) as raw:
            engine.wait_until(lambda: len(engine.streams) == 1)
            content = json.dumps(LONG).encode()
            raw.sendall(head(f"content-length: {len(content)}") + content)
            assert comes_to_hold(served, len(content))
            engine.step_from_outside(2)
            assert raw.recv(64).startswith(b"HTTP/1.1 200")
        engine.step_from_outside(2)  # the first write to a connection that is gone finds that out
        engine.wait_until(lambda: not engine.streams)
        assert comes_to_hold(served, 0)
        assert len(engine.submitted) == 1


def test_a_server_that_stops_in_the_middle_of_a_body_holds_nothing_after_it() -> None:
    engine = ScriptedEngine()
    app = create_app(engine)
    with ExitStack() as opened:
        with BackgroundServer(app) as server:
            opened.enter_context(half_sent(server.port, 1000))
            assert comes_to_hold(Served(server.url, server.port, engine), 500)
        assert app.state.guard.bodies.held_bytes == 0
