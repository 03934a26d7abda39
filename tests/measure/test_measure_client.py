"""The load generator against a mock whose schedule is known exactly: classes, times, limits, connections."""

from __future__ import annotations

import asyncio
import resource

import numpy as np
import pytest
from measure_helpers import even_plan, run_against_mock
from mock_scripts import BEHAVIOURS
from mock_server import mock_server

from setpoint.measure.client import run_load
from setpoint.measure.event_loop import run
from setpoint.measure.options import Endpoint, LoadOptions
from setpoint.measure.pool import descriptors_for
from setpoint.measure.result import LoadResult, validity
from setpoint.measure.running import Progress
from setpoint.measure.target import Target
from setpoint.record import Phase, RequestClass
from setpoint.report.request_samples import latency_sample, phase_rows, read_requests
from setpoint.requirement import LatencyMetric, Slos
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

# Far above what any loop costs, far below the gaps that a wrong reading of the schedule would show.
TOLERANCE_S = 0.25

OK, SHED, FAILED, UNFINISHED = RequestClass.OK, RequestClass.SHED, RequestClass.FAILED, RequestClass.UNFINISHED

# Behaviour of the mock: class, beginning of the error, finish reason.
EXPECTED: dict[str, tuple[RequestClass, str, str | None]] = {
    "plain": (OK, "", "length"),
    "multi_token": (OK, "", "length"),
    "several_events": (OK, "", "length"),
    "split_event": (OK, "", "length"),
    "stalled": (OK, "", "length"),
    "late_headers": (OK, "", "length"),
    "role_first": (OK, "", "length"),
    "reasoning": (OK, "", "length"),
    "silent_tokens": (OK, "", "length"),
    "crlf": (OK, "", "length"),
    "no_usage": (OK, "", "stop"),
    "until_close": (OK, "", "stop"),
    "interim": (OK, "", "length"),
    "closes_unannounced": (OK, "", "length"),
    "called_text": (OK, "", "length"),
    "called_stream": (OK, "", "length"),
    "running_usage": (OK, "", "length"),
    "logprobs": (OK, "", "stop"),
    "end_token": (OK, "", "stop"),
    "aborted": (FAILED, "stream_error: the server ended the answer with finish_reason 'abort'", "abort"),
    "json_error": (FAILED, "stream_error: no such adapter", None),
    "trailers": (OK, "", "stop"),
    "left_open": (OK, "", "stop"),
    "http_10": (OK, "", "stop"),
    "one_json": (OK, "", "length"),
    "cut": (FAILED, "cut: the server closed the connection inside", None),
    "clean_cut": (FAILED, "cut: the stream ended without", None),
    "reset": (FAILED, "reset: ", None),
    "closed_at_once": (FAILED, "cut: the server closed the connection before", None),
    "stream_error": (FAILED, "stream_error: out of blocks", None),
    "named_error": (FAILED, "stream_error: worker died", None),
    "not_json": (FAILED, "malformed: an event", "length"),
    "empty": (FAILED, "empty: ", "stop"),
    "garbage": (FAILED, "malformed: not an HTTP", None),
    "headers_only": (FAILED, "cut: the server closed the connection inside", None),
    "html": (FAILED, "malformed: the answer is not JSON", None),
    "compressed": (FAILED, "malformed: the answer is compressed (gzip), though", None),
    "redirect": (FAILED, "status: 307 to 'https://else.where/v1/completions', which is not followed", None),
    "frozen": (UNFINISHED, "", None),
    "silent": (UNFINISHED, "", None),
    "status_429": (SHED, "refused with 429", None),
    "status_503": (SHED, "refused with 503", None),
    "status_500": (FAILED, "status: 500 refused with 500", None),
    "status_401": (FAILED, "status: 401 refused with 401", None),
}


IN_ONE_PIECE = ("one_json", "called_stream")


