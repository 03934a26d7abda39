"""``--assert``: a claim such as ``ttft_p99<500ms`` read into what it asserts, and what follows from it for the limits.

    [burst:]METRIC OP VALUE

OP is ``<``, ``<=``, ``>`` or ``>=``; of figures that vary without steps ``<`` and ``<=`` are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from setpoint.loop.errors import BadInput
from setpoint.record import Phase, RequestClass
from setpoint.report.assertion import Assertion, Kind, Sense
from setpoint.requirement import LatencyMetric, LatencySlo, Requirement, Slos, UnitError
from setpoint.requirement.units import parse_duration_s, parse_fraction, parse_number, parse_rate_rps, parse_ratio

LATENCIES = (*(str(metric) for metric in LatencyMetric), "max_gap")
SHARES = ("goodput", *(str(each) for each in RequestClass))
RATES = ("goodput_rps", "requests_per_s", "output_tokens_per_s", "prompt_tokens_per_s")
SAYS_WHAT_LATE_MEANS_FROM = 90.0
"""The least percentile whose asserted limit also says what a single request is late by."""

_EXPRESSION = re.compile(r"(?:(?P<phase>[a-z]+)\s*:)?\s*(?P<name>[a-z][a-z0-9_.]*)\s*(?P<op><=|>=|<|>)\s*(?P<value>.+)")
_LATENCY = re.compile(rf"(?P<metric>{'|'.join(LATENCIES)})_(?:p(?P<percent>\d+(?:\.\d+)?)|(?P<kind>mean|max))")
_SPREAD = re.compile(rf"spread_(?P<metric>{'|'.join(LATENCIES)})")
_STALLED = re.compile(r"stalled_(?P<gap>[0-9.]+(?:us|ms|s))")
_PHASES = {"sustained": Phase.SUSTAINED, "burst": Phase.BURST}

GRAMMAR = (
    "[burst:]METRIC<VALUE, with <, <=, > or >=, where METRIC is one of ttft, itl, tpot, e2e, queue_wait, max_gap with "
    "_p50, _p90, _p95, _p99, _p99.9, _mean or _max; spread_ttft, spread_e2e; goodput, shed, failed, unfinished, late; "
    "stalled_500ms; goodput_rps, requests_per_s, output_tokens_per_s. For example ttft_p99<500ms or goodput>=0.99"
)


def parse_assertion(text: str) -> Assertion:
    """One claim. Raises ``BadInput`` that says what is allowed."""
    found = _EXPRESSION.fullmatch(text.strip().lower())
    phase = _PHASES.get(found["phase"] or "sustained") if found is not None else None
    if found is None or phase is None:
        raise _refused(text)
    sense: Sense = "at_least" if found["op"].startswith(">") else "at_most"
    name, value = found["name"], found["value"].strip()
    try:
        return _read(text.strip(), phase, name, sense, found["op"], value)
    except UnitError as error:
        raise BadInput(f"--assert {text!r}: allowed for {name} is {error}; found {value!r}") from None


def parse_assertions(texts: Iterable[str]) -> tuple[Assertion, ...]:
    """All of them, in order. Raises ``BadInput``."""
    return tuple(parse_assertion(text) for text in texts)


def _read(text: str, phase: Phase, name: str, sense: Sense, op: str, value: str) -> Assertion:
    if latency := _LATENCY.fullmatch(name):
        limit_s = parse_duration_s(value)
        if latency["kind"]:
            kind: Kind = "mean" if latency["kind"] == "mean" else "max"
            return Assertion(text, phase, kind, latency["metric"], sense, limit_s)
        return Assertion(text, phase, "percentile", latency["metric"], sense, limit_s, _percent(text, latency["percent"]))
    if spread := _SPREAD.fullmatch(name):
        return Assertion(text, phase, "spread", spread["metric"], sense, parse_ratio(value))
    if stalled := _STALLED.fullmatch(name):
        gap_s = parse_duration_s(stalled["gap"])
        return Assertion(text, phase, "stalled", "", sense, parse_fraction(value), gap_s=gap_s)
    if name in RATES:
        return Assertion(text, phase, "rate", name, sense, parse_rate_rps(value) if "/" in value else parse_number(value))
    if name in SHARES:
        return _share(text, phase, name, sense, op, value)
    raise _refused(text)


def _percent(text: str, digits: str) -> float:
    """``99``, ``99.9``, and ``999`` for 99.9, as some write it."""
    percent = float(digits)
    if "." not in digits and percent > 100 and set(digits[:2]) == {"9"}:
        percent = float(f"{digits[:2]}.{digits[2:]}")
    if not 0 < percent < 100:
        raise _refused(text)
    return percent


def _share(text: str, phase: Phase, name: str, sense: Sense, op: str, value: str) -> Assertion:
    """A share of the offered requests; of a class a whole number from 1 is a count."""
    is_count = name != "goodput" and value.isdigit() and int(value) >= 1
    if not is_count:
        return Assertion(text, phase, "fraction", name, sense, parse_fraction(value))
    limit = float(value) + {"<": -1, ">": 1}.get(op, 0)
    return Assertion(text, phase, "count", name, sense, limit)


def _refused(text: str) -> BadInput:
    return BadInput(f"--assert {text!r}: allowed is {GRAMMAR}")


def asserted_slos(assertions: Sequence[Assertion], phase: Phase) -> Slos:
    """What the claims say of ``phase`` as limits of a requirement, which say what is ok and what is late.

    Of each latency the limit at the highest percentile; of goodput and shed the strictest. A limit on a percentile below
    ``SAYS_WHAT_LATE_MEANS_FROM`` says what is usual and not what is late.
    """
    highest: dict[str, LatencySlo] = {}
    for each in assertions:
        wanted = each.phase is phase and each.kind == "percentile" and each.sense == "at_most"
        if not wanted or each.metric == "max_gap" or (each.percentile or 0) < SAYS_WHAT_LATE_MEANS_FROM:
            continue
        slo = LatencySlo(metric=LatencyMetric(each.metric), percentile=each.percentile or 0, limit_s=each.limit)
        before = highest.get(each.metric)
        if before is None or (slo.percentile, -slo.limit_s) > (before.percentile, -before.limit_s):
            highest[each.metric] = slo
    return Slos(
        latency=tuple(highest.values()),
        goodput_fraction_min=max(_shares(assertions, phase, "goodput", "at_least"), default=None),
        shed_fraction_max=min(_shares(assertions, phase, "shed", "at_most"), default=None),
    )


def _shares(assertions: Sequence[Assertion], phase: Phase, metric: str, sense: Sense) -> list[float]:
    """The limits on a share that a requirement can state too; the ends say nothing there."""
    limits = [
        each.limit
        for each in assertions
        if (each.phase, each.kind, each.metric, each.sense) == (phase, "fraction", metric, sense)
    ]
    return [limit for limit in limits if (0 < limit <= 1 if sense == "at_least" else 0 <= limit < 1)]


def with_asserted_limits(requirement: Requirement, assertions: Sequence[Assertion]) -> Requirement:
    """``requirement`` with the asserted limits as its own, where it has none: then they say what is ok and what is late.

    Raises ``BadInput`` for a claim about something the requests do not have, such as gaps without streaming.
    """
    changes = {}
    if requirement.profile.burst is None and any(each.phase is Phase.BURST for each in assertions):
        raise BadInput("--assert burst:...: there is no burst; add --burst-rate, such as --burst-rate 3x")
    try:
        if not requirement.slo.declared():
            changes["slo"] = asserted_slos(assertions, Phase.SUSTAINED)
        if not requirement.slo_burst.declared() and requirement.profile.burst is not None:
            changes["slo_burst"] = asserted_slos(assertions, Phase.BURST)
        return Requirement.model_validate(
            requirement.model_dump() | {name: slos.model_dump() for name, slos in changes.items()}
        )
    except ValueError as error:
        problem = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise BadInput(f"--assert: {problem}") from error
