"""Axes, series and labels: what the charts are made of."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.record import Phase
from setpoint.record.columns import REQUEST_COLUMNS
from setpoint.report.charts.frame import thin
from setpoint.report.charts.labels import Area, Mark, place_labels
from setpoint.report.charts.samples import RequestSamples
from setpoint.report.charts.scales import Scale, linear_scale, log_scale, tail_scale
from setpoint.report.charts.series import (
    bin_width_s,
    counts_by_time,
    in_flight,
    per_second,
    percentiles_by_time,
    slots,
    stairs,
    window_edges_s,
)
from setpoint.report.charts.svg import tag, words

positive = st.floats(min_value=1e-6, max_value=1e6)


def requests_of(rows: list[dict[str, object]]) -> RequestSamples:
    """Samples of rows that have only the columns a test needs."""
    full = [dict.fromkeys(REQUEST_COLUMNS.names) | {"candidate": "a"} | row for row in rows]
    return RequestSamples.read(pa.Table.from_pylist(full, schema=REQUEST_COLUMNS), "a")


@given(st.lists(positive, min_size=1, max_size=20), st.sampled_from(["linear", "log"]))
def test_scale_holds_its_values_in_order(values: list[float], kind: str) -> None:
    scale = (linear_scale if kind == "linear" else log_scale)(values, 0.0, 100.0)
    pixels = scale.px(np.sort(values))
    assert np.all(np.diff(pixels) >= -1e-9)
    assert pixels.min() >= 0.0
    assert pixels.max() <= 100.0
    ticks = scale.ticks()
    assert ticks == sorted(ticks)
    assert len(ticks) <= 24
    assert all(scale.low <= tick <= scale.high * 1.001 for tick in ticks)


@given(st.lists(positive, min_size=0, max_size=5))
def test_linear_scale_always_has_a_tick(values: list[float]) -> None:
    assert len(linear_scale(values, 0.0, 100.0).ticks(4)) >= 2


def test_tail_scale_gives_each_nine_the_same_room() -> None:
    scale = tail_scale(100_000, 300.0, 0.0)
    steps = [scale.at(0.9) - scale.at(0.99), scale.at(0.99) - scale.at(0.999)]
    assert steps[0] == pytest.approx(steps[1])
    assert scale.ticks() == [0.0, 0.5, 0.9, 0.95, 0.99, 0.999]
    assert tail_scale(50, 300.0, 0.0).ticks() == [0.0, 0.5, 0.9, 0.95, 0.99]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), min_size=1, max_size=40))
def test_in_flight_counts_every_request_once(spans: list[tuple[float, float]]) -> None:
    samples = requests_of([{"sent_s": start, "ended_s": start + took} for start, took in spans])
    times_s, counts = in_flight(samples)
    assert counts.min() >= 0
    assert counts[-1] == 0
    assert counts.max() <= len(spans)
    assert np.all(np.diff(times_s) >= 0)


def test_request_without_an_end_is_in_flight_until_the_end() -> None:
    samples = requests_of([{"sent_s": 1.0, "ended_s": 9.0}, {"sent_s": 2.0, "ended_s": None}])
    times_s, counts = in_flight(samples)
    assert times_s.tolist() == [1.0, 2.0, 9.0, 9.0]
    assert counts.tolist() == [1.0, 2.0, 1.0, 0.0]


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=200), st.integers(1, 50))
def test_slots_keep_the_greatest_value(moments: list[float], most: int) -> None:
    times_s = np.sort(np.array(moments))
    values = np.arange(len(moments), dtype=np.float64)
    end_s = max(float(times_s.max()), 1.0)
    _, kept = slots(times_s, values, end_s, most)
    assert len(kept) <= max(most, 1)
    assert kept.max() == values.max()


def test_arrivals_per_second_add_up() -> None:
    moments_s = np.array([0.1, 0.2, 5.0, 9.9, np.nan])
    width_s = bin_width_s(10.0)
    _, rates = per_second(moments_s, 10.0, width_s)
    assert rates.sum() * width_s == pytest.approx(4)


def test_stairs_hold_each_value_until_the_next() -> None:
    xs, ys = stairs(np.array([0.0, 2.0]), np.array([1.0, 5.0]), 3.0)
    assert xs.tolist() == [0.0, 2.0, 2.0, 3.0]
    assert ys.tolist() == [1.0, 1.0, 5.0, 5.0]


@given(st.integers(0, 10_000), st.integers(2, 100))
def test_thinning_keeps_both_ends(points: int, most: int) -> None:
    kept = thin(points, most)
    assert len(kept) <= most or points <= most
    if points:
        assert kept[0] == 0
        assert kept[-1] == points - 1


def test_names_of_close_marks_do_not_overlap() -> None:
    inside = Area(0, 0, 500, 300)
    marks = [Mark(250.0 + 3 * index, 150.0, 7.0, f"candidate-{index}") for index in range(5)]
    places = place_labels(marks, inside, [])
    assert len({(place.x, place.y) for place in places}) == 5
    assert all(0 <= place.y <= 300 for place in places)


def test_gaps_belong_to_their_own_request_and_phase() -> None:
    samples = requests_of(
        [
            {"phase": "sustained", "token_times_s": [1.0, 1.5, 3.0]},
            {"phase": "burst", "token_times_s": None},
            {"phase": "burst", "token_times_s": [10.0]},
            {"phase": "burst", "token_times_s": [20.0, 20.25]},
        ]
    )
    assert samples.values_s("itl", Phase.SUSTAINED).tolist() == [0.5, 1.5]
    assert samples.values_s("itl", Phase.BURST).tolist() == [0.25]
    assert samples.values_s("itl", Phase.WARMUP).tolist() == []


@given(st.text())
def test_any_text_is_well_formed_xml(text: str) -> None:
    element = ElementTree.fromstring(tag("text", words(text), data_tip=text))
    assert (element.text or "").replace("\r", "") == (element.text or "")


def test_scale_draws_outliers_at_the_edge() -> None:
    scale = Scale("log", 0.1, 10.0, 0.0, 100.0)
    assert scale.px([0.0, 1.0, 1e9]).tolist() == pytest.approx([0.0, 50.0, 100.0])


def test_windows_of_time_never_reach_over_a_phase() -> None:
    moments_s = np.concatenate((np.linspace(0.0, 10.0, 100), np.linspace(10.0, 12.0, 100)))
    edges_s = window_edges_s(moments_s, np.array([0.0, 10.0, 12.0]))
    assert 10.0 in edges_s
    assert (edges_s[0], edges_s[-1]) == (0.0, 12.0)
    assert np.all(np.diff(edges_s) > 0)
    values = np.where(moments_s < 10.0, 1.0, 5.0)
    (low, high) = percentiles_by_time(moments_s, values, edges_s, (50.0, 95.0), least=(1, 1000))
    assert set(low[edges_s[:-1] < 10.0]) == {1.0}
    assert set(low[edges_s[:-1] >= 10.0]) == {5.0}
    assert np.isnan(high).all()


def test_a_window_has_the_percentile_of_its_own_values() -> None:
    rng = np.random.default_rng(5)
    moments_s, values = rng.uniform(0.0, 10.0, 500), rng.exponential(1.0, 500)
    edges_s = np.array([0.0, 4.0, 10.0])
    (found,) = percentiles_by_time(moments_s, values, edges_s, (95.0,), least=(20,))
    for window, (start_s, end_s) in enumerate(itertools.pairwise(edges_s)):
        inside = values[(moments_s >= start_s) & (moments_s < end_s)]
        assert found[window] == np.percentile(inside, 95, method="inverted_cdf")


def test_every_request_is_in_one_bin_of_its_class() -> None:
    moments_s = np.array([0.0, 0.5, 3.0, 9.9, np.nan])
    labels = np.array(["ok", "late", "ok", "ok", "ok"], dtype=object)
    times_s, counts = counts_by_time(moments_s, labels, ["ok", "late", "shed"], 10.0)
    assert counts.shape == (3, len(times_s))
    assert counts.sum(axis=1).tolist() == [3, 1, 0]
