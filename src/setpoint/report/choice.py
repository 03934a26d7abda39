"""Which candidate to run: the best by the objective among those that meet every SLO, and why, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from setpoint.record import Candidate, Phase, PhaseMeasures, SloCheck, Verdict
from setpoint.report.check_words import check_interval, check_limit, check_name, check_number, is_floor
from setpoint.report.format import NO_BREAK, number, rate, seconds
from setpoint.report.verdicts import measures, statistic_s
from setpoint.report.words import OBJECTIVE_WORDS
from setpoint.requirement import Objective
from setpoint.statistics import proportion_interval

EQUAL_WITHIN = 0.01


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The figure an objective compares: its name, how to read it (``None`` where unknown), its words, its sense."""

    name: str
    read: Callable[[PhaseMeasures], float | None]
    words: Callable[[float | None], str]
    lower_is_better: bool = False

    def of(self, candidate: Candidate) -> float | None:
        """The candidate's figure in the sustained phase."""
        figures = measures(candidate, Phase.SUSTAINED)
        return self.read(figures) if figures is not None else None

    def worth(self, candidate: Candidate) -> float:
        """The figure as a number of which more is better; unknown is least."""
        value = self.of(candidate)
        return -math.inf if value is None else -value if self.lower_is_better else value


def choose(candidates: Sequence[Candidate], objective: Objective) -> tuple[str | None, str]:
    """The name of the candidate to run and why it won and each other lost; ``None`` if no candidate meets every SLO.

    Compared are the figures of the sustained phase: goodput (``max_goodput``), output tokens/s (``max_throughput``),
    output tokens per USD, or tokens/s without a price (``min_cost``), P95 of TTFT, or of E2E if nothing streams
    (``min_latency``). Candidates within 1 %, or for goodput within the 95 % interval of the best one's ok fraction, are
    equal, and then the lower P95 decides, and then the order given. If no candidate is met, the words say which came
    nearest and what would have to give.
    """
    eligible = [each for each in candidates if each.slo.verdict is Verdict.MET]
    if not eligible:
        return None, _why_none(candidates)
    yardstick, latency = _yardstick(objective, eligible), _latency(eligible)
    best = max(eligible, key=yardstick.worth)
    margin = _margin(best, yardstick, objective)
    equal = [each for each in eligible if yardstick.worth(each) >= yardstick.worth(best) - margin] or eligible
    tie_break = yardstick if objective is Objective.MIN_LATENCY else latency
    chosen = max(equal, key=tie_break.worth)
    sentences = [_why_chosen(chosen, len(eligible), len(candidates), objective, yardstick)]
    if len(equal) > 1 and tie_break is latency:
        others = "another is" if len(equal) == 2 else f"{len(equal) - 1} others are"
        sentences.append(f"In {yardstick.name} {others} equal to it within the noise; the lower {latency.name} decided.")
    for candidate in candidates:
        if candidate is not chosen:
            tie = tie_break if candidate in equal and tie_break is latency else None
            sentences.append(_why_lost(candidate, chosen, yardstick, tie))
    return chosen.name, " ".join(sentences).replace(NO_BREAK, " ")


def best_of(candidates: Sequence[Candidate], objective: Objective) -> Candidate:
    """The one that ``choose`` chooses, and where it chooses none the one that came nearest. There must be one."""
    chosen, _ = choose(candidates, objective)
    if chosen is None:
        return min(candidates, key=_distance)
    return next(each for each in candidates if each.name == chosen)


def clearly_better(candidate: Candidate, other: Candidate, objective: Objective) -> bool:
    """Whether ``candidate`` meets every SLO and ``other`` does not, or is ahead of it by more than counts as equal."""
    if candidate.slo.verdict is not Verdict.MET:
        return False
    if other.slo.verdict is not Verdict.MET:
        return True
    yardstick = _yardstick(objective, (candidate, other))
    return yardstick.worth(candidate) > yardstick.worth(other) + _margin(other, yardstick, objective)


def _yardstick(objective: Objective, eligible: Sequence[Candidate]) -> Yardstick:
    throughput = Yardstick("output", lambda m: m.output_tokens_per_s, lambda v: f"{number(v)} tokens/s")
    per_usd = Yardstick("output per USD", lambda m: m.output_tokens_per_usd, lambda v: f"{number(v)} tokens/USD")
    match objective:
        case Objective.MAX_GOODPUT:
            return Yardstick("goodput", lambda m: m.goodput_rps, rate)
        case Objective.MAX_THROUGHPUT:
            return throughput
        case Objective.MIN_COST:
            return per_usd if all(per_usd.of(each) is not None for each in eligible) else throughput
        case Objective.MIN_LATENCY:
            return _latency(eligible)


def _latency(eligible: Sequence[Candidate]) -> Yardstick:
    """P95 of TTFT where every candidate has one, else P95 of E2E."""
    ttft = Yardstick("TTFT P95", lambda m: statistic_s(m, "ttft", "p95"), seconds, lower_is_better=True)
    e2e = Yardstick("E2E P95", lambda m: statistic_s(m, "e2e", "p95"), seconds, lower_is_better=True)
    return ttft if all(ttft.of(each) is not None for each in eligible) else e2e


def _margin(best: Candidate, yardstick: Yardstick, objective: Objective) -> float:
    """By how much a figure may fall short of the best and still be equal."""
    value, figures = yardstick.of(best), measures(best, Phase.SUSTAINED)
    if value is None or figures is None:
        return 0.0
    margin = EQUAL_WITHIN * value
    interval = proportion_interval(figures.ok, figures.offered)
    if objective is Objective.MAX_GOODPUT and interval is not None:
        short = figures.ok / figures.offered - interval[0]
        margin = max(margin, short * figures.offered / figures.duration_s)
    return margin