def test_every_behaviour_ends_in_its_class_and_token_times_follow_the_schedule() -> None:
    names = list(BEHAVIOURS)
    assert set(names) == set(EXPECTED)
    result, mock = run_against_mock(even_plan(len(names)), names, drain_s=1.5)
    seen = mock.by_id()
    offset_s = min(seen[row.request_id].arrived_s - (row.sent_s or 0.0) for row in result.outcomes)
    for name, row in zip(names, result.outcomes, strict=True):
        request_class, error, finish_reason = EXPECTED[name]
        assert (name, row.request_class) == (name, request_class), row.error
        assert row.error.startswith(error), name
        assert row.finish_reason == finish_reason, name
        script = seen[row.request_id].script
        due_s = np.array(script.token_s) + seen[row.request_id].arrived_s - offset_s
        if name in IN_ONE_PIECE:  # A stream was asked for: all tokens come with the answer.
            due_s = np.full(5, seen[row.request_id].arrived_s + script.writes[0][0] - offset_s)
        assert len(row.token_times_s) == len(due_s), name
        if name != "silent_tokens":
            assert row.output_tokens == len(due_s), name
        late_s = row.token_times_s - due_s
        assert (late_s > -0.01).all(), name
        assert (late_s < TOLERANCE_S).all(), name
        assert row.ttft_s is None or row.ttft_s >= 0
        assert (row.e2e_s is not None) == (request_class is OK), name
    assert sum(result.counts().values()) == len(names)
    rows = dict(zip(names, result.outcomes, strict=True))
    stall_s = rows["stalled"].max_gap_s
    assert stall_s is not None
    assert 0.3 < stall_s < 0.32 + TOLERANCE_S
    multi = np.diff(rows["multi_token"].token_times_s)
    assert (multi == 0).sum() == 8  # Four chunks of three tokens.
    assert rows["status_429"].retry_after_s == 2.0
    assert rows["status_503"].retry_after_s == 1.5
    assert {name for name, row in rows.items() if row.in_one_piece} == set(IN_ONE_PIECE)
    assert rows["interim"].retry_after_s is None
    assert all(row.attempts == 1 for row in rows.values())
    assert rows["one_json"].ttft_s == rows["one_json"].e2e_s
    assert rows["one_json"].cached_tokens == 4
    # A stream was asked for every time: what failed without a token is infinitely late in the check of first tokens.
    assert all(row.streaming for row in rows.values())
    table = phase_rows(result.requests("mock"), Phase.SUSTAINED)
    first_tokens = latency_sample(read_requests(table), LatencyMetric.TTFT, failures_infinite=True)
    assert np.isinf(first_tokens.values).sum() == result.counts()[FAILED]


def test_request_holds_the_planned_prompt_and_the_options() -> None:
    plan = even_plan(1, prompt=(5, 6, 7))
    _, mock = run_against_mock(plan, extra_body={"top_k": 3}, run_id="run", seed=9)
    seen = mock.seen[0]
    assert seen.path == "/v1/completions"
    assert seen.headers["x-request-id"] == "run-0"
    assert seen.headers["host"] == mock.url.removeprefix("http://")
    assert {key: value for key, value in seen.body.items() if key != "mock"} == {
        "model": "mock-model",
        "prompt": [5, 6, 7],
        "max_tokens": 6,
        "temperature": 0.0,
        "seed": 9,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": 3,
    }


def test_chat_endpoint_sends_a_message() -> None:
    result, mock = run_against_mock(even_plan(2), "reasoning", endpoint=Endpoint.CHAT)
    assert mock.seen[0].path == "/v1/chat/completions"
    assert mock.seen[0].body["messages"] == [{"role": "user", "content": "a b c"}]
    assert [row.output_tokens for row in result.outcomes] == [4, 4]


def test_chat_endpoint_refuses_token_ids() -> None:
    with pytest.raises(ValueError, match="endpoint: chat takes text prompts"):
        run_against_mock(even_plan(1, prompt=(1, 2)), endpoint=Endpoint.CHAT)


def test_answer_that_is_not_streamed_has_only_e2e() -> None:
    result, mock = run_against_mock(even_plan(3), "one_json", streaming=False)
    assert mock.seen[0].body["stream"] is False
    assert "stream_options" not in mock.seen[0].body
    for row in result.outcomes:
        assert row.e2e_s is not None
        assert row.e2e_s > 0.045  # Loops round timers to milliseconds.
        assert (row.ttft_s, row.tpot_s, row.max_gap_s) == (None, None, None)
        assert (row.prompt_tokens, row.output_tokens, row.cached_tokens) == (7, 5, 4)


