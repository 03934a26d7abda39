"""One measurement: a requirement's load on a target, and everything that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from setpoint.loop.errors import BadInput
from setpoint.loop.schedule import Schedule
from setpoint.measure.client import run_load
from setpoint.measure.options import Endpoint, LoadOptions
from setpoint.measure.result import validity
from setpoint.measure.running import Progress
from setpoint.measure.target import Target
from setpoint.record import Candidate, Measured, Phase, Predicted, SloReport, Validity
from setpoint.report.figures import PhaseSpan, classify_run, phase_measures, request_slos
from setpoint.report.judge import judge
from setpoint.requirement import Requirement
from setpoint.workload.plan import LoadPlan, plan_load
from setpoint.workload.prompts import PromptMaker


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One candidate's rows (``record.REQUEST_COLUMNS``, ``STEP_COLUMNS``), figures, SLO report and validity."""

    requests: pa.Table
    steps: pa.Table | None
    measured: Measured
    slo: SloReport
    validity: Validity

    def candidate(self, name: str, config: dict[str, object], predicted: Predicted | None = None) -> Candidate:
        """As an entry of the report."""
        return Candidate(name=name, config=config, predicted=predicted, measured=self.measured, slo=self.slo)


def plan_requests(requirement: Requirement, schedule: Schedule, *, seed: int, make_prompt: PromptMaker) -> LoadPlan:
    """Every request of the run, from one seed, before the first is sent. Raises ``BadInput`` for a load that cannot be."""
    try:
        return plan_load(
            requirement.profile,
            seed=seed,
            warmup_s=schedule.warmup_s,
            sustained_s=schedule.sustained_s,
            burst_repeats=schedule.bursts,
            recovery_s=schedule.recovery_s,
            make_prompt=make_prompt,
        )
    except ValueError as error:
        raise BadInput(f"this load cannot be planned: {error}") from error


def require_room(plan: LoadPlan, model_tokens: int) -> None:
    """Raises ``BadInput`` if a request of ``plan`` is longer, prompt and answer together, than the model takes."""
    longest = max((request.prompt_tokens + request.max_tokens for request in plan.requests), default=0)
    if longest > model_tokens:
        raise BadInput(
            f"a request of {longest} tokens, prompt and answer together, is planned, but the model takes at most"
            f" {model_tokens}: lower prompt_tokens or output_tokens"
        )


def load_options(
    requirement: Requirement, schedule: Schedule, *, endpoint: Endpoint = Endpoint.COMPLETIONS, ignore_eos: bool = True
) -> LoadOptions:
    """The client's options that follow from the requirement."""
    return LoadOptions(
        endpoint=endpoint,
        streaming=requirement.profile.streaming,
        drain_s=schedule.drain_s,
        ignore_eos=ignore_eos,
        slos=requirement.slo,
    )


async def measure(
    target: Target,
    requirement: Requirement,
    plan: LoadPlan,
    options: LoadOptions,
    *,
    name: str,
    on_progress: Callable[[Progress], None] | None = None,
) -> MeasuredRun:
    """Put ``plan`` on ``target`` and judge what happened against ``requirement``."""
    result = await run_load(target, plan, options, on_progress)
    requests = classify_run(result.requests(name), requirement)
    steps = result.steps(name)
    spans = {span.phase: PhaseSpan(span.start_s, span.end_s) for span in plan.phases if span.end_s > span.start_s}

    def figures(phase: Phase) -> object:
        slos = request_slos(requirement, phase)
        return phase_measures(requests, phase, spans[phase], slos, steps=steps, price=requirement.price)

    measured = Measured.model_validate(
        {"sustained": figures(Phase.SUSTAINED), "burst": figures(Phase.BURST) if Phase.BURST in spans else None}
    )
    return MeasuredRun(requests, steps, measured, judge(requests, requirement), validity(result, requirement.slo))
