"""The server's own account: scraped pages, its records joined by request id, its clock brought onto the run's axis."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest
from measure_helpers import even_plan, run_against_mock
from mock_server import MockServer

from setpoint.record.columns import DECISION_COLUMNS, STEP_COLUMNS


def since(path: str) -> int:
    return int(parse_qs(urlsplit(path).query)["since"][0])


class RecordPages:
    """setpoint's record pages over what the mock saw, on a clock that is 1,000 s ahead."""

    AHEAD_S = 1000.0

    def __init__(self, mock: MockServer) -> None:
        self._mock = mock
        mock.pages |= {
            "/setpoint/requests": self.requests,
            "/setpoint/steps": self.steps,
            "/setpoint/decisions": self.decisions,
        }

    def _page(self, **more: object) -> dict[str, object]:
        return {"now_s": time.monotonic() + self.AHEAD_S, "next": len(self._mock.seen)} | more

    def requests(self, path: str) -> dict[str, object]:
        entries = []
        for seen in self._mock.seen[since(path) :]:
            arrived_s = seen.arrived_s + self.AHEAD_S
            entries.append(
                {
                    "name": seen.request_id,
                    "arrived_s": arrived_s,
                    "first_scheduled_s": arrived_s + 0.125,
                    "cached_tokens": 5,
                    "preemptions": 0,
                }
            )
        return self._page(requests=entries)

    def steps(self, path: str) -> dict[str, object]:
        first = since(path)
        seen = self._mock.seen[first:]
        columns: dict[str, list[object]] = {
            "step": list(range(first, first + len(seen))),
            "start_s": [one.arrived_s + self.AHEAD_S for one in seen],
            "end_s": [one.arrived_s + self.AHEAD_S + 0.01 for one in seen],
            "running": [1] * len(seen),
            "reason": ["floor"] * len(seen),
        }
        return self._page(columns=columns)

    def decisions(self, path: str) -> dict[str, object]:
        first = since(path)
        seen = self._mock.seen[first:]
        columns: dict[str, list[object]] = {
            "decision": list(range(first, first + len(seen))),
            "time_s": [one.arrived_s + self.AHEAD_S for one in seen],
            "kind": ["admit"] * len(seen),
            "request_id": [one.request_id for one in seen],
            "other_id": [None] * len(seen),
            "operands": [{"waiting": 2.0, "limit_s": 0.5}] * len(seen),
        }
        return self._page(columns=columns)


def test_records_of_our_own_server_are_joined_on_the_clients_axis() -> None:
    result, _ = run_against_mock(even_plan(5), "no_usage", prepare=RecordPages)
    assert result.server.notes == []
    for row in result.outcomes:
        assert row.queue_wait_s == pytest.approx(0.125)
        assert row.cached_tokens == 5
    steps = result.steps("continuous")
    assert steps is not None
    assert steps.schema == STEP_COLUMNS
    assert steps["candidate"].to_pylist() == ["continuous"] * 5
    assert steps["step"].to_pylist() == [0, 1, 2, 3, 4]
    assert steps["prefill_tokens"].null_count == 5
    assert result.server.clock_error_s is not None
    decisions = result.decisions("continuous")
    assert decisions is not None
    assert decisions.schema == DECISION_COLUMNS
    assert decisions["request_id"].to_pylist() == [row.request_id for row in result.outcomes]
    assert decisions["time_s"].to_pylist() == steps["start_s"].to_pylist()
    assert [dict(each) for each in decisions["operands"].to_pylist()] == [{"waiting": 2.0, "limit_s": 0.5}] * 5
    for start_s, row in zip(steps["start_s"].to_pylist(), result.outcomes, strict=True):
        assert row.sent_s is not None
        # The request arrived after it was sent and before it was answered, as the joined clock shows too.
        assert row.headers_s is not None
        error_s = result.server.clock_error_s
        assert row.sent_s - error_s <= start_s <= row.headers_s + error_s


def test_usage_of_the_answer_wins_over_the_servers_record() -> None:
    result, _ = run_against_mock(even_plan(2), "plain", prepare=RecordPages)
    assert [row.cached_tokens for row in result.outcomes] == [3, 3]


def test_metrics_are_scraped_before_and_after() -> None:
    def pages(mock: MockServer) -> None:
        mock.pages["/metrics"] = lambda _: (
            f"vllm:num_preemptions_total {len(mock.seen)}\nvllm:kv_cache_usage_perc 0.{len(mock.seen)}\n"
        )

    result, _ = run_against_mock(even_plan(4), prepare=pages)
    server = result.server
    assert server.metrics["preemptions"][0] == 0
    assert server.metrics["preemptions"][-1] == 4
    assert server.metrics_times_s == sorted(server.metrics_times_s)
    infinity = float("inf")
    assert server.rise("preemptions", -infinity, infinity) == 4
    assert server.peak("kv_usage", -infinity, infinity) == 0.4
    assert server.peak("kv_usage", 1e6, infinity) is None
    assert server.peak("waiting", -infinity, infinity) is None
    assert server.steps is None


def test_server_without_any_page_gives_nulls() -> None:
    result, _ = run_against_mock(even_plan(2))
    assert (result.server.metrics, result.server.requests, result.server.steps) == ({}, {}, None)
    assert result.server.notes == []
    assert result.outcomes[0].queue_wait_s is None


def test_page_that_is_not_as_agreed_is_noted() -> None:
    def pages(mock: MockServer) -> None:
        mock.pages["/setpoint/requests"] = lambda _: {"next": 1, "rows": []}

    result, _ = run_against_mock(even_plan(2), prepare=pages)
    assert result.server.notes
    assert all(note.startswith("/setpoint/requests: a page is not as agreed") for note in result.server.notes)


def test_watching_can_be_left_out() -> None:
    asked: list[str] = []

    def pages(mock: MockServer) -> None:
        mock.pages["/metrics"] = asked.append

    result, _ = run_against_mock(even_plan(1), prepare=pages, watch_server=False)
    assert asked == []
    assert result.server.metrics == {}


def test_kind_of_the_server_is_told() -> None:
    def pages(mock: MockServer) -> None:
        mock.pages["/metrics"] = lambda _: "sglang:num_running_reqs 1\n"

    result, _ = run_against_mock(even_plan(1), prepare=pages)
    assert result.server.kind == "sglang"
    assert result.server.scrape_s_max is not None


def test_counter_that_appears_with_its_first_count_began_at_nought() -> None:
    def pages(mock: MockServer) -> None:
        mock.pages["/metrics"] = lambda _: (
            "dynamo_frontend_queued_requests 0\n" + f"dynamo_frontend_requests_total {len(mock.seen)}\n" * bool(mock.seen)
        )

    result, _ = run_against_mock(even_plan(3), prepare=pages)
    assert result.server.metrics["requests_ended"][0] == 0
    assert result.server.rise("requests_ended", -1e9, 1e9) == 3
