"""Whether each policy could have fired at all, and how near it came: a gate at 90 % that never saw 35 % decided nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from setpoint.loop.explain.explanation import PolicyFinding, Status
from setpoint.loop.explain.run import Decision, ExplainedRun
from setpoint.policy.backlog import KV_WATERMARK
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.views import BATCH
from setpoint.report.format import percent, seconds
from setpoint.requirement import LatencyMetric

KV_GATE = 0.9


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the findings rest on. ``asked``: admissions and refusals; limits as the server declared them, by metric."""

    run: ExplainedRun
    config: ServingConfig | None
    asked: list[Decision]
    joins: list[Decision]
    kinds: Counter[str]
    refusals: Counter[str]
    limits: dict[str, float]

    @property
    def by_deadline(self) -> bool:
        """Whether the run's policy knows deadlines."""
        return self.config is not None and self.config.mode is BatchingMode.SETPOINT

    @property
    def kv_peak(self) -> float | None:
        """Largest share of the cache in use."""
        steps = self.run.steps
        return None if steps is None or not steps.kv_blocks else float(steps.kv_used_blocks.max()) / steps.kv_blocks


def policy_findings(run: ExplainedRun) -> list[PolicyFinding]:
    """One finding for every policy, in the order in which a request meets them."""
    every = run.every_decision
    asked = [each for each in every if each.kind in ("admit", "reject")]
    evidence = _Evidence(
        run=run,
        config=run.config,
        asked=asked,
        joins=[each for each in every if each.kind == "join"],
        kinds=Counter(each.kind for each in every),
        refusals=Counter(each.code for each in every if each.kind == "reject"),
        limits=_limits(run, asked),
    )
    found = [finding(evidence) for finding in _FINDINGS]
    if not run.missing_decisions:
        return found
    return [_at_least(each, run.missing_decisions) if each.name in _BY_DECISIONS else each for each in found]


def _at_least(found: PolicyFinding, missing: int) -> PolicyFinding:
    """A count of decisions of which some were not read."""
    if found.status is Status.IDLE:
        return replace(found, status=Status.UNKNOWN, words=f"in what is known it did not, and {missing} decisions are missing")
    if found.status is not Status.FIRED:
        return found
    return replace(found, words=f"{found.words}; at least {found.fired}, as {missing} decisions are missing")


def _limits(run: ExplainedRun, asked: list[Decision]) -> dict[str, float]:
    """What admission was told of limits; where it recorded none, what the requirement declares."""
    limits: dict[str, float] = {}
    for name in ("ttft", "e2e"):
        told = [each.operands[f"{name}_limit_s"] for each in asked if f"{name}_limit_s" in each.operands]
        if told:
            limits[name] = min(told)
    if run.requirement is not None:
        for metric in (LatencyMetric.TTFT, LatencyMetric.E2E, LatencyMetric.ITL, LatencyMetric.TPOT):
            limit_s = run.requirement.slo.limit_s(metric)
            if limit_s is not None:
                limits.setdefault(str(metric), limit_s)
    return limits


def _unknown(name: str, evidence: _Evidence) -> PolicyFinding | None:
    """Where neither decisions nor steps are recorded, nothing can be said."""
    if evidence.run.decisions is None and evidence.run.steps is None:
        return PolicyFinding(name, Status.UNKNOWN, 0, "this server records no decisions")
    return None


def _not_this_mode(name: str, evidence: _Evidence) -> PolicyFinding | None:
    unknown = _unknown(name, evidence)
    if unknown is not None or evidence.by_deadline:
        return unknown
    mode = "this configuration" if evidence.config is None else f"mode {evidence.config.mode}"
    return PolicyFinding(name, Status.IMPOSSIBLE, 0, f"{mode} does not have it; only setpoint decides by deadlines")


def _by_forecast(metric: str, shown: str) -> Callable[[_Evidence], PolicyFinding]:
    name = f"admission by {shown} forecast"

    def finding(evidence: _Evidence) -> PolicyFinding:
        barred = _not_this_mode(name, evidence)
        if barred is not None:
            return barred
        if metric not in evidence.limits and not (metric == "itl" and "tpot" in evidence.limits):
            return PolicyFinding(name, Status.IMPOSSIBLE, 0, f"no {shown} limit is declared")
        if evidence.run.decisions is None:
            return PolicyFinding(name, Status.UNKNOWN, 0, "the run has no decisions.parquet")
        fired = evidence.refusals[f"{metric}_would_be"]
        return PolicyFinding(name, Status.FIRED if fired else Status.IDLE, fired, _nearest(metric, fired, evidence))

    return finding


