"""Four kinds of work, each under the configurations that are best for the others, on the same card."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.simulated import BISECTIONS, at_rate, most_carried_rps, put, requirement_of, system, vllm_like
from setpoint.record import PhaseMeasures
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import round_percent
from setpoint.requirement import LatencyMetric, Requirement

HARDWARE = "h100-sxm"
HEAD = "name: {name}\nmodel: llama-3.1-8b\nprofile:\n  arrival: {{rate: 1/s}}\n"
PROFILES = {
    "coding-assistant": "  prompt_tokens: {median: 700, p95: 2000, max: 4000}\n  output_tokens: {median: 300, p95: "
    "600, max: 1000}\n"
    "slo:\n  ttft: {p95: 300ms}\n  itl: {p99: 20ms}\n",
    "recommendation": "  prompt_tokens: {min: 150, max: 250}\n  output_tokens: {min: 4, max: 8}\n  streaming: false\n"
    "slo:\n  e2e: {p99: 150ms}\n",
    "document-classification": "  prompt_tokens: {min: 3000, max: 5000}\n  output_tokens: {min: 1, max: 4}\n  "
    "streaming: false\n"
    "slo:\n  e2e: {p95: 500ms}\n",
    "night-batch": "  prompt_tokens: {median: 800, p95: 1600, max: 3000}\n  output_tokens: {min: 300, max: 500}\n  "
    "streaming: false\n",
}
BATCH = "night-batch"
SATURATED_RPS = 200.0
SIZES = ((16, 256), (64, 256), (64, 512), (64, 2048), (256, 512), (256, 2048), (256, 8192))
QUICK = ((64, 256), (64, 2048), (256, 8192))
TIE = 0.02
QUICK_REQUESTS = 250
FIRST_RPS = {"coding-assistant": 4.0, "recommendation": 100.0, "document-classification": 6.0}


def requirements() -> dict[str, Requirement]:
    """The four requirements."""
    found = {}
    for name, text in PROFILES.items():
        profile, _, slo = text.partition("slo:")
        document = f"{HEAD.format(name=name)}{profile}" + (f"slo:{slo}" if slo else "")
        found[name] = requirement_of(document)
    return found


def holds(requirement: Requirement, figures: PhaseMeasures) -> bool:
    """Whether every latency limit holds, by its percentile."""
    summaries = {LatencyMetric.TTFT: figures.ttft_s, LatencyMetric.ITL: figures.itl_s, LatencyMetric.E2E: figures.e2e_s}
    values = [(getattr(summaries[slo.metric], slo.statistic), slo.limit_s) for slo in requirement.slo.latency]
    return all(value is not None and value <= limit_s for value, limit_s in values)


def score(requirement: Requirement, size: tuple[int, int], requests: int, seed: int) -> float:
    """Requests a second that are carried within the limits; without limits output tokens a second of a pile of work."""
    serves = system(HARDWARE, vllm_like(*size))
    if not requirement.slo.latency:
        done = put(at_rate(requirement, SATURATED_RPS), serves, requests=2 * requests, seed=seed).done
        return float(done.ledger.tokens.sum()) / done.end_s

    def carries(rate_rps: float) -> bool:
        return holds(requirement, put(at_rate(requirement, rate_rps), serves, requests=requests, seed=seed).figures())

    return most_carried_rps(carries, FIRST_RPS[requirement.name], BISECTIONS if requests > QUICK_REQUESTS else 3)


def run(size: Size, seed: int) -> Outcome:
    """Every profile under every configuration."""
    sizes, requests = (SIZES, 500) if size is Size.FULL else (QUICK, QUICK_REQUESTS)
    names = [f"{running}x{budget}" for running, budget in sizes]
    scores = {
        name: dict(zip(names, (score(each, size, requests, seed) for size in sizes), strict=True))
        for name, each in requirements().items()
    }
    shares = {name: {key: value / max(by.values()) for key, value in by.items()} for name, by in scores.items()}
    rows = [
        (key, *(f"{scores[name][key]:,.{0 if name == BATCH else 1}f} ({shares[name][key]:.0%})" for name in PROFILES))
        for key in names
    ]
    heads = [f"{name}, {'output tokens/s' if name == BATCH else 'requests/s'}" for name in PROFILES]
    return Outcome(
        expected(shares),
        ("running x tokens a step", *heads),
        rows,
        picture(shares, names),
        {
            "hardware": HARDWARE,
            "requests": requests,
            "scores": scores,
            "source": system(HARDWARE, vllm_like(1, 1)).timer.source,
        },
    )


def expected(shares: dict[str, dict[str, float]]) -> list[Expected]:
    """No configuration is (nearly) best for all; each one that is best somewhere costs a lot elsewhere."""
    best = {name: {key for key, share in by.items() if share >= 1 - TIE} for name, by in shares.items()}
    everywhere = set.intersection(*best.values())
    worst_of_best = [min(by[max(own, key=lambda key: own[key])] for by in shares.values()) for own in shares.values()]
    compromise = max(min(by[key] for by in shares.values()) for key in next(iter(shares.values())))
    return [
        Expected("configurations that are within 2 % of the best for all four", len(everywhere), "at most", 0),
        Expected(
            "profiles whose own best is under 80 % of the best somewhere else",
            sum(w < 0.8 for w in worst_of_best),
            "at least",
            2,
        ),
        Expected("the best compromise, of the best, where it is worst", compromise, "at most", 0.95),
    ]


def picture(shares: dict[str, dict[str, float]], names: list[str]) -> Picture:
    """The share of the best, by configuration."""
    xs = np.arange(len(names), dtype=np.float64)
    lines = [Series(name, xs, np.array([by[key] for key in names])) for name, by in shares.items()]
    return Picture(
        "Four profiles under the same configurations on one H100 (simulated)",
        "running x tokens a step",
        [Strip("of what the best configuration gives", lines, round_percent)],
        x_form=lambda at: names[int(at)] if at == int(at) and 0 <= at < len(names) else "",
    )


EXPERIMENT = Experiment(
    name="profiles",
    claim="Profiles need different configurations on the same hardware",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 under vLLM's scheduler on one H100.",
    method="A coding assistant (TTFT P95 300 ms, ITL P99 20 ms), a recommendation slot (E2E P99 150 ms), document "
    "classification (prompts of "
    "4,000 tokens, E2E P95 500 ms) and a night batch (no limits), each under every pair of most running requests and "
    "most new "
    "tokens a step. Scored by the load that is carried within the limits, and by output tokens a second where there "
    "are none.",
    shape="No pair is within 2 % of the best for all four; for at least two of them their own best gives some other "
    "profile less than "
    "80 % of what it could have; the best compromise loses at least 5 % somewhere.",
    reading="Small steps keep gaps short and cost throughput; large ones take a prompt whole. A compromise can come "
    "near on all four, but only "
    "somebody who measured all four would find it; taking one profile's best for another costs up to three quarters. On this "
    "project's own engine the same is measured by `benchmarks/profiles/cross_table.py`.",
    run=run,
)
