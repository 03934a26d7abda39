"""Two runs, or two sides of several interleaved runs, figure by figure: what differs, and with how much confidence.

Within one run a side, a figure's interval is that of its samples (``statistics``: effective sample sizes), and the
difference of two independent figures follows from their intervals (``statistics.difference``). What changes from run to
run, such as another neighbour on the machine or another cache, is in no sample: only several rounds A1 B1 A2 B2 ... show
it. Then every round is one value a figure, and Student's t of the rounds' differences decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from setpoint.report.compare_figures import ComparedRun, Estimator, FigureName
from setpoint.report.compare_warnings import changes, warnings_of
from setpoint.report.comparison import Better, Comparison, Ends, FigureComparison, Side
from setpoint.statistics import Estimate, Interval, difference, finite, mean_of_rounds, proportion_interval, ratio

CONFIDENCE = 0.95
MOST_LOG = 700.0
SAME_LOAD = 0.05
RATE_UNITS = ("/s", "tokens/s")
SAME_IN_ALL = "the same in every round: how far rounds vary is not known"


def compare_two(a: ComparedRun, b: ComparedRun) -> Comparison:
    """Two runs compared by the uncertainty within each. Only figures that both have are compared."""
    figures_a, figures_b = a.figures(), b.figures()
    names = [name for name in figures_a if name in figures_b]
    strict = _confidence_of_all(len(names))
    rows = [_within(name, figures_a[name], figures_b[name], strict) for name in names]
    if not _same_clients([a, b]):
        rows = [_if_comparable(row, a.offered_rps(row.phase), b.offered_rps(row.phase)) for row in rows]
    return _comparison("within", [a], [b], rows)


def compare_rounds(runs_a: Sequence[ComparedRun], runs_b: Sequence[ComparedRun]) -> Comparison:
    """Rounds of a pair of runs each, compared by the uncertainty between rounds.

    Raises ``ValueError`` unless both sides have the same number of runs, two at least.
    """
    if len(runs_a) != len(runs_b) or len(runs_a) < 2:
        raise ValueError(f"rounds need as many runs of A as of B, two at least; found {len(runs_a)} and {len(runs_b)}")
    all_figures = [run.figures() for run in (*runs_a, *runs_b)]
    names = [name for name in all_figures[0] if all(name in figures for figures in all_figures)]
    strict = _confidence_of_all(len(names))
    rounds = len(runs_a)
    rows = []
    for name in names:
        values = [finite(figures[name](CONFIDENCE).value) for figures in all_figures]
        pooled = _pooled(name, runs_a, runs_b) if name.unit == "share" else None
        row = _between(name, values[:rounds], values[rounds:], strict, pooled)
        loads = [sum(run.offered_rps(name.phase) for run in runs) / rounds for runs in (runs_a, runs_b)]
        rows.append(row if _same_clients([*runs_a, *runs_b]) else _if_comparable(row, *loads))
    return _comparison("between", runs_a, runs_b, rows)


def _within(name: FigureName, a: Estimator, b: Estimator, strict: float) -> FigureComparison:
    usual_a, usual_b = a(CONFIDENCE), b(CONFIDENCE)
    found = difference(usual_a, usual_b)
    stands = _side_of_zero(difference(a(strict), b(strict)).interval) != 0
    return _row(name, usual_a.value, usual_b.value, found, ratio(usual_a, usual_b), stands)


def _pooled(name: FigureName, runs_a: Sequence[ComparedRun], runs_b: Sequence[ComparedRun]) -> Estimator:
    """The difference of the shares in the requests of all rounds together, each request worth one (Wilson's intervals)."""

    def side(runs: Sequence[ComparedRun], confidence: float) -> Estimate:
        counts = [count for run in runs if (count := run.counted(name)) is not None]
        hits, requests = sum(hit for hit, _ in counts), sum(each for _, each in counts)
        return Estimate(hits / requests if requests else None, proportion_interval(hits, requests, confidence))

    return lambda confidence: difference(side(runs_a, confidence), side(runs_b, confidence))


def _between(
    name: FigureName, a: Sequence[float | None], b: Sequence[float | None], strict: float, pooled: Estimator | None
) -> FigureComparison:
    """``pooled``: of a share, the difference by the counts of all rounds; the interval is at least as wide as that one's."""
    pairs = [(each_a, each_b) for each_a, each_b in zip(a, b, strict=True) if each_a is not None and each_b is not None]
    if len(pairs) < len(a):
        return _row(name, None, None, Estimate(None, None), Estimate(None, None), False)
    differences = [each_b - each_a for each_a, each_b in pairs]
    mean_a, mean_b = (mean_of_rounds(values).value for values in zip(*pairs, strict=True))
    found, strictly = (_widened(mean_of_rounds(differences, each), pooled, each) for each in (CONFIDENCE, strict))
    row = _row(name, mean_a, mean_b, found, _ratio_of_rounds(pairs), _side_of_zero(strictly.interval) != 0)
    return row if found.interval is not None else row.model_copy(update={"remark": SAME_IN_ALL})


def _widened(found: Estimate, pooled: Estimator | None, confidence: float) -> Estimate:
    """``found`` with ends at least as far from its value as those of ``pooled``: counts that agree by chance prove little."""
    by_counts = None if pooled is None else pooled(confidence)
    if found.value is None or by_counts is None or by_counts.value is None or by_counts.interval is None:
        return found
    low, high = found.interval or (found.value, found.value)
    below, above = by_counts.value - by_counts.interval[0], by_counts.interval[1] - by_counts.value
    return Estimate(found.value, (min(low, found.value - below), max(high, found.value + above)))


def _same_clients(runs: Sequence[ComparedRun]) -> bool:
    """Whether all are closed loops of as many clients: what they offer is then how fast they are served."""
    return runs[0].clients is not None and all(run.clients == runs[0].clients for run in runs)


def _if_comparable(row: FigureComparison, offered_a_rps: float, offered_b_rps: float) -> FigureComparison:
    """A rate says which side is better only if both were offered the same load: what is not asked for is not served.

    Loads that are hardly different may still make a difference as large as their own.
    """
    apart_rps, most_rps = abs(offered_a_rps - offered_b_rps), max(offered_a_rps, offered_b_rps)
    if row.unit not in RATE_UNITS or row.verdict is Better.UNDECIDED:
        return row
    by_load = apart_rps if row.unit == "/s" else apart_rps / most_rps * max(abs(row.a or 0.0), abs(row.b or 0.0))
    if apart_rps <= SAME_LOAD * most_rps and abs(row.difference or 0.0) > by_load:
        return row
    remark = f"offered {offered_a_rps:.4g}/s and {offered_b_rps:.4g}/s"
    return row.model_copy(update={"verdict": Better.UNDECIDED, "stands_alone": False, "remark": remark})


def _ratio_of_rounds(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """The geometric mean of the rounds' ratios; nothing where a figure is not above zero in some round."""
    if any(a <= 0.0 or b <= 0.0 for a, b in pairs):
        return Estimate(None, None)
    logs = mean_of_rounds([math.log(b / a) for a, b in pairs], CONFIDENCE)
    if logs.value is None:
        return Estimate(None, None)
    if logs.interval is None:
        return Estimate(math.exp(min(logs.value, MOST_LOG)), None)
    low, high = (math.exp(min(end, MOST_LOG)) for end in logs.interval)
    return Estimate(math.exp(logs.value), (low, high))


def _row(
    name: FigureName, a: float | None, b: float | None, found: Estimate, quotient: Estimate, stands: bool
) -> FigureComparison:
    side = _side_of_zero(found.interval)
    verdict = Better.UNDECIDED
    if side:
        verdict = Better.B if (side > 0) == (name.better == "higher") else Better.A
    return FigureComparison(
        phase=name.phase,
        metric=name.metric,
        statistic=name.statistic,
        unit=name.unit,
        better=name.better,
        a=_number(a),
        b=_number(b),
        difference=_number(found.value),
        difference_interval=_ends(found.interval),
        ratio=_number(quotient.value),
        ratio_interval=_ends(quotient.interval),
        verdict=verdict,
        stands_alone=side != 0 and stands,
        remark=_remark(a, b, found),
    )


def _side_of_zero(interval: Interval | None) -> int:
    """1 if the whole interval lies above zero, -1 if below, 0 if it does not say."""
    if interval is None:
        return 0
    return 1 if interval[0] > 0.0 else -1 if interval[1] < 0.0 else 0


def _remark(a: float | None, b: float | None, found: Estimate) -> str:
    """Why a figure has no interval, if it has none."""
    if found.interval is not None:
        return ""
    sides = {"A": a, "B": b}
    lost = [side for side, value in sides.items() if value is not None and finite(value) is None]
    if lost:
        return f"infinitely late in {' and '.join(lost)}: too many failed"
    unknown = [side for side, value in sides.items() if value is None]
    return f"unknown in {' and '.join(unknown)}" if unknown else "too few independent samples"


def _confidence_of_all(figures: int) -> float:
    """The confidence of each figure at which all of them together have ``CONFIDENCE`` (Bonferroni)."""
    return 1.0 - (1.0 - CONFIDENCE) / max(1, figures)


def _comparison(
    method: Literal["within", "between"],
    runs_a: Sequence[ComparedRun],
    runs_b: Sequence[ComparedRun],
    rows: list[FigureComparison],
) -> Comparison:
    return Comparison(
        a=_side(runs_a),
        b=_side(runs_b),
        method=method,
        rounds=len(runs_a),
        confidence=CONFIDENCE,
        changed=changes(runs_a[0], runs_b[0]),
        figures=rows,
        words=_words(rows),
        multiple_comparisons=_multiple_words(rows),
        warnings=warnings_of(runs_a, runs_b),
    )


def _side(runs: Sequence[ComparedRun]) -> Side:
    return Side(
        folders=[run.name for run in runs],
        candidates=[run.candidate.name for run in runs],
        offered=sum(run.offered for run in runs),
    )


def _number(value: float | None) -> float | None:
    return finite(value)


def _ends(interval: Interval | None) -> Ends | None:
    return None if interval is None else (finite(interval[0]), finite(interval[1]))


def _words(rows: Sequence[FigureComparison]) -> str:
    """The comparison in one sentence."""
    counts = {each: sum(row.verdict is each for row in rows) for each in Better}
    if not counts[Better.A] and not counts[Better.B]:
        return f"No difference shown in any of {len(rows)} figures."
    parts = [f"{side} is better in {n}" for side, n in (("A", counts[Better.A]), ("B", counts[Better.B])) if n]
    return f"Of {len(rows)} figures {' and '.join(parts)}; {counts[Better.UNDECIDED]} show no difference."


def _multiple_words(rows: Sequence[FigureComparison]) -> str:
    """What looking at many figures at once does to the verdicts."""
    decided = [row for row in rows if row.verdict is not Better.UNDECIDED]
    by_chance = (1.0 - CONFIDENCE) * len(rows)
    strict = 100.0 * _confidence_of_all(len(rows))
    stand = sum(row.stands_alone for row in decided)
    return (
        f"Each verdict is at {100 * CONFIDENCE:.0f} % for its figure alone: of {len(rows)} figures without any difference"
        f" about {by_chance:.1f} would seem to differ. {stand} of {len(decided)} verdicts (*) hold at {strict:.2f} % too,"
        " which allows for all of them together (Bonferroni)."
    )
