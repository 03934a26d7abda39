"""``setpoint init --from-trace``: a requirement that describes what production saw.

What was seen stands in the file as comments beside the values it led to, and so does what is a guess: nobody can read the
limits that an application needs out of its traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from setpoint.loop.errors import BadInput
from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    ChoiceTokens,
    ConstantTokens,
    LognormalTokens,
    RequestProfile,
    RequirementError,
    TokenDistribution,
    UniformTokens,
    render_requirement,
)
from setpoint.requirement.render import LimitSpec, TokenSpec
from setpoint.workload.fits import BURST_WINDOW_S, ArrivalFit, TokenFit, fit_arrivals, fit_tokens
from setpoint.workload.traces import Trace, TraceError, read_trace
from setpoint.workload.traces.trace import Blocks

GUESSED_SLO: LimitSpec = {"ttft": {"p95": "500ms"}, "itl": {"p99": "80ms"}}
GUESSED_RATE = "1/s"
GUESSED_THINK_TIME = "10s"
POISSON_CV = (0.9, 1.1)
CONSTANT_CV = 0.1
MAX_CV = 100.0
LEAST_ARRIVALS = 3
LEAST_FOR_BURSTS_S = 6 * BURST_WINDOW_S
LEAST_HIT_RATE = 0.005
ROUNDED_TIMES = 0.2
SLO_GUESS = "The limits are a guess, usual for an application that streams to a person: put in what yours needs."


def requirement_from_trace(
    path: Path,
    *,
    format: str | None = None,
    name: str | None = None,
    model: str = "smollm2-135m",
    rate: str | None = None,
    slo: LimitSpec | None = None,
) -> str:
    """The text of a requirement whose profile is that of the trace in the file at ``path``.

    rate: how many requests come, for a trace without times; a guess where it is not given. slo: limits as in YAML, a guess
    where they are not given. Raises ``BadInput`` for a file that is no trace, and for parameters that are not allowed.
    """
    try:
        trace = read_trace(path, format=format)
    except TraceError as error:
        raise BadInput(str(error)) from error
    return requirement_of_trace(trace, name=name, model=model, rate=rate, slo=slo)


def requirement_of_trace(
    trace: Trace, *, name: str | None = None, model: str = "smollm2-135m", rate: str | None = None, slo: LimitSpec | None = None
) -> str:
    """As ``requirement_from_trace``, of a trace that was read."""
    prompts, outputs = fit_tokens(trace.prompt_tokens), fit_tokens(trace.output_tokens)
    remarks = {
        "": [_origin(trace), *trace.notes],
        "prompt_tokens": [token_words("prompts", prompts, trace.prompt_tokens)],
        "output_tokens": [token_words("answers", outputs, trace.output_tokens)],
    }
    arrival, burst_rate = _arrival(trace, rate, remarks)
    hit_rate = _hit_rate(trace, remarks)
    sessions = _sessions(trace, remarks)
    if slo is None:
        remarks["slo"] = [SLO_GUESS]
    try:
        return render_requirement(
            name=name or _name(trace),
            model=model,
            prompt_tokens=token_spec(prompts.distribution),
            output_tokens=token_spec(outputs.distribution),
            prefix_hit_rate=hit_rate,
            sessions=sessions,
            arrival=arrival,
            burst_rate=burst_rate,
            burst_duration=f"{BURST_WINDOW_S:g}s",
            slo=_possible(GUESSED_SLO if slo is None else slo, outputs.distribution),
            remarks=remarks,
        )
    except RequirementError as error:
        raise BadInput(f"{trace.name}: what was found in it makes no requirement: {error}") from error


def profile_of_trace(
    trace: Trace, *, streaming: bool = True, speed_up: float = 1.0, rate_rps: float | None = None
) -> RequestProfile:
    """What the requests of ``trace`` look like, replayed ``speed_up`` times as fast: lengths, sharing, mean rate.

    rate_rps: of a trace without times; 1/s where it is not given. For telling what was replayed, not for replaying it.
    """
    found = trace.rate_rps
    arrival = Arrival(rate_rps=rate_rps or (1.0 if found is None else found * speed_up))
    if trace.times_s is not None and trace.requests >= LEAST_ARRIVALS and found is not None:
        cv = min(fit_arrivals(trace.times_s, trace.requests / found).cv, MAX_CV)
        if cv > 0 and not POISSON_CV[0] <= cv <= POISSON_CV[1]:
            arrival = Arrival(process=ArrivalProcess.GAMMA, rate_rps=arrival.rate_rps, cv=cv)
    shared = 0.0 if trace.blocks is None else min(reuse(trace.blocks, trace.prompt_tokens), 0.99)
    return RequestProfile(
        prompt_tokens=fit_tokens(trace.prompt_tokens).distribution,
        output_tokens=fit_tokens(trace.output_tokens).distribution,
        prefix_hit_rate=shared if shared >= LEAST_HIT_RATE else None,
        streaming=streaming,
        arrival=arrival,
    )


def token_spec(distribution: TokenDistribution) -> TokenSpec:
    """A distribution as a requirement file has it."""
    match distribution:
        case ConstantTokens(value=value):
            return value
        case UniformTokens(min=low, max=high):
            return {"min": low, "max": high}
        case LognormalTokens(median=median, p95=p95, min=low, max=high):
            return {"median": _plain(median), "p95": _plain(p95), "min": low, "max": high}
        case ChoiceTokens(values=values, weights=weights):
            return {"values": list(values), **({} if weights is None else {"weights": list(weights)})}


def token_words(what: str, fit: TokenFit, tokens: np.ndarray | None = None) -> str:
    """What was seen of prompts or answers, and what became of it, in a sentence or two."""
    seen = f"Seen: {what} of {fit.mean:.4g} tokens on average"
    if tokens is not None:
        p50, p95, p99 = (int(value) for value in np.percentile(tokens, [50, 95, 99], method="inverted_cdf"))
        seen += f", median {p50}, P95 {p95}, P99 {p99}, from {tokens.min()} to {tokens.max()}"
    match fit.distribution:
        case LognormalTokens():
            return f"{seen}. A log-normal fits: the shares below any length differ by at most {fit.distance:.1%}."
        case ChoiceTokens():
            return f"{seen}. No log-normal fits, so these are values with their weights as they were seen, in groups."
        case _:
            return f"{seen}."


def arrival_spec(fit: ArrivalFit) -> dict[str, object]:
    """Arrivals with this rate and variation as a requirement file has them."""
    rate = f"{fit.rate_rps:.4g}/s"
    if POISSON_CV[0] <= fit.cv <= POISSON_CV[1]:
        return {"process": "poisson", "rate": rate}
    if fit.cv < CONSTANT_CV:
        return {"process": "constant", "rate": rate}
    return {"process": "gamma", "rate": rate, "cv": float(f"{min(fit.cv, MAX_CV):.3g}")}


def _arrival(trace: Trace, rate: str | None, remarks: dict[str, list[str]]) -> tuple[Mapping[str, object], str | None]:
    """The arrivals, and the rate of a burst if there was one; writes what was seen into ``remarks``."""
    duration_s = trace.duration_s
    if trace.times_s is None or not duration_s or trace.requests < LEAST_ARRIVALS:
        given = f"{rate}, as you said" if rate else f"{GUESSED_RATE}, a guess"
        remarks["arrival"] = [f"The trace has no times to tell the rate from: {given}."]
        return {"process": "poisson", "rate": rate or GUESSED_RATE}, None
    if rate:
        raise BadInput("--rate: the trace has times, which show the rate; leave it out, or change it in the file afterwards")
    fit = fit_arrivals(trace.times_s, duration_s)
    remarks["arrival"] = [_arrival_words(trace, fit, duration_s)]
    if fit.simultaneous > ROUNDED_TIMES:
        remarks["arrival"].append(
            f"{fit.simultaneous:.0%} of the requests have the time of the one before: the times look rounded, so the "
            "variation of the gaps is not to be relied on."
        )
    if duration_s < LEAST_FOR_BURSTS_S:
        remarks["arrival"].append(f"That is too short to tell whether there are bursts of {BURST_WINDOW_S:g} s.")
        return arrival_spec(fit), None
    times = fit.peak_rps / fit.rate_rps
    peak = f"The busiest {BURST_WINDOW_S:g} s had {fit.peak_rps:.4g} requests/s, {times:.2f} times the mean"
    if not fit.bursty:
        remarks["arrival"].append(f"{peak}: chance alone explains that, so there is no burst here.")
        return arrival_spec(fit), None
    remarks["burst"] = [f"{peak}: more than chance explains."]
    return arrival_spec(fit), f"{fit.peak_rps:.4g}/s"


def _arrival_words(trace: Trace, fit: ArrivalFit, duration_s: float) -> str:
    words = (
        f"Seen: {trace.requests} requests in {duration_s:.4g} s, {fit.rate_rps:.4g}/s; the gaps have a coefficient of "
        f"variation of {fit.cv:.2f} (1 is Poisson)"
    )
    if fit.dispersion is not None:
        words += f", the counts of {BURST_WINDOW_S:g} s a variance of {fit.dispersion:.1f} times their mean (1 is Poisson)"
    return f"{words}."


def _hit_rate(trace: Trace, remarks: dict[str, list[str]]) -> str | None:
    if trace.blocks is None:
        return None
    found = reuse(trace.blocks, trace.prompt_tokens)
    if found < LEAST_HIT_RATE:
        return None
    remarks["prefix_hit_rate"] = [
        f"Seen: {found:.1%} of the prompt tokens are in blocks that came before; a cache that forgets nothing finds so many."
    ]
    return f"{min(found, 0.99):.1%}"


def reuse(blocks: Blocks, prompt_tokens: np.ndarray) -> float:
    """The share of all prompt tokens that stand in blocks, from the first of a prompt on, which an earlier prompt had."""
    longest: dict[int, int] = {}
    hits = 0
    for index in range(prompt_tokens.size):
        left = int(prompt_tokens[index])
        found = True
        for number, size in blocks.of(index):
            tokens = min(size, left)
            found = found and number in longest
            if found:
                hits += min(tokens, longest[number])
            longest[number] = max(longest.get(number, 0), tokens)
            left -= tokens
    return hits / max(int(prompt_tokens.sum()), 1)


def _sessions(trace: Trace, remarks: dict[str, list[str]]) -> Mapping[str, object] | None:
    turns = np.array([len(conversation) for conversation in trace.conversations], dtype=np.int64)
    if not turns.size or turns.max() == 1:
        return None
    fit = fit_tokens(turns)
    seen = f"Seen: conversations of {fit.mean:.3g} turns on average, at most {turns.max()}."
    guess = f"How long people think between turns is not in the file: {GUESSED_THINK_TIME} is a guess."
    remarks["sessions"] = [f"{seen} {guess}"]
    return {"turns": token_spec(fit.distribution), "think_time": GUESSED_THINK_TIME}


def _name(trace: Trace) -> str:
    """That of the file, or of the run folder it is in."""
    path = Path(trace.name)
    return (path.absolute().parent.name if trace.format == "setpoint" else path.stem)[:100] or "trace"


def _possible(slo: LimitSpec, outputs: TokenDistribution) -> LimitSpec:
    """The limits without those on gaps, where answers have a single token."""
    return {metric: limit for metric, limit in slo.items() if outputs.largest > 1 or metric not in ("itl", "tpot")}


def _origin(trace: Trace) -> str:
    counts = "" if trace.exact else "; the counts of tokens are estimates from the length of the text"
    return f"Written from {Path(trace.name).name} ({trace.format}, {trace.requests} requests{counts})."


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value
