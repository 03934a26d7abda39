"""What must hold: the declared limits, one on refusals where nothing was said of them, and that the load is kept up with."""

from __future__ import annotations

import pytest

from setpoint.plan.identity import requirement_id
from setpoint.plan.limits import BACKLOG, IMPLIED_BACKLOG, limit_name, limit_number, limits_of, ttft_places
from setpoint.record import Phase
from setpoint.requirement import Requirement, parse_requirement

BASE = "name: chat\nprofile: {prompt_tokens: 128, output_tokens: 64, arrival: {rate: 2/s}}\n"


def requirement(more: str = "") -> Requirement:
    return parse_requirement(BASE + more, "file")


def test_refusals_are_limited_where_the_requirement_is_silent() -> None:
    (ttft, shed, _) = limits_of(requirement("slo: {ttft: {p99.5: 300ms}}\n"))
    assert (ttft.key, ttft.limit, ttft.implied) == ("sustained ttft p99.5", 0.3, False)
    assert (shed.key, shed.implied) == ("sustained shed_fraction max", True)
    assert abs(shed.limit - 0.005) < 1e-12


def test_a_limit_on_goodput_covers_refusals() -> None:
    assert [limit.key for limit in limits_of(requirement("slo: {goodput_fraction: 95%}\n"))] == [
        "sustained goodput_fraction min",
        "sustained backlog_fraction max",
    ]


def test_a_declared_limit_on_refusals_replaces_the_implied_one() -> None:
    (shed, _) = limits_of(requirement("slo: {shed_fraction: 5%}\n"))
    assert (shed.limit, shed.implied) == (0.05, False)


@pytest.mark.parametrize("slo", ["", "slo: {itl: {p95: 50ms}}\n", "slo: {ttft: {p95: 1s}}\n", "slo: {goodput_fraction: 90%}\n"])
def test_whatever_is_limited_the_load_is_kept_up_with(slo: str) -> None:
    (backlog,) = [limit for limit in limits_of(requirement(slo)) if limit.metric == BACKLOG]
    assert (backlog.phase, backlog.limit, backlog.implied) == (Phase.SUSTAINED, IMPLIED_BACKLOG, True)
    assert (limit_name(backlog), limit_number(backlog, backlog.limit)) == ("backlog", "3 %")


def test_a_burst_has_limits_of_its_own() -> None:
    text = BASE.replace("arrival: {rate: 2/s}", "arrival: {rate: 2/s}, burst: {rate: 3x, duration: 5s}")
    found = limits_of(parse_requirement(text + "slo_burst: {e2e: {p95: 4s}}\n", "file"))
    assert [limit.key for limit in found] == [
        "sustained shed_fraction max",
        "sustained backlog_fraction max",
        "burst e2e p95",
        "burst shed_fraction max",
    ]


def test_the_id_is_of_what_is_asked_and_not_of_how_it_is_written() -> None:
    one = requirement("objective: max_goodput\nslo: {ttft: {p95: 300ms}}\n")
    same = requirement("description: a sentence\nslo: {ttft: {p95: 0.3s}}\n")
    assert requirement_id(one) == requirement_id(same)
    assert requirement_id(one) != requirement_id(requirement("slo: {ttft: {p95: 301ms}}\n"))
    assert requirement_id(one) == "sp-" + requirement_id(one)[3:].lower()
    assert len(requirement_id(one)) == 15


def test_limits_on_ttft_are_those_on_its_percentiles() -> None:
    limits = limits_of(requirement("slo: {itl: {p95: 50ms}, ttft: {p50: 100ms, p95: 300ms}, e2e: {p95: 9s}}\n"))
    assert {limits[place].key for place in ttft_places(limits)} == {"sustained ttft p50", "sustained ttft p95"}
