"""Health, metrics, token counts and the engine's records, as a measuring client reads them."""

from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families
from scripted_engine import BOS, ScriptedEngine
from serving import CHAT, Served, serving

from setpoint.engine.request import Rejected
from setpoint.server.introspection import SLICE_VALUES, json_slice


def samples(served: Served) -> dict[str, float]:
    """Metric samples by name, those with finish reasons and paths by name and label."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(served.ask("GET", "/metrics").raw.decode()):
        for sample in family.samples:
            extra = [value for name, value in sample.labels.items() if name not in ("model_name", "le")]
            if "le" not in sample.labels:
                found[" ".join([sample.name, *extra])] = sample.value
    return found


def test_health_follows_the_engine() -> None:
    with serving() as served:
        assert served.ask("GET", "/health").json == {"status": "ok"}
        served.engine.failed = True
        reply = served.ask("GET", "/health")
        assert (reply.status, reply.json) == (503, {"status": "failed"})
        assert samples(served)["setpoint_engine_up"] == 0
        assert served.ask("GET", "/setpoint/requests").error["code"] == "engine_error"


def test_metrics_tell_what_happened() -> None:
    with serving() as served:
        served.ask("POST", "/v1/completions", {"prompt": "12345", "stream": True})
        served.ask("POST", "/v1/completions", {"prompt": "12345", "max_tokens": 2})
        served.engine.refuse = Rejected("full", 1.0)
        served.ask("POST", "/v1/completions", {"prompt": "x"})
        served.ask("GET", "/made/up")
        found = samples(served)
    expected = {
        "setpoint_engine_up": 1,
        "setpoint_time_to_first_token_seconds_count": 2,
        "setpoint_inter_token_latency_seconds_count": 4 + 1,
        "setpoint_e2e_request_latency_seconds_count": 2,
        "setpoint_request_queue_time_seconds_count": 2,
        "setpoint_request_queue_time_seconds_sum": 1.0,
        "setpoint_request_success_total stop": 1,
        "setpoint_request_success_total length": 1,
        "setpoint_request_cut_total cancelled": 0,
        "setpoint_num_requests_running": 0,
        "setpoint_num_requests_waiting": 0,
        "setpoint_kv_cache_usage_perc": 0,
        "setpoint_prefix_cache_queries_total": 20,
        "setpoint_prefix_cache_hits_total": 10,
        "setpoint_num_preemptions_total": 3,
        "setpoint_requests_shed_total": 2,
        "setpoint_requests_rejected_total": 1,
        "setpoint_prompt_tokens_total": 12,
        "setpoint_generation_tokens_total": 7,
        "setpoint_http_responses_total /v1/completions 200": 2,
        "setpoint_http_responses_total /v1/completions 503": 1,
        "setpoint_http_responses_total other 404": 1,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_two_apps_share_no_metrics() -> None:
    with serving() as one, serving() as other:
        one.ask("POST", "/v1/completions", {"prompt": "x"})
        assert samples(other)["setpoint_e2e_request_latency_seconds_count"] == 0


def test_ended_requests_from_a_serial_number_on() -> None:
    with serving() as served:
        assert served.ask("GET", "/setpoint/requests").json["requests"] == []
        for name in ("a", "b", "c"):
            served.ask("POST", "/v1/completions", {"prompt": "12"}, {"x-request-id": name})
        body = served.ask("GET", "/setpoint/requests?since=1").json
        assert (body["next"], [row["name"] for row in body["requests"]]) == (3, ["b", "c"])
        assert body["now_s"] == served.engine.steps
        assert body["requests"][0] == {
            "name": "b",
            "arrived_s": 1.0,
            "first_scheduled_s": 1.5,
            "first_token_s": 2.0,
            "ended_s": 3.0,
            "prompt_tokens": 3,
            "cached_tokens": 1,
            "output_tokens": 2,
            "preemptions": 0,
            "finish_reason": "stop",
        }


def test_steps_as_columns() -> None:
    with serving(ScriptedEngine(auto=False)) as served:
        count = 2 * SLICE_VALUES + 3
        served.engine.step_from_outside(count)
        body = served.ask("GET", f"/setpoint/steps?since={count - 3}").json
        assert body == {
            "now_s": count,
            "next": count,
            "columns": {
                "step": [count - 3, count - 2, count - 1],
                "predicted_s": [0.5, None, 0.5],
                "reason": ["echo", "echo", "echo"],
            },
        }
        whole = served.ask("GET", "/setpoint/steps").json["columns"]
        assert whole["step"] == list(range(count))
        assert len(whole["predicted_s"]) == len(whole["reason"]) == count


def test_decisions_as_columns() -> None:
    with serving(ScriptedEngine(auto=False)) as served:
        served.engine.step_from_outside(5)
        body = served.ask("GET", "/setpoint/decisions?since=3").json
        assert body == {
            "now_s": 5,
            "next": 5,
            "columns": {"decision": [3, 4], "time_s": [3.0, 4.0], "operands": [{"x": 1.0}] * 2},
        }


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "", "9" * 30, "%D9%A3"])
def test_a_wrong_since_is_named(since: str) -> None:
    with serving() as served:
        for path in ("requests", "steps", "decisions"):
            reply = served.ask("GET", f"/setpoint/{path}?since={since}")
            assert (reply.status, reply.error["param"]) == (400, "since")


def test_numbers_that_json_cannot_hold_become_null() -> None:
    assert json_slice([1, math.nan, math.inf, -math.inf, None, 0.5, "x"]) == '1, null, null, null, null, 0.5, "x"'
    assert json_slice([]) == ""


@pytest.mark.parametrize("path", ["/setpoint/tokenize", "/tokenize"])
def test_tokenize_counts_exactly(path: str) -> None:
    with serving() as served:
        assert served.ask("POST", path, {"text": "hi"}).json == {
            "tokens": [BOS, 104, 105],
            "count": 3,
            "max_model_len": 256,
        }
        assert served.ask("POST", path, {"prompt": "hi", "add_special_tokens": False}).json["count"] == 2
        chat = served.ask("POST", path, {"messages": CHAT["messages"]}).json
        answer = served.ask("POST", "/v1/chat/completions", CHAT).json
        assert chat["count"] == answer["usage"]["prompt_tokens"] == 19
        assert served.ask("POST", path, raw=b'{"text": "\\ud800"}').status == 400
