"""Figures beside the schema's: from the send, of connecting, of refusals, of stalls, of retries."""

from __future__ import annotations

import pytest
from request_rows import row, table

from setpoint.record import Phase, RequestClass
from setpoint.report.extras import with_extras
from setpoint.report.figures import PhaseSpan, phase_measures


def extras(rows: list[dict[str, object]], stall_limit_s: float = 0.5):  # type: ignore[no-untyped-def]
    requests = table(rows)
    figures = phase_measures(requests, Phase.SUSTAINED, PhaseSpan(0.0, 10.0))
    return with_extras(figures, requests, Phase.SUSTAINED, stall_limit_s=stall_limit_s)


def test_what_the_client_held_back_is_in_one_figure_and_not_in_the_other() -> None:
    rows = [row(at, [at + 1.1, at + 1.2], sent_s=at + 1.0, dispatched_s=at, connected_s=at + 0.25) for at in range(10)]
    found = extras(rows)
    assert found.ttft_s.p50 == pytest.approx(1.1)
    assert found.ttft_from_send_s.p50 == pytest.approx(0.1)
    assert found.e2e_from_send_s.p50 == pytest.approx(0.2)
    assert found.connect_s.p50 == pytest.approx(0.25)
    assert found.refusal_s is None


def test_refusals_have_their_own_latency_and_no_other() -> None:
    refused = [row(at, [], at + 0.03, RequestClass.SHED, status=503) for at in range(4)]
    found = extras([*refused, row(5.0, [5.1])])
    assert (found.refusal_s.n, found.ttft_from_send_s.n) == (4, 1)
    assert found.refusal_s.p50 == pytest.approx(0.03)


def test_the_share_of_streams_that_stalled_counts_those_cut_off_in_a_gap() -> None:
    smooth = [row(at, [at + 0.1, at + 0.2]) for at in range(6)]
    stalled = [row(6.0, [6.1, 7.0])]
    cut_off = [row(8.0, [8.1], 9.5, RequestClass.UNFINISHED, last_token_s=8.1)]
    found = extras(smooth + stalled + cut_off)
    assert found.stalled_fraction == pytest.approx(2 / 8)
    assert found.stall_limit_s == 0.5
    assert extras(smooth + stalled, stall_limit_s=2.0).stalled_fraction == 0.0


def test_retries_amplify_what_was_offered() -> None:
    rows = [row(at, [at + 0.1], attempts=1 + (at % 2)) for at in range(10)]
    assert extras(rows).amplification == pytest.approx(1.5)
    assert extras([row(0.0, [0.1], attempts=1)]).amplification is None


def test_nothing_is_known_of_nothing() -> None:
    found = extras([])
    assert found.ttft_from_send_s is None
    assert found.stalled_fraction is None
    assert found.connect_s is None
