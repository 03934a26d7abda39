"""The summary as CSV: a row for each candidate and phase, a column a figure, names ending in their units."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from setpoint.record import Candidate, Phase, PhaseMeasures, Report, RequestClass, Summary
from setpoint.report.verdicts import measures, only_predicted, outcome

PHASES = (Phase.SUSTAINED, Phase.BURST)
SUMMARIES = (
    "ttft_s", "itl_s", "max_gap_s", "tpot_s", "e2e_s", "queue_wait_s", "ttft_from_send_s", "e2e_from_send_s", "connect_s",
    "refusal_s",
)  # fmt: skip
LEVELS = ("mean", "p50", "p90", "p95", "p99", "max")
FIGURES = (
    "goodput_rps", "goodput_fraction", "output_tokens_per_s", "prompt_tokens_per_s", "stalled_fraction", "stall_limit_s",
    "amplification", "prefix_hit_rate", "kv_usage_peak", "preemptions", "acceptance_length", "output_tokens_per_usd",
    "usd_per_good_request",
)  # fmt: skip


def columns() -> list[str]:
    """The header."""
    latencies = [f"{name.removesuffix('_s')}_{level}_s" for name in SUMMARIES for level in LEVELS]
    intervals = [f"{name.removesuffix('_s')}_{end}" for name in SUMMARIES for end in ("n", "p99_low_s", "p99_high_s")]
    fixed = ["kind", "candidate", "phase", "predicted", "outcome", "verdict", "valid", "offered"]
    return [*fixed, *map(str, RequestClass), "duration_s", *FIGURES, *latencies, *intervals]


def summary_csv(report: Report) -> str:
    """The report's figures as CSV text with a header; an unknown figure is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(), lineterminator="\n")
    writer.writeheader()
    for candidate in report.candidates:
        for phase in PHASES:
            figures = measures(candidate, phase)
            if figures is not None:
                writer.writerow(dict(_row(report, candidate, phase, figures)))
    return text.getvalue()


def _row(report: Report, candidate: Candidate, phase: Phase, figures: PhaseMeasures) -> Iterator[tuple[str, object]]:
    yield from (("kind", report.kind), ("candidate", candidate.name), ("phase", str(phase)))
    yield from (("predicted", only_predicted(candidate)), ("outcome", str(outcome(report))))
    yield from (("verdict", str(candidate.slo.verdict)), ("valid", report.validity.valid))
    yield "offered", figures.offered
    for each in RequestClass:
        yield str(each), getattr(figures, str(each))
    yield "duration_s", figures.duration_s
    for name in FIGURES:
        yield name, _shown(getattr(figures, name))
    for name in SUMMARIES:
        found: Summary | None = getattr(figures, name)
        metric = name.removesuffix("_s")
        for level in LEVELS:
            yield f"{metric}_{level}_s", _shown(getattr(found, level, None))
        low, high = (found.p99_ci if found is not None else None) or (None, None)
        yield from ((f"{metric}_n", found.n if found is not None else 0), (f"{metric}_p99_low_s", _shown(low)))
        yield f"{metric}_p99_high_s", _shown(high)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"
