"""Rows of the page's tables: plain strings in the order of the columns."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.record import Candidate, Phase, PhaseMeasures, Report, SloCheck, Summary
from setpoint.report.charts.bars import class_bar, gauge
from setpoint.report.charts.styles import Look
from setpoint.report.check_words import check_interval, check_limit, check_name, check_number
from setpoint.report.format import UNKNOWN, count, interval_s, number, percent, rate, round_seconds, seconds, share
from setpoint.report.verdicts import measures, only_predicted, why_not
from setpoint.report.words import VERDICT_WORDS, Fact, config_facts, phase_name

PHASES = (Phase.SUSTAINED, Phase.BURST)
SUMMARIES = (
    ("TTFT", "ttft_s"),
    ("TTFT from the send", "ttft_from_send_s"),
    ("ITL", "itl_s"),
    ("Largest gap", "max_gap_s"),
    ("TPOT", "tpot_s"),
    ("E2E", "e2e_s"),
    ("E2E from the send", "e2e_from_send_s"),
    ("Queue wait", "queue_wait_s"),
    ("Connecting", "connect_s"),
    ("Refusals", "refusal_s"),
)


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One SLO check, with its gauge drawn."""

    name: str
    phase: str
    value: str
    interval: str
    limit: str
    verdict: str
    gauge_svg: str


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One latency quantity of one phase. ``cells``: n, mean, P50, P90, P95, P99, P99 interval, largest."""

    name: str
    cells: list[str]


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """One phase of one candidate. ``cells`` follow ``OVERVIEW_COLUMNS``."""

    phase: str
    cells: list[str]
    bar_svg: str
    offered: str
    ok_share: str
    latencies: list[LatencyRow]
    others: list[Fact]


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """Everything the page says about one candidate outside the charts."""

    name: str
    look: Look
    verdict: str
    chosen: bool
    predicted: str
    config: list[Fact]
    phases: list[PhaseRow]
    checks: list[CheckRow]
    why_not: str


OVERVIEW_COLUMNS = (
    "TTFT P50", "TTFT P95", "TTFT P99", "ITL P50", "ITL P99", "E2E P50", "E2E P99",
    "Tokens/s", "Goodput", "of offered", "Shed",
)  # fmt: skip


def _overview(figures: PhaseMeasures) -> list[str]:
    return [
        seconds(figures.ttft_s.p50),
        seconds(figures.ttft_s.p95),
        seconds(figures.ttft_s.p99),
        seconds(figures.itl_s.p50),
        seconds(figures.itl_s.p99),
        seconds(figures.e2e_s.p50),
        seconds(figures.e2e_s.p99),
        number(figures.output_tokens_per_s),
        rate(figures.goodput_rps),
        percent(figures.goodput_fraction),
        share(figures.shed, figures.offered),
    ]


def _latencies(figures: PhaseMeasures) -> list[LatencyRow]:
    rows = []
    for name, field in SUMMARIES:
        found: Summary | None = getattr(figures, field)
        if found is None or found.n == 0:
            continue
        levels = (found.mean, found.p50, found.p90, found.p95, found.p99)
        cells = [count(found.n), *map(seconds, levels), interval_s(found.p99_ci), seconds(found.max)]
        rows.append(LatencyRow(name, cells))
    return rows


def _others(figures: PhaseMeasures) -> list[Fact]:
    """Figures that are not latencies, where known."""
    usd = figures.usd_per_good_request
    facts = [
        Fact("Duration", seconds(figures.duration_s)),
        Fact("Prompt tokens/s", number(figures.prompt_tokens_per_s)),
        Fact("Streams that stalled", _stalled(figures)),
        Fact("Sends for each request", number(figures.amplification)),
        Fact("Prefix hit rate", percent(figures.prefix_hit_rate)),
        Fact("KV usage, peak", percent(figures.kv_usage_peak)),
        Fact("Preemptions", count(figures.preemptions)),
        Fact("Acceptance length", number(figures.acceptance_length)),
        Fact("Output tokens per USD", number(figures.output_tokens_per_usd)),
        Fact("USD per good request", UNKNOWN if usd is None else f"{usd:.3g}"),
    ]
    return [fact for fact in facts if fact.text != UNKNOWN]


def _stalled(figures: PhaseMeasures) -> str:
    if figures.stalled_fraction is None or figures.stall_limit_s is None:
        return UNKNOWN
    return f"{percent(figures.stalled_fraction)} over {round_seconds(figures.stall_limit_s)}"


def check_rows(checks: list[SloCheck], key: str) -> list[CheckRow]:
    """Rows of ``checks``; ``key`` makes the gauges' names unique on the page."""
    return [
        CheckRow(
            name=check_name(check),
            phase=phase_name(check.phase),
            value=check_number(check, check.value),
            interval=check_interval(check),
            limit=check_limit(check),
            verdict=VERDICT_WORDS[check.verdict],
            gauge_svg=gauge(check, f"gauge-{key}-{index}"),
        )
        for index, check in enumerate(checks)
    ]


def _phase_row(candidate: Candidate, look: Look, phase: Phase) -> PhaseRow | None:
    figures = measures(candidate, phase)
    if figures is None:
        return None
    return PhaseRow(
        phase=phase_name(phase),
        cells=_overview(figures),
        bar_svg=class_bar(figures, candidate.name, phase, f"classes-{look.index}-{phase}") if figures.offered else "",
        offered=count(figures.offered),
        ok_share=share(figures.ok, figures.offered),
        latencies=_latencies(figures),
        others=_others(figures),
    )


def candidate_rows(report: Report, looks: dict[str, Look]) -> list[CandidateRow]:
    """One row for every candidate, in the order of the report."""
    rows = []
    for candidate in report.candidates:
        look = looks[candidate.name]
        phases = [row for phase in PHASES if (row := _phase_row(candidate, look, phase)) is not None]
        predicted = candidate.predicted.source if only_predicted(candidate) and candidate.predicted is not None else ""
        rows.append(
            CandidateRow(
                name=candidate.name,
                look=look,
                verdict=VERDICT_WORDS[candidate.slo.verdict],
                chosen=candidate.name == report.chosen,
                predicted=predicted,
                config=config_facts(candidate.config),
                phases=phases,
                checks=check_rows(candidate.slo.checks, str(look.index)),
                why_not=why_not(candidate, report),
            )
        )
    return rows
