"""What is asked of a target: prompts that its server takes and that the load allows; and a load that cannot be sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loop_world import mock_in_thread

from setpoint.loop.asked import Asked, asked_of
from setpoint.loop.errors import BadInput
from setpoint.loop.flags import ClientFlags, LengthFlags, LoadFlags, OutputFlags, TargetFlags, TraceFlags, VerdictFlags
from setpoint.loop.measuring import measure
from setpoint.loop.on_target import look_at
from setpoint.loop.planning import plan_for
from setpoint.measure.conversations import Conversations
from setpoint.measure.event_loop import run
from setpoint.measure.options import LoadOptions
from setpoint.measure.result import Ended
from setpoint.measure.target import Target
from setpoint.record import Phase
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest
from setpoint.workload.prompts import PromptMaker, TextPrompts, TokenIdPrompts

TALK = {"conversations": [{"from": who, "value": "one two three " * 9} for who in ("human", "gpt") * 3]}


class _TakesIds(BaseHTTPRequestHandler):
    """vLLM by what it says of its model, so that it takes token ids; one token a character."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = self.path == "/v1/models"
        self._reply(200 if found else 404, {"data": [{"id": "m", "owned_by": "vllm"}]} if found else {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._reply(200, {"tokens": [ord(mark) for mark in asked.get("prompt", "")]})

    def _reply(self, status: int, page: object) -> None:
        body = json.dumps(page).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _TakesIds)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(load: LoadFlags, trace: TraceFlags | None = None) -> Asked:
    length = LengthFlags(duration="3s", warmup="0")
    return asked_of(None, TargetFlags(), load, trace or TraceFlags(), length, ClientFlags(), VerdictFlags(), OutputFlags())


def prompts_at(url: str, wanted: Asked) -> PromptMaker:
    return run(look_at(Target(url), wanted.requirement, wanted.options))[1]


@pytest.mark.parametrize("concurrency", [None, 2])
def test_conversations_are_asked_as_text_where_others_are_token_ids(url: str, concurrency: int | None) -> None:
    alone = LoadFlags(concurrency=concurrency, prompt_tokens="90")
    assert isinstance(prompts_at(url, asked(alone)), TokenIdPrompts)
    talking = replace(alone, turns="3", think_time="100ms")
    assert isinstance(prompts_at(url, asked(talking)), TextPrompts)


def test_turns_of_a_plan_for_a_server_that_takes_token_ids_can_be_sent(url: str) -> None:
    talking = asked(LoadFlags(rate="4", arrival="constant", prompt_tokens="90", turns="3"))
    plan = plan_for(talking.requirement, talking.options, prompts_at(url, talking))
    assert any(request.follows is not None for request in plan.requests)
    Conversations(plan)


def test_conversations_of_a_trace_are_text_if_all_their_turns_are_asked(url: str, tmp_path: Path) -> None:
    file = tmp_path / "talks.json"
    file.write_text(json.dumps([TALK] * 3), encoding="utf-8")
    trace = TraceFlags(trace=file)
    assert isinstance(prompts_at(url, asked(LoadFlags(rate="2"), trace)), TokenIdPrompts)
    talking = asked(LoadFlags(rate="2", think_time="1s"), trace)
    prompts = prompts_at(url, talking)
    assert isinstance(prompts, TextPrompts)
    Conversations(plan_for(talking.requirement, talking.options, prompts))


def test_a_load_that_cannot_be_sent_is_a_mistake_in_words() -> None:
    first = PlannedRequest(0, 0.0, Phase.SUSTAINED, (1, 2), 2, 4, session="s")
    turns = [first, replace(first, index=1, turn=1, follows=0)]
    plan = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 1.0)], turns, True)
    nobody = Target("http://127.0.0.1:9", "m")
    with pytest.raises(BadInput, match="this load cannot be sent: plan: request 0 of a session has token ids"):
        run(measure(nobody, asked(LoadFlags()).requirement, plan, LoadOptions(), name="x"))


@pytest.mark.parametrize(("warmup_s", "words"), [(0.0, "phase ends where none was left"), (10.0, "none was left for the")])
def test_a_closed_loop_that_ran_out_of_requests_is_judged_by_the_time_it_was_closed(warmup_s: float, words: str) -> None:
    requests = [PlannedRequest(n, 0.0, Phase.SUSTAINED, "a b", 2, 6) for n in range(6)]
    spans = [PhaseSpan(Phase.WARMUP, 0.0, warmup_s), PhaseSpan(Phase.SUSTAINED, warmup_s, 20.0)]
    plan = LoadPlan(0, [span for span in spans if span.duration_s], requests, True, concurrency=2)
    with mock_in_thread() as mock:
        measured = run(measure(Target(mock.url, "m"), asked(LoadFlags()).requirement, plan, LoadOptions(), name="x"))
    assert measured.ended is Ended.USED_UP
    assert any(words in reason for reason in measured.validity.reasons)
    sustained = measured.measured.sustained
    if not warmup_s:
        assert sustained.offered == 6
        assert sustained.duration_s < 10.0
    else:
        assert (sustained.offered, sustained.duration_s) == (0, 10.0)
