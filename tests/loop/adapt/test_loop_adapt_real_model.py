"""The loop beside a real server with the demo model: it changes the engine under requests, and none of them notices."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import ResolvedModel
from setpoint.engine.openvino.executor import ExecutorOptions
from setpoint.loop.adapt.audit import Audit
from setpoint.loop.adapt.driver import PATH, Adapter
from setpoint.loop.adapt.planner import Planner
from setpoint.loop.adapt.rails import Rails
from setpoint.loop.adapt.replan import Answer, Forecast, Question
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.requirement import parse_requirement
from setpoint.server.app import create_app
from setpoint.server.background import BackgroundServer

pytestmark = pytest.mark.model

WAIT_S = 40.0
START = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=4, token_budget=256, kv_cache_tokens=4096)
OTHER = START.model_copy(update={"mode": BatchingMode.SETPOINT, "max_running": 2, "token_budget": 48})
REQUIREMENT = parse_requirement(
    "name: a\nmodel: smollm2-135m\n"
    "profile: {prompt_tokens: 8, output_tokens: 8, arrival: {rate: 1/s}}\nslo: {e2e: {p95: 60s}}\n",
    "a",
)
GUESSING = START.model_copy(update={"speculation": SpeculationMode.PROMPT_LOOKUP, "draft_tokens": 3})
EXACT = ExecutorOptions(precision="f32", cache_precision="f32", kv_cache_tokens=4096)
FAST = Rails(
    look_s=0.05,
    dwell_s=0.05,
    replan_s=0.1,
    periodic_s=0.2,
    settle_s=0.05,
    trial_s=0.1,
    most_trial_s=0.3,
    trial_requests=4,
)


def back_and_forth(question: Question) -> Answer:
    """The other of two configurations, whichever it is."""
    wanted = OTHER if question.present == START else START
    present = Forecast(question.present, 0.1, 0.0, 0.0, 5)
    return Answer(present, (Forecast(wanted, 0.9, 0.8, 0.1, 5),), 1, 0, 0.001)


class Known:
    """A planner in this process."""

    async def answer(self, question: Question) -> Answer:
        return back_and_forth(question)

    def close(self) -> None:
        """Nothing to close."""


class TurnsDrafts:
    """A planner that wants drafts the other way, as soon as enough is known of them."""

    async def answer(self, question: Question) -> Answer:
        if not question.unscreened:
            return Answer(problem="nothing is known of guesses yet")
        present = Forecast(question.present, 0.1, 0.0, 0.0, 5)
        return Answer(present, (Forecast(question.unscreened[0], 0.9, 0.8, 0.1, 5),), 1, 0, 0.001)

    def close(self) -> None:
        """Nothing to close."""


@contextmanager
def adapting(
    model: ResolvedModel,
    log: Path,
    *,
    dry_run: bool = False,
    start: ServingConfig = START,
    planner: Planner | None = None,
) -> Iterator[BackgroundServer]:
    engine = embedded_engine(model, start, options=EXACT)
    adapter = Adapter(engine, REQUIREMENT, FAST, planner or Known(), Audit(log), dry_run=dry_run)
    with BackgroundServer(create_app(engine, companion=adapter)) as server:
        yield server


def ask(port: int, method: str, path: str, body: object = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body))
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


def text(port: int, number: int) -> str:
    prompt = f"Item {number}: the quick brown fox jumps over the lazy dog because"
    body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    return str(json.loads(ask(port, "POST", "/v1/completions", body))["choices"][0]["text"])


def eventually(port: int, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline_s = time.monotonic() + WAIT_S
    while True:
        state: dict[str, Any] = json.loads(ask(port, "GET", PATH))
        if true(state):
            return state
        assert time.monotonic() < deadline_s, state
        time.sleep(0.02)


def test_answers_are_the_same_while_the_configuration_goes_back_and_forth(demo_model: ResolvedModel, tmp_path: Path) -> None:
    log = tmp_path / "adapt.jsonl"
    with adapting(demo_model, log) as server:
        alone = [text(server.port, number) for number in range(4)]
        with ThreadPoolExecutor(6) as clients:
            many = list(clients.map(lambda number: text(server.port, number % 4), range(24)))
        assert many == alone * 6
        state = eventually(server.port, lambda state: state["changes"] >= 3)
        assert {"changed", "planned", "planning", "started"} <= {event["event"] for event in state["events"]}
        metrics = ask(server.port, "GET", "/metrics").decode()
        assert "setpoint_adapt_changes_total" in metrics
        assert "setpoint_config_token_budget" in metrics
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["event"] == "started"
    assert lines[-1]["event"] == "stopped"
    changed = next(line for line in lines if line["event"] == "changed")
    assert changed["predicted"] == {"present": 0.1, "good": 0.9, "gain": 0.8, "uncertainty": 0.1}
    assert changed["changes"]["token_budget"] == [256, 48]
    ends = [line for line in lines if line["event"] in ("kept", "rolled_back")]
    assert ends
    assert {"verdict", "good_before", "good_after", "predicted"} <= ends[0].keys()


def test_a_dry_run_tells_what_it_would_do_and_does_nothing(demo_model: ResolvedModel, tmp_path: Path) -> None:
    with adapting(demo_model, tmp_path / "adapt.jsonl", dry_run=True) as server:
        for number in range(10):
            text(server.port, number)
        state = eventually(server.port, lambda state: any(each["event"] == "would_change" for each in state["events"]))
        assert state["dry_run"]
        assert state["changes"] == 0
        assert state["config"]["token_budget"] == START.token_budget
        assert "setpoint_adapt_dry_run 1.0" in ask(server.port, "GET", "/metrics").decode()


def test_drafts_are_turned_off_and_on_and_answers_stay_the_same(demo_model: ResolvedModel, tmp_path: Path) -> None:
    turned: set[str] = set()
    with adapting(demo_model, tmp_path / "adapt.jsonl", start=GUESSING, planner=TurnsDrafts()) as server:
        alone = text(server.port, 0)
        deadline_s = time.monotonic() + WAIT_S
        while turned != {"off", "prompt-lookup"}:
            assert time.monotonic() < deadline_s, turned
            assert text(server.port, 0) == alone
            events = json.loads(ask(server.port, "GET", PATH))["events"]
            turned |= {each["changes"]["speculation"][1] for each in events if "speculation" in each.get("changes", {})}