def test_one_after_the_other_shares_a_connection() -> None:
    result, _ = run_against_mock(even_plan(4, gap_s=0.4), "status_429")
    assert result.client.connections_opened == 1
    assert [row.connected_s is None for row in result.outcomes] == [False, True, True, True]


def test_open_loop_sends_whatever_is_still_running() -> None:
    result, mock = run_against_mock(even_plan(20, gap_s=0.001), "stalled")
    assert mock.open_peak == 20
    assert result.client.held_back == 0
    assert result.counts()[OK] == 20


def test_limit_in_flight_holds_requests_back_and_counts_their_waiting() -> None:
    result, mock = run_against_mock(even_plan(6, gap_s=0.001), "plain", max_in_flight=2)
    assert mock.open_peak <= 2
    assert result.client.held_back >= 4
    assert result.counts()[OK] == 6
    last = result.outcomes[-1]
    # Two rounds of 140 ms went before it: the wait is in its latency, and the client did not lag.
    assert last.sent_s is not None
    assert last.sent_s - last.intended_s > 0.25
    assert last.ttft_s is not None
    assert last.ttft_s > 0.25
    assert last.dispatched_s is not None
    assert last.dispatched_s < last.sent_s


def test_what_is_not_sent_before_the_end_is_dropped() -> None:
    result, mock = run_against_mock(even_plan(5, gap_s=0.001), "silent", max_in_flight=2, drain_s=0.2)
    counts = result.counts()
    assert (counts[UNFINISHED], counts[RequestClass.DROPPED]) == (2, 3)
    assert len(mock.seen) == 2
    assert all(row.sent_s is None for row in result.outcomes if row.request_class is RequestClass.DROPPED)
    assert validity(result, Slos()).reasons == ["Not one request got an answer from the server: " + _drop_words(result)]


def _drop_words(result: LoadResult) -> str:
    return next(row.error for row in result.outcomes if row.error) + "."


