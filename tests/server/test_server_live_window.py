"""Window arithmetic on injected time, percentiles from bins, and what a limit is worth over the last minute."""

from __future__ import annotations

import json
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_engine import ScriptedEngine

from setpoint.engine.request import FinishReason, GenerationRequest
from setpoint.policy.views import RequestLimits
from setpoint.server import errors
from setpoint.server.live.account import RequestAccount
from setpoint.server.live.book import TOKEN_BUCKETS_S, Ending
from setpoint.server.live.checks import E2E, ITL, TTFT, LatencyCheck, Objectives, SpreadCheck
from setpoint.server.live.histogram import DurationCounts, fine_bounds, percentile_s, within
from setpoint.server.live.payload import live_json
from setpoint.server.live.view import SAMPLE_COLUMNS, SAMPLES_KEPT, LiveView
from setpoint.server.live.window import LEAST_SLICE_S, Slice, SliceRing

SECONDS = st.floats(0.0, 1000.0)
WANTED = Objectives(
    name="chat",
    latency=(LatencyCheck(TTFT, 90.0, 0.5), LatencyCheck(ITL, 99.0, 0.06), LatencyCheck(E2E, 95.0, 5.0)),
    spread=(SpreadCheck(TTFT, 20.0),),
    goodput_fraction_min=0.7,
    shed_fraction_max=0.2,
)
LIMITS = RequestLimits(ttft_s=0.5, itl_s=0.06, e2e_s=5.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 30.0), st.integers(0, 100)), min_size=1, max_size=60), st.floats(0.5, 200.0))
def test_a_window_is_the_sum_of_the_slices_that_ended_in_it(spans: list[tuple[float, int]], length_s: float) -> None:
    ring = SliceRing(200.0)
    bins = (np.array([1]), np.array([2]))
    slices, now_s = [], 0.0
    for span_s, count in spans:
        slices.append(Slice(now_s, now_s + span_s, {"ok": count}, {"ttft": bins}))
        now_s += span_s
        ring.add(slices[-1])
        ring.check_integrity()
    inside = [each for each in slices if each.end_s > now_s - length_s]
    found = ring.newest(length_s)
    assert found.count("ok") == sum(each.counts["ok"] for each in inside)
    assert found.length_s == pytest.approx(sum(each.end_s - each.start_s for each in inside))
    assert found.judged["ttft"].tolist() == [len(inside)]
    assert found.every["ttft"].tolist() == [3 * len(inside)]


def test_an_empty_ring_has_no_rates() -> None:
    span = SliceRing(60.0).newest(60.0)
    assert (span.count("ok"), span.rate("ok"), span.share("ok", "ok", "late")) == (0, None, None)


@settings(deadline=None)
@given(st.lists(SECONDS, min_size=1, max_size=200), st.integers(1, 999).map(lambda tenth: tenth / 10), st.floats(0.001, 100.0))
def test_percentiles_are_close_and_shares_within_a_limit_exact(values: list[float], percent: float, limit_s: float) -> None:
    bounds = fine_bounds([limit_s], TOKEN_BUCKETS_S)
    counts = DurationCounts(bounds)
    for value in values:
        counts.observe(value)
    below, total, sum_s = counts.totals(TOKEN_BUCKETS_S)
    assert below == [sum(value <= bucket for value in values) for bucket in TOKEN_BUCKETS_S]
    assert total == len(values)
    assert sum_s == pytest.approx(sum(values))
    bins = counts.cut()
    assert within(bins, bounds, limit_s) == sum(value <= limit_s for value in values)
    found = percentile_s(bins, bounds, percent)
    exact = sorted(values)[max(0, int(np.ceil(percent / 100 * len(values) - 1e-9)) - 1)]
    assert found is not None
    if exact > bounds[-1]:
        assert found == inf
    else:
        assert exact / 1.06 - 1e-4 <= found <= exact * 1.06 + 1e-4
    # Whether the limit is held reads the same from the percentile as from the share.
    held = within(bins, bounds, limit_s) >= percent / 100 * len(values) - 1e-9
    assert found <= limit_s * (1 + 1e-9) if held else found >= limit_s * (1 - 1e-9)


def test_a_cut_empties_the_bins_but_not_the_totals() -> None:
    counts = DurationCounts(fine_bounds((), TOKEN_BUCKETS_S))
    counts.observe(0.01)
    counts.lost += 1
    counts.zeros(2)
    first, second = counts.cut(), counts.cut()
    assert (first.sum(), first[-1], second.sum()) == (4, 1, 0)
    assert (counts.count, counts.totals([0.01])) == (3, ([3], 3, 0.01))


def served(view: LiveView, *, first_s: float = 0.1, gap_s: float = 0.01, tokens: int = 5) -> Ending | None:
    account = RequestAccount(view.book, "r")
    account.asked(GenerationRequest((1,), limits=LIMITS), 0.0)
    clock = account.clock()
    now_s = first_s
    clock.tokens(1, now_s)
    for _ in range(tokens - 1):
        now_s += gap_s
        clock.tokens(1, now_s)
    clock.finished(now_s)
    clock.ended(FinishReason.STOP)
    return account.close(now_s)


def refused(view: LiveView, error: errors.ApiError, name: str = "r") -> None:
    account = RequestAccount(view.book, name)
    account.asked(GenerationRequest((1,), limits=LIMITS), 0.0)
    account.refused(error)
    account.close(0.0)


