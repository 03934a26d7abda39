"""``--assert``: what is read from it, what is refused, and which limits follow from it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.loop.asserts import asserted_slos, parse_assertion, parse_assertions, with_asserted_limits
from setpoint.loop.describe import described_requirement
from setpoint.loop.errors import BadInput
from setpoint.loop.flags import LoadFlags
from setpoint.record import Phase
from setpoint.requirement import LatencyMetric, LatencySlo, parse_requirement

READ = [
    ("ttft_p99<500ms", "percentile", "ttft", "at_most", 0.5, 99.0),
    ("itl_p99.9 <= 0.2s", "percentile", "itl", "at_most", 0.2, 99.9),
    ("e2e_p999<3s", "percentile", "e2e", "at_most", 3.0, 99.9),
    ("queue_wait_p50<1ms", "percentile", "queue_wait", "at_most", 0.001, 50.0),
    ("max_gap_p95<1s", "percentile", "max_gap", "at_most", 1.0, 95.0),
    ("TTFT_P50>10ms", "percentile", "ttft", "at_least", 0.01, 50.0),
    ("tpot_mean<30ms", "mean", "tpot", "at_most", 0.03, None),
    ("ttft_max<2s", "max", "ttft", "at_most", 2.0, None),
    ("spread_e2e<3x", "spread", "e2e", "at_most", 3.0, None),
    ("goodput>=0.99", "fraction", "goodput", "at_least", 0.99, None),
    ("goodput>=99%", "fraction", "goodput", "at_least", 0.99, None),
    ("goodput>=1", "fraction", "goodput", "at_least", 1.0, None),
    ("shed<1%", "fraction", "shed", "at_most", 0.01, None),
    ("failed<=0", "fraction", "failed", "at_most", 0.0, None),
    ("failed<1", "count", "failed", "at_most", 0.0, None),
    ("unfinished<=3", "count", "unfinished", "at_most", 3.0, None),
    ("ok>100", "count", "ok", "at_least", 101.0, None),
    ("goodput_rps>2/s", "rate", "goodput_rps", "at_least", 2.0, None),
    ("output_tokens_per_s>1000", "rate", "output_tokens_per_s", "at_least", 1000.0, None),
    ("requests_per_s>=90/min", "rate", "requests_per_s", "at_least", 1.5, None),
]
REFUSED = [
    "", "ttft", "ttft<500ms", "ttft_p99", "ttft_p99=500ms", "ttft_p99==500ms", "ttft_p0<1s", "ttft_p100<1s", "latency_p99<1s",
    "ttft_p99<500", "ttft_p99<fast", "goodput>2", "night:ttft_p99<1s", "spread_ttft<wide", "stalled<1%", "stalled_500<1%",
    "goodput_rps>many", "failed<x", "ttft_p99 < ",
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "metric", "sense", "limit", "percent"), READ, ids=[entry[0] for entry in READ])
def test_claims_are_read(text: str, kind: str, metric: str, sense: str, limit: float, percent: float | None) -> None:
    found = parse_assertion(text)
    assert (found.kind, found.metric, found.sense, found.percentile) == (kind, metric, sense, percent)
    assert found.limit == pytest.approx(limit)
    assert (found.text, found.phase) == (text, Phase.SUSTAINED)


def test_a_stall_has_its_own_limit_and_a_burst_its_own_phase() -> None:
    found = parse_assertion("burst:stalled_500ms<1%")
    assert (found.phase, found.kind, found.gap_s, found.limit) == (Phase.BURST, "stalled", 0.5, 0.01)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_claim_is_refused_in_one_line_with_what_is_allowed(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_assertion(text)
    message = str(refused.value)
    assert message.startswith("--assert ")
    assert "\n" not in message
    assert "ttft_p99<500ms" in message or "for example" in message or "allowed" in message


@given(st.text(max_size=40))
def test_any_text_is_a_claim_or_refused(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert parse_assertion(text).text == text.strip()


def test_of_each_latency_the_limit_at_the_highest_percentile_says_what_late_means() -> None:
    latencies = ["ttft_p50<100ms", "ttft_p99<500ms", "ttft_p90<200ms", "itl_p99<80ms", "e2e_max<1s", "e2e_p50<1s"]
    claims = parse_assertions([*latencies, "goodput>=0.9", "goodput>=95%", "shed<2%", "failed<1"])
    slos = asserted_slos(claims, Phase.SUSTAINED)
    assert set(slos.latency) == {
        LatencySlo(metric=LatencyMetric.TTFT, percentile=99, limit_s=0.5),
        LatencySlo(metric=LatencyMetric.ITL, percentile=99, limit_s=0.08),
    }
    assert (slos.goodput_fraction_min, slos.shed_fraction_max) == (0.95, 0.02)
    assert not asserted_slos(claims, Phase.BURST).declared()


def test_claims_become_limits_only_where_there_are_none() -> None:
    claims = parse_assertions(["ttft_p99<500ms", "burst:ttft_p90<2s"])
    plain = described_requirement(None, LoadFlags(burst_rate="3x"))
    limited = with_asserted_limits(plain, claims)
    assert limited.slo.limit_s(LatencyMetric.TTFT) == 0.5
    assert limited.slo_burst.limit_s(LatencyMetric.TTFT) == 2.0
    text = "name: a\nprofile: {prompt_tokens: 8, output_tokens: 8, arrival: {rate: 1/s}}\nslo: {e2e: {p95: 1s}}\n"
    own = parse_requirement(text, "a.yaml")
    assert with_asserted_limits(own, claims[:1]) == own


def test_a_claim_about_what_is_not_there_is_refused() -> None:
    plain = described_requirement(None, LoadFlags())
    with pytest.raises(BadInput, match=r"--assert burst:.*--burst-rate"):
        with_asserted_limits(plain, parse_assertions(["burst:ttft_p90<2s"]))
    silent = described_requirement(None, LoadFlags(streaming=False))
    with pytest.raises(BadInput, match=r"--assert: .*nobody sees single tokens"):
        with_asserted_limits(silent, parse_assertions(["ttft_p99<2s"]))
