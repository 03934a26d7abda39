"""Every way a request can end, over HTTP, and what the metrics then say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from scripted_engine import ScriptedEngine
from serving import Served, serving

from setpoint.engine.request import Delta, EngineFailed, FinishReason, InvalidRequest, Rejected
from setpoint.server.live.checks import TTFT, LatencyCheck, Objectives

ASK = {"prompt": "12345", "stream": True}
LINE = re.compile(r"setpoint_(\w+)\{(.*)\} (\S+)")


def scraped(served: Served) -> dict[str, float]:
    """Metrics by name and the values of their labels but the model's."""
    found = {}
    for line in served.ask("GET", "/metrics").raw.decode().splitlines():
        if (match := LINE.fullmatch(line)) is not None:
            labels = [value for name, value in re.findall(r'(\w+)="([^"]*)"', match[2]) if name != "model_name"]
            found[" ".join([match[1], *labels])] = float(match[3])
    return found


def ended(served: Served) -> dict[str, float]:
    """Classes that any request ended in."""
    values = scraped(served)
    prefix = "requests_ended_total "
    classes = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix) and value}
    assert values["requests_offered_total"] == sum(classes.values()) + values["requests_unfinished"]
    return classes


def ask(served: Served, **headers: str) -> None:
    served.ask("POST", "/v1/completions", ASK, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("prepare", "headers", "expected"),
    [
        (None, {}, {"ok": 1}),
        (None, {"x-slo-ttft-ms": "60000", "x-slo-e2e-ms": "60000"}, {"ok": 1}),
        (None, {"x-slo-e2e-ms": "0.001"}, {"late": 1}),
        (Rejected("queue_full waiting=3 max_waiting=3", 1.5), {}, {"shed": 1}),
        (Delta("", (), FinishReason.SHED, "shed: too late (slack)", 2.0), {}, {"shed": 1}),
        (Delta("", (), FinishReason.ERROR, "broken"), {}, {"failed": 1}),
        (EngineFailed("gone"), {}, {"failed": 1}),
        (InvalidRequest("too long", "prompt"), {}, {}),
    ],
)
def test_one_request_in_one_class(
    prepare: Exception | Delta | None, headers: dict[str, str], expected: dict[str, float], stream: bool
) -> None:
    engine = ScriptedEngine()
    if isinstance(prepare, Exception):
        engine.refuse = prepare
    engine.first = prepare if isinstance(prepare, Delta) else None
    with serving(engine) as served:
        served.ask("POST", "/v1/completions", {**ASK, "stream": stream}, headers)
        assert ended(served) == expected
        assert scraped(served)["requests_invalid_total"] == (not expected)


def test_only_a_stream_is_late_by_its_first_token() -> None:
    with serving() as served:
        served.ask("POST", "/v1/completions", ASK, {"x-slo-ttft-ms": "0.001"})
        served.ask("POST", "/v1/completions", {**ASK, "stream": False}, {"x-slo-ttft-ms": "0.001"})
        assert ended(served) == {"late": 1, "ok": 1}
        values = scraped(served)
        assert (values["slo_judged_total ttft"], values["slo_met_total ttft"]) == (1, 0)


def test_an_error_in_the_stream_is_a_failure_and_not_shed() -> None:
    for delta in (Delta("", (), FinishReason.ERROR, "broken"), Delta("", (), FinishReason.SHED, "shed: late", 1.0)):
        engine = ScriptedEngine()
        engine.break_after, engine.break_with = 2, delta
        with serving(engine) as served:
            assert served.ask("POST", "/v1/completions", ASK).status == 200
            assert ended(served) == {"failed": 1}


def test_who_leaves_is_cancelled_and_until_then_unfinished() -> None:
    with serving(ScriptedEngine(auto=False)) as served:
        with served.open("/v1/completions", ASK):
            served.engine.wait_until(lambda: len(served.engine.streams) == 1)
            values = scraped(served)
            assert (values["requests_offered_total"], values["requests_unfinished"]) == (1, 1)
        served.engine.wait_until(lambda: not served.engine.streams)
        # The engine lets go of a request a moment before its endpoint does.
        assert _eventually(lambda: ended(served), {"cancelled": 1})


def test_shed_requests_are_told_by_reason_and_wait() -> None:
    engine = ScriptedEngine()
    with serving(engine) as served:
        for reason, wait_s in (
            ("queue_full waiting=3", 1.5),
            ("ttft_would_be forecast_s=2", 0.2),
            ("queue_full waiting=3", 30.0),
        ):
            engine.refuse = Rejected(reason, wait_s)
            ask(served)
        values = scraped(served)
    assert values["shed_requests_total queue_full"] == 2
    assert values["shed_requests_total ttft_would_be"] == 1
    assert (values["retry_after_seconds_count"], values["retry_after_seconds_sum"]) == (3, 31.7)
    assert values["retry_after_seconds_bucket 0.2"] == 1
    assert values["retry_after_seconds_bucket +Inf"] == 3


def test_the_live_answer_counts_the_same_requests() -> None:
    wanted = Objectives("asked", (LatencyCheck(TTFT, 95.0, 60.0),), shed_fraction_max=0.1)
    with serving(objectives=wanted, about={"mode": "setpoint"}) as served:
        ask(served, x_slo_ttft_ms="60000")
        found = _eventually_with(lambda: served.ask("GET", "/setpoint/live").json, lambda body: body["window"]["offered"] == 1)
        assert (found["requirement"], found["about"], found["health"]) == ("asked", {"mode": "setpoint"}, "ok")
        assert [(each["metric"], each["held"]) for each in found["checks"]] == [("ttft", True), ("shed", True)]
        assert found["window"]["ended"]["ok"] == 1
        values = scraped(served)
        assert (values["window_requirement_held ttft_p95"], values["window_requirement_held shed_max"]) == (1, 1)
        assert (values["window_goodput_fraction"], values["window_slo_attainment ttft"]) == (1, 1)
        assert 0 < values["window_latency_seconds 0.95 ttft"] < 60
        row = dict(zip(found["columns"], found["samples"][-1], strict=True))
        assert row["kv"] == 0.0
        later = served.ask("GET", f"/setpoint/live?since={found['next']}").json
        assert len(later["samples"]) == later["next"] - found["next"]


def _eventually(look: Callable[[], object], expected: object) -> bool:
    """Whether ``look`` comes to give ``expected``; every look is a request, at most 1,000 of them."""
    return any(look() == expected for _ in range(1000))


def _eventually_with(look: Callable[[], dict[str, Any]], true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first answer of which ``true`` holds: the view ticks once a second, so thousands of looks are enough."""
    for _ in range(20_000):
        found = look()
        if true(found):
            return found
    raise AssertionError(f"never came so far: {json.dumps(found)[:500]}")