def states(view: LiveView) -> dict[str, bool | None]:
    return {f"{each.metric} {each.statistic}": each.held for each in view.checks()}


def test_the_requirement_over_the_last_minute() -> None:
    view = LiveView(ScriptedEngine(), WANTED)
    view.tick(100.0)
    assert set(states(view).values()) == {None}
    for _ in range(9):
        assert served(view) is Ending.OK
    assert served(view, first_s=0.7) is Ending.LATE
    view.tick(101.0)
    assert set(states(view).values()) == {True}
    ttft = view.checks()[0]
    assert (ttft.judged, ttft.attained, ttft.needed) == (10, 0.9, 0.9)
    assert served(view, first_s=0.7) is Ending.LATE
    view.tick(102.0)
    assert states(view) == {
        "ttft p90": False, "itl p99": True, "e2e p95": True, "ttft spread": True, "goodput min": True, "shed max": True,
    }  # fmt: skip
    for _ in range(5):
        refused(view, errors.overloaded("queue_full waiting=9", 1.0))
    view.tick(103.0)
    assert (states(view)["goodput min"], states(view)["shed max"]) == (False, False)
    # A minute later none of this is in the window.
    view.tick(163.5)
    assert set(states(view).values()) == {None}
    view.check_integrity()


def test_failures_put_a_percentile_beyond_all_values() -> None:
    view = LiveView(ScriptedEngine(), WANTED)
    view.tick(0.0)
    served(view)
    refused(view, errors.engine_error("broken"))
    view.tick(1.0)
    ttft = view.checks()[0]
    assert (ttft.value, ttft.judged, ttft.held) == (inf, 2, False)
    shown = json.loads(live_json(view, 0, now_s=1.0, model="m", health="ok"))["checks"][0]
    assert (shown["value"], shown["unbounded"]) == (None, True)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 3), st.integers(0, 3)), max_size=40), st.integers(0, 50))
def test_samples_add_up_to_the_totals_whenever_ticks_come(ticks: list[tuple[float, int, int]], since: int) -> None:
    view = LiveView(ScriptedEngine(), WANTED)
    now_s = 5.0
    view.tick(now_s)
    for after_s, good, shed in ticks:
        for _ in range(good):
            served(view)
        for _ in range(shed):
            refused(view, errors.overloaded("queue_full", 1.0))
        now_s += after_s
        view.tick(now_s)
    view.tick(now_s + 1.0)
    rows, following = view.samples(0)
    samples = [dict(zip(SAMPLE_COLUMNS, json.loads(row), strict=True)) for row in rows]
    assert sum(each["ok"] for each in samples) == view.book.ended[Ending.OK] == sum(good for _, good, _ in ticks)
    assert sum(each["shed"] for each in samples) == view.book.ended[Ending.SHED] == sum(shed for _, _, shed in ticks)
    assert sum(each["offered"] for each in samples) == view.book.offered
    assert sum(each["span_s"] for each in samples) == pytest.approx(view.up_s, rel=1e-3)
    assert all(each["span_s"] >= LEAST_SLICE_S - 1e-4 for each in samples)
    assert view.samples(since) == (rows[since:], following)
    view.check_integrity()


def test_what_is_kept_is_bounded() -> None:
    view = LiveView(ScriptedEngine())
    for second in range(2 * SAMPLES_KEPT):
        view.tick(float(second))
    rows, following = view.samples(0)
    assert (len(rows), following) == (SAMPLES_KEPT, 2 * SAMPLES_KEPT - 1)
    assert view.samples(following - 3)[0] == rows[-3:]
    assert view.window().length_s == 60.0


def test_an_engine_that_failed_and_one_that_starts_anew() -> None:
    engine = ScriptedEngine()
    view = LiveView(engine)
    engine.steps = 50
    view.tick(0.0)
    engine.failed = True
    view.tick(1.0)
    assert view.gauges is None
    assert json.loads(live_json(view, 0, now_s=1.0, model="m", health="failed"))["engine"] is None
    engine.failed, engine.steps = False, 3
    view.tick(2.0)
    assert view.window().count("steps") == 3


def test_the_payload_holds_texts_as_they_are() -> None:
    """Escaping is the page's: JSON carries what came, and is JSON whatever that was."""
    view = LiveView(ScriptedEngine(), WANTED, {"mode": "<b>", "threads": None})
    view.tick(0.0)
    refused(view, errors.overloaded("ttft_would_be over_s=0.33 ttft_s=0.83 ttft_limit_s=0.5", 2.0), "</script><img>")
    view.tick(1.0)
    found = json.loads(live_json(view, 0, now_s=3.0, model="m", health="ok"))
    assert found["refusals"][0] == {
        "ago_s": 3.0, "name": "</script><img>", "what": "first token too late", "retry_after_s": 2.0,
        "why": "The first token would come after 830 ms, 500 ms are allowed",
    }  # fmt: skip
    assert found["about"] == {"mode": "<b>", "threads": None}
    assert found["sheds"] == [{"what": "first token too late", "count": 1}]
    assert found["window"]["ended"] == {"ok": 0, "late": 0, "shed": 1, "failed": 0, "cancelled": 0}
    assert len(found["samples"]) == found["next"] == 1