def _nearest(metric: str, fired: int, evidence: _Evidence) -> str:
    """Refusals of those it looked at; or the forecast that came nearest to its limit."""
    looked = [each for each in evidence.asked if f"{metric}_limit_s" in each.operands]
    if not looked:
        return f"never asked: all {len(evidence.asked)} requests found an idle engine, or were refused for another reason"
    if fired:
        return f"refused {fired} of {len(looked)} requests it looked at"

    def share(each: Decision) -> float:
        kept_s = each.operands.get(f"{metric}_margin_s", 0.0)
        return (each.operands[f"{metric}_s"] + kept_s) / each.operands[f"{metric}_limit_s"]

    nearest = max(looked, key=share)
    operands = nearest.operands
    return (
        f"looked at {len(looked)} requests; the nearest forecast was {seconds(operands[f'{metric}_s'])} of"
        f" {seconds(operands[f'{metric}_limit_s'])}, {percent(share(nearest))} of the limit with its margin"
    )


def _by_kv(evidence: _Evidence) -> PolicyFinding:
    name, steps = "admission by KV space", evidence.run.steps
    if steps is None or evidence.kv_peak is None:
        return _unknown(name, evidence) or PolicyFinding(name, Status.UNKNOWN, 0, "the run has no steps.parquet")
    places = evidence.config.max_running if evidence.config is not None else int(steps.measured.running.max())
    full = (steps.kv_used_blocks > KV_GATE * steps.kv_blocks) & (steps.waiting > 0) & (steps.measured.running < places)
    fired = int(np.count_nonzero(full))
    if fired:
        words = (
            f"in {fired} of {len(steps)} steps requests waited beside free places, over {percent(KV_GATE)} of the cache in use"
        )
        return PolicyFinding(name, Status.FIRED, fired, words)
    words = (
        f"the cache peaked at {percent(evidence.kv_peak)} of {steps.kv_blocks} blocks; joining is held up where a prompt"
        f" does not fit, and forecasts count on all but {percent(KV_WATERMARK)}"
    )
    return PolicyFinding(name, Status.IDLE, 0, words)


def _by_queue_bound(evidence: _Evidence) -> PolicyFinding:
    name, fired = "bound of the queue", evidence.refusals["queue_full"]
    steps = evidence.run.steps
    most = 0 if steps is None else int(steps.waiting.max())
    if evidence.run.decisions is None:
        words = f"the run has no decisions.parquet; after steps at most {most} waited"
        return _unknown(name, evidence) or PolicyFinding(name, Status.UNKNOWN, 0, words)
    if evidence.asked:
        most = max(int(each.operands.get("waiting", 0)) for each in evidence.asked)
    bounds = {each.operands["max_waiting"] for each in evidence.asked if "max_waiting" in each.operands}
    bound = next(iter(bounds), None) if evidence.run.inferred or evidence.config is None else evidence.config.max_waiting
    words = f"at most {most} waited" + (
        f", the bound is {bound:.0f}" if bound is not None else "; the run does not tell the bound"
    )
    return PolicyFinding(name, Status.FIRED if fired else Status.IDLE, fired, words)


def _doomed(evidence: _Evidence) -> PolicyFinding:
    name = "doomed-drop"
    barred = _not_this_mode(name, evidence)
    if barred is not None:
        return barred
    if not evidence.limits.keys() & {"ttft", "e2e"}:
        return PolicyFinding(name, Status.IMPOSSIBLE, 0, "no TTFT or E2E limit is declared, so nobody can be doomed")
    fired = evidence.kinds["shed"]
    if evidence.run.decisions is None:
        return PolicyFinding(name, Status.UNKNOWN, 0, "the run has no decisions.parquet")
    first = [each for each in evidence.joins if not each.operands.get("preemptions") and "left_s" in each.operands]
    if fired or not first:
        return PolicyFinding(name, Status.FIRED if fired else Status.IDLE, fired, f"{fired} waiting requests were dropped")
    nearest = min(first, key=lambda each: each.operands["left_s"])
    words = (
        f"nobody who waited became too late; the nearest joined after {seconds(nearest.operands['waited_s'])} with"
        f" {seconds(nearest.operands['left_s'])} left"
    )
    return PolicyFinding(name, Status.IDLE, 0, words)


def _slack(evidence: _Evidence) -> PolicyFinding:
    name = "slack-sized prefill"
    barred = _not_this_mode(name, evidence)
    if barred is not None or evidence.run.steps is None:
        return barred or PolicyFinding(name, Status.UNKNOWN, 0, "the run has no steps.parquet")
    codes = Counter(evidence.run.steps.codes)
    cut, ample = codes["slack"] + codes["floor"], codes["slack_ample"] + codes["nothing_at_risk"]
    if not cut + ample:
        return PolicyFinding(name, Status.IDLE, 0, "no step had both prompts to compute and answers to protect")
    words = f"cut the prompt part of {cut} of {cut + ample} steps that had prompts to compute; in {ample} everything fitted"
    return PolicyFinding(name, Status.FIRED if cut else Status.IDLE, cut, words)


def _floor(evidence: _Evidence) -> PolicyFinding:
    name = "floor of prefill"
    barred = _not_this_mode(name, evidence)
    if barred is not None or evidence.run.steps is None:
        return barred or PolicyFinding(name, Status.UNKNOWN, 0, "the run has no steps.parquet")
    fired = Counter(evidence.run.steps.codes)["floor"]
    if fired:
        return PolicyFinding(
            name, Status.FIRED, fired, f"in {fired} steps no prompt fitted the slack and the least part was computed"
        )
    return PolicyFinding(name, Status.IDLE, 0, "the slack was never under the floor")