def _why_chosen(chosen: Candidate, met: int, total: int, objective: Objective, yardstick: Yardstick) -> str:
    value = yardstick.words(yardstick.of(chosen))
    if total == 1:
        return f"{chosen.name} meets every SLO; its {yardstick.name} is {value}."
    if met == 1:
        return f"{chosen.name} was chosen: of {total} configurations it alone meets every SLO."
    return (
        f"{chosen.name} was chosen for the {OBJECTIVE_WORDS[objective]} among the {met} of {total} configurations that "
        f"meet every SLO: its {yardstick.name} is {value}."
    )


def _why_lost(candidate: Candidate, chosen: Candidate, yardstick: Yardstick, tie: Yardstick | None) -> str:
    if candidate.slo.verdict is not Verdict.MET:
        return f"{candidate.name} lost: {_shortfall(candidate)}."
    compared = tie if tie is not None and tie.of(candidate) is not None else yardstick
    own, best = compared.of(candidate), compared.of(chosen)
    if own is None or best is None:
        return f"{candidate.name} lost: it meets every SLO, but its {compared.name} is not known."
    if own == best:
        return f"{candidate.name} lost: it meets every SLO, but has no advantage over {chosen.name}."
    amount = f"{abs(own - best) / best:.1%}".replace("%", " %") if best else "infinitely"
    return (
        f"{candidate.name} lost: it meets every SLO, but its {compared.name} is {compared.words(own)}, {amount} "
        f"{'more' if own > best else 'less'} than the {compared.words(best)} of {chosen.name}."
    )


def _open_checks(candidate: Candidate) -> list[SloCheck]:
    """The checks that stand between the candidate and its being met: the missed ones, else the inconclusive ones."""
    missed = [check for check in candidate.slo.checks if check.verdict is Verdict.MISSED]
    return missed or [check for check in candidate.slo.checks if check.verdict is Verdict.INCONCLUSIVE]


def _shortfall(candidate: Candidate) -> str:
    checks = _open_checks(candidate)
    if measures(candidate, Phase.SUSTAINED) is None:
        return "it was not measured"
    if not checks:
        return f"its verdict is {candidate.slo.verdict}"
    verb = "it misses" if checks[0].verdict is Verdict.MISSED else "it is not shown to meet"
    return f"{verb} " + " and ".join(_check_words(check) for check in checks)


def _check_words(check: SloCheck) -> str:
    value = "no value can be stated" if check.value is None else check_number(check, check.value)
    interval = f", 95 % interval {check_interval(check)}" if check.interval is not None else ""
    return f"{check_name(check)} {check_limit(check)} in the {check.phase} phase ({value}{interval})"


def _excess(check: SloCheck) -> float:
    """How far a check is from its limit as a factor: 1 is at the limit, 2 is twice as bad."""
    if check.value is None:
        return math.inf
    if is_floor(check):
        return check.limit / check.value if check.value else math.inf
    if check.metric.endswith("_fraction"):
        return (1.0 - check.limit) / (1.0 - check.value) if check.value < 1.0 else math.inf
    return check.value / check.limit if check.limit else math.inf


def _distance(candidate: Candidate) -> tuple[bool, float, int]:
    """How far a candidate is from being met; the least is the nearest. Not measured is farthest."""
    checks = _open_checks(candidate)
    worst = max((_excess(check) for check in checks), default=math.inf)
    return candidate.slo.verdict is Verdict.MISSED, worst, len(checks)


def _why_none(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return "There is no candidate."
    nearest = min(candidates, key=_distance)
    sentences = [f"{nearest.name} does not meet every SLO: {_shortfall(nearest)}."]
    if len(candidates) > 1:
        sentences = [f"No configuration meets every SLO. {nearest.name} came nearest: {_shortfall(nearest)}."]
    sentences += [_what_would_have_to_give(check, measures(nearest, check.phase)) for check in _open_checks(nearest)]
    others = [each for each in candidates if each is not nearest]
    sentences += [f"{each.name} lost: {_shortfall(each)}." for each in others]
    return " ".join(sentences).replace(NO_BREAK, " ")


def _never_ended(check: SloCheck, figures: PhaseMeasures | None) -> bool:
    """Whether more requests of the phase failed, were dropped or had not ended than the statistic leaves aside."""
    if figures is None or not check.statistic.startswith("p"):
        return True
    lost = figures.failed + figures.dropped + figures.unfinished
    return lost > (1.0 - float(check.statistic[1:]) / 100.0) * (figures.offered - figures.shed)


def _what_would_have_to_give(check: SloCheck, figures: PhaseMeasures | None) -> str:
    """By how much a limit would have to move, or what else would help."""
    name = f"{check_name(check)} in the {check.phase} phase"
    if check.verdict is Verdict.INCONCLUSIVE:
        return f"For {name} to be settled, measure longer: the interval must lie on one side of the limit."
    if check.value is None and _never_ended(check, figures):
        return f"For {name} no limit would do, because too many requests never ended: the load has to fall."
    if check.value is None:
        return f"{name[:1].upper()}{name[1:]} is over its limit, by how much too few samples say: the load has to fall."
    ends = check.interval or (check.value, check.value)
    needed = ends[0] if is_floor(check) else ends[1]
    move, bound = ("fall", "at most") if is_floor(check) else ("rise", "at least")
    limit, target = check_number(check, check.limit), check_number(check, needed)
    return f"For {name} to be met the limit would have to {move} from {limit} to {bound} {target}, or the load to fall."