def test_connections_are_bounded_by_the_open_files_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(300, before[1]), before[1]))
        assert descriptors_for(10) == 10
        assert 1 <= descriptors_for(400) <= 400
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(464, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_timeout_is_a_failure_of_its_own() -> None:
    result, _ = run_against_mock(even_plan(2), ["frozen", "silent"], request_timeout_s=0.3)
    assert [row.request_class for row in result.outcomes] == [FAILED, FAILED]
    assert all(row.error == "timeout: no complete answer within 0.3 s" for row in result.outcomes)
    assert len(result.outcomes[0].token_times_s) == 2


def test_refused_connections_are_failures_and_the_run_is_invalid() -> None:
    async def main() -> LoadResult:
        async with mock_server() as mock:
            url = mock.url
        return await run_load(Target(url), even_plan(3))

    result = run(main())
    assert [row.error.split(":")[0] for row in result.outcomes] == ["refused"] * 3
    verdict = validity(result, Slos())
    assert not verdict.valid
    assert verdict.reasons[0].startswith("Not one request got an answer from the server: refused")


def test_unknown_host_is_a_failure() -> None:
    result = run(run_load(Target("http://no-such-host.invalid:1"), even_plan(1)))
    assert result.outcomes[0].error.startswith("unreachable: no-such-host.invalid:1")


def test_plan_without_requests() -> None:
    result, _ = run_against_mock(even_plan(0, end_s=1.0))
    assert result.outcomes == []
    assert validity(result, Slos()).reasons == ["The plan held no request."]


def test_plan_out_of_order_is_an_error() -> None:
    plan = even_plan(2)
    plan.requests.reverse()
    with pytest.raises(ValueError, match=r"plan: request 0 is intended at 0\.0 s, before 0\.01 s"):
        run_against_mock(plan)


def test_exception_of_the_progress_callback_ends_the_run() -> None:
    def fail(progress: Progress) -> None:
        raise RuntimeError("no more paper")

    with pytest.raises(RuntimeError, match="no more paper"):
        run_against_mock(even_plan(3), "silent", on_progress=fail)


def test_progress_follows_the_run_and_starts_anew_with_each_phase() -> None:
    spans = [PhaseSpan(Phase.WARMUP, 0.0, 0.5), PhaseSpan(Phase.SUSTAINED, 0.5, 1.5)]
    requests = [
        PlannedRequest(index, index * 0.05, Phase.WARMUP if index < 10 else Phase.SUSTAINED, "a", 7, 6) for index in range(30)
    ]
    plan = LoadPlan(0, spans, requests, True)
    shown: list[Progress] = []
    result, _ = run_against_mock(plan, on_progress=shown.append)
    assert {progress.phase for progress in shown} == {Phase.WARMUP, Phase.SUSTAINED}
    last = shown[-1]
    assert last.finished
    assert (last.sent, last.done, last.in_flight, last.offered) == (30, 30, 0, 30)
    assert last.goodput_fraction == 1.0
    assert last.ttft_p50_s is not None
    assert 0.03 < last.ttft_p50_s < 0.04 + TOLERANCE_S
    assert [row.phase for row in result.outcomes] == [request.phase for request in requests]


def test_runs_on_the_standard_event_loop() -> None:
    async def main() -> LoadResult:
        async with mock_server() as mock:
            return await run_load(Target(mock.url), even_plan(5), LoadOptions(extra_body={"mock": "plain"}))

    result = asyncio.run(main())
    assert result.counts()[OK] == 5
    assert all(len(row.token_times_s) == 6 for row in result.outcomes)


def test_server_that_closes_idle_connections_causes_no_failure() -> None:
    result, _ = run_against_mock(even_plan(6, gap_s=0.2), "until_close")
    assert result.counts()[OK] == 6
    assert result.client.connections_opened == 6


def test_request_is_not_sent_into_a_close_that_nobody_announced() -> None:
    result, mock = run_against_mock(even_plan(30, gap_s=0.001), "closes_unannounced", max_in_flight=3)
    assert result.counts()[OK] == 30
    assert mock.open_peak <= 3


def test_connections_are_used_again_at_once_where_the_server_keeps_them() -> None:
    result, mock = run_against_mock(even_plan(30, gap_s=0.001), "status_500", max_in_flight=3)
    assert mock.open_peak <= 3
    assert result.client.connections_opened <= 6


def test_answer_that_the_server_leaves_open_ends_when_it_is_done() -> None:
    result, _ = run_against_mock(even_plan(2), "left_open", max_in_flight=1)
    first, second = result.outcomes
    assert (first.request_class, second.request_class) == (OK, OK)
    assert first.ended_s is not None
    assert first.ended_s == first.last_token_s
    assert result.duration_s < 15.0


def test_field_that_is_none_is_left_out_of_the_body() -> None:
    _, mock = run_against_mock(even_plan(1), extra_body={"stream_options": None, "temperature": None, "top_p": 0.5})
    assert mock.seen[0].body.keys() == {"model", "seed", "ignore_eos", "stream", "top_p", "mock", "max_tokens", "prompt"}


def test_planned_length_goes_under_the_name_the_server_knows_or_is_left_out() -> None:
    _, mock = run_against_mock(even_plan(1), max_completion_tokens=True)
    assert mock.seen[0].body["max_completion_tokens"] == 6
    assert "max_tokens" not in mock.seen[0].body
    _, mock = run_against_mock(even_plan(1), extra_body={"max_tokens": None, "max_completion_tokens": 9})
    assert mock.seen[0].body["max_completion_tokens"] == 9
    assert "max_tokens" not in mock.seen[0].body
    with pytest.raises(ValueError, match="extra_body: max_tokens come from the plan"):
        LoadOptions(extra_body={"max_tokens": 9})
    with pytest.raises(ValueError, match="extra_body: max_completion_tokens come from the plan"):
        LoadOptions(extra_body={"max_completion_tokens": 9}, max_completion_tokens=True)


@pytest.mark.parametrize(("endpoint", "path"), [(Endpoint.COMPLETIONS, "completions"), (Endpoint.CHAT, "chat/completions")])
def test_requests_go_to_the_version_of_the_url(endpoint: Endpoint, path: str) -> None:
    async def main() -> list[str]:
        async with mock_server() as mock:
            for base in ("", "/v1", "/v3", "/v1beta/openai"):
                options = LoadOptions(endpoint=endpoint, extra_body={"mock": "plain"}, watch_server=False)
                await run_load(Target(mock.url + base), even_plan(1), options)
            return [seen.path for seen in mock.seen]

    assert run(main()) == [f"/{base}/{path}" for base in ("v1", "v1", "v3", "v1beta/openai")]