def _preemption(evidence: _Evidence) -> PolicyFinding:
    name = "preemption"
    if evidence.kv_peak is None:
        return _unknown(name, evidence) or PolicyFinding(name, Status.UNKNOWN, 0, "the run has no steps.parquet")
    fired = evidence.kinds["preempt"]
    if evidence.run.decisions is None and evidence.run.steps is not None:
        fired = int(evidence.run.steps.preempted.sum())
    words = f"the cache peaked at {percent(evidence.kv_peak)}; it takes a full one"
    return PolicyFinding(name, Status.FIRED if fired else Status.IDLE, fired, words)


def _promises(evidence: _Evidence) -> PolicyFinding:
    name = "time to come back"
    barred = _not_this_mode(name, evidence)
    if barred is not None or evidence.run.decisions is None:
        return barred or PolicyFinding(name, Status.UNKNOWN, 0, "the run has no decisions.parquet")
    fired, told = evidence.refusals["too_early"], evidence.refusals.total()
    if fired:
        words = f"refused {fired} times what came back before the time it was told"
        return PolicyFinding(name, Status.FIRED, fired, words)
    words = f"{told} requests were refused; none came back before the time it was told" if told else "nobody was refused"
    return PolicyFinding(name, Status.IDLE, 0, words)


def _tenants(evidence: _Evidence) -> PolicyFinding:
    name = "fairness between tenants"
    barred = _not_this_mode(name, evidence)
    if barred is not None or not evidence.asked:
        return barred or PolicyFinding(name, Status.UNKNOWN, 0, "the run has no decisions.parquet")
    tenants = len({each.operands.get("tenant", 0.0) for each in evidence.asked})
    if tenants < 2:
        return PolicyFinding(name, Status.IMPOSSIBLE, 0, "all requests came from one tenant")
    joined, refused = sum(each.code == "tenants" for each in evidence.joins), evidence.refusals["others_would_wait"]
    fired = joined + refused
    words = f"{tenants} tenants; {joined} requests joined while several tenants were in the queue"
    if refused:
        words += f", {refused} were refused as their tenant was over its share"
    return PolicyFinding(name, Status.FIRED if fired else Status.IDLE, fired, words)


def _batch(evidence: _Evidence) -> PolicyFinding:
    name = "batch class"
    barred = _not_this_mode(name, evidence)
    if barred is not None or not evidence.asked:
        return barred or PolicyFinding(name, Status.UNKNOWN, 0, "the run has no decisions.parquet")
    batch = sum(each.operands.get("request_class") == BATCH for each in evidence.asked)
    if not batch:
        return PolicyFinding(name, Status.IMPOSSIBLE, 0, "no request was of the batch class")
    fired = sum(each.code in ("class", "aged_batch") for each in evidence.joins)
    words = f"{batch} batch requests; {fired} requests joined while both classes were in the queue"
    return PolicyFinding(name, Status.FIRED if fired else Status.IDLE, fired, words)


def _prefix_cache(evidence: _Evidence) -> PolicyFinding:
    name = "prefix cache"
    known = [row for row in evidence.run.rows if row["cached_tokens"] is not None and row["prompt_tokens"]]
    if not known:
        return PolicyFinding(name, Status.UNKNOWN, 0, "the run does not tell cached tokens")
    hits = [row for row in known if row["cached_tokens"] > 0]
    if hits:
        share = sum(row["cached_tokens"] for row in hits) / sum(row["prompt_tokens"] for row in known)
        return PolicyFinding(name, Status.FIRED, len(hits), f"{percent(share)} of prompt tokens were found in it")
    if not evidence.run.own_engine:
        words = "the server told of no cached token; what it keeps is not known"
        return PolicyFinding(name, Status.UNKNOWN, 0, words)
    longest = max(row["prompt_tokens"] for row in known)
    block = evidence.run.block_tokens
    if longest <= block:
        return PolicyFinding(name, Status.IMPOSSIBLE, 0, f"no prompt is longer than a block of {block} tokens")
    return PolicyFinding(
        name, Status.IDLE, 0, f"no two prompts began with the same {block} tokens while the first was still cached"
    )


_FINDINGS: tuple[Callable[[_Evidence], PolicyFinding], ...] = (
    _by_forecast("ttft", "TTFT"),
    _by_forecast("e2e", "E2E"),
    _by_forecast("itl", "ITL"),
    _by_kv,
    _by_queue_bound,
    _promises,
    _doomed,
    _slack,
    _floor,
    _preemption,
    _tenants,
    _batch,
    _prefix_cache,
)
_BY_DECISIONS = frozenset(
    {
        "admission by TTFT forecast",
        "admission by E2E forecast",
        "admission by ITL forecast",
        "bound of the queue",
        "time to come back",
        "doomed-drop",
        "fairness between tenants",
        "batch class",
    }
)
"""What is counted by decisions; the others by steps or requests."""
