"""A machine that is not there: the engine's own step loop on a virtual clock, whose steps take what a true line and noise say.

What it gives back is a measurement like any other: rows of requests, steps and decisions, judged by the rules for real runs.
The loop under test knows nothing of the line; what it forecasts with goes another way (``setpoint.simulate.run``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from setpoint.loop.measured import MeasuredRun
from setpoint.loop.schedule import Schedule
from setpoint.loop.tuning.trial import Trial
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.modes import build_policy
from setpoint.record import Measured, Phase, RequestClass, Validity
from setpoint.record.columns import DECISION_COLUMNS, REQUEST_COLUMNS, STEP_COLUMNS
from setpoint.report.figures import PhaseSpan, classify_run, phase_measures, request_slos
from setpoint.report.judge import judge
from setpoint.requirement import Requirement, parse_requirement
from setpoint.simulate.load import Load
from setpoint.simulate.offered import limits_of, load_of_profile
from setpoint.simulate.replay import Arrival, Replayed, World, replay
from setpoint.simulate.sequences import Kind
from setpoint.simulate.taught import taught_model
from setpoint.simulate.timing import LineTimer, Overheads

NEEDED = """
name: virtual
model: smollm2-135m
profile:
  prompt_tokens: {min: 40, max: 120}
  output_tokens: {min: 16, max: 48}
  arrival: {process: poisson, rate: 5/s}
slo:
  ttft: {p90: 400ms}
  itl: {p95: 60ms}
objective: max_goodput
"""
SCHEDULE = Schedule(warmup_s=2.0, sustained_s=16.0, recovery_s=0.0, drain_s=5.0)
TRUE = LineTimer(base_s=0.012, token_s=0.0004, sequence_s=0.0006, kv_token_s=2e-6, product_s=1e-7)
SPACE: Mapping[str, ServingConfig] = {
    "immediate": ServingConfig(mode=BatchingMode.IMMEDIATE, max_running=1, token_budget=2048),
    "static-8": ServingConfig(mode=BatchingMode.STATIC, max_running=8, token_budget=2048),
    "continuous-2": ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=2, token_budget=512),
    "continuous-16": ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=16, token_budget=2048),
    "continuous-16x64": ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=16, token_budget=64),
    "static-32": ServingConfig(mode=BatchingMode.STATIC, max_running=32, token_budget=2048, batch_wait_s=1.0),
}
BLOCK_TOKENS = 32
BETWEEN_S, DELIVER_S = 0.0005, 0.001


def requirement(text: str = NEEDED) -> Requirement:
    return parse_requirement(text, "virtual.yaml")


@dataclass
class VirtualMachine:
    """Measures configurations of a requirement. ``served``: whom it was asked to, in order."""

    needed: Requirement
    timer: LineTimer = TRUE
    noise: float = 0.05
    seed: int = 0
    schedule: Schedule = SCHEDULE
    served: list[str] = field(default_factory=list)

    def __call__(self, name: str, config: ServingConfig) -> Trial:
        dice = np.random.default_rng([self.seed, len(self.served)])
        self.served.append(name)
        load = self._load()
        policy = build_policy(config, taught_model(self.timer, config, Overheads()))
        world = World(
            step_s=lambda work, _: self._step_s(work) * float(dice.lognormal(0.0, self.noise)),
            blocks=config.kv_cache_tokens // BLOCK_TOKENS,
            between_s=BETWEEN_S,
        )
        end_s = load.phases[-1].end_s + self.schedule.drain_s
        done = replay(_arrivals(load), policy, world, until_s=end_s)
        return Trial(name, config, self._measured(name, load, done, end_s), wall_s=1.0)

    def _step_s(self, work: StepWork) -> float:
        base_s, read_s, product_s = self.timer.affine(work.tokens, work.sequences)
        return base_s + read_s * work.kv_tokens_read + product_s * work.attention_products

    def _load(self) -> Load:
        profile = self.needed.profile
        return load_of_profile(
            profile,
            Kind(streaming=profile.streaming, limits=limits_of(self.needed.slo)),
            seed=self.seed,
            warmup_s=self.schedule.warmup_s,
            sustained_s=self.schedule.sustained_s,
            recovery_s=self.schedule.recovery_s,
            drain_s=self.schedule.drain_s,
        )

    def _measured(self, name: str, load: Load, done: Replayed, end_s: float) -> MeasuredRun:
        requests = classify_run(_request_table(name, load, done, end_s), self.needed)
        phase = next(each for each in load.phases if each.phase is Phase.SUSTAINED)
        steps = _step_table(name, done)
        span = PhaseSpan(phase.start_s, phase.end_s)
        figures = phase_measures(requests, Phase.SUSTAINED, span, request_slos(self.needed, Phase.SUSTAINED), steps=steps)
        slo = judge(requests, self.needed)
        return MeasuredRun(
            requests, steps, Measured(sustained=figures), slo, Validity(valid=True), decisions=_decision_table(name, done)
        )


def _arrivals(load: Load) -> list[Arrival]:
    columns = zip(load.sent_s.tolist(), load.prompt_tokens.tolist(), load.output_tokens.tolist(), strict=True)
    limits, streaming = load.kinds[0].limits, load.kinds[0].streaming
    return [
        Arrival(str(row), at_s, prompt, output, output, streaming=streaming, limits=limits)
        for row, (at_s, prompt, output) in enumerate(columns)
    ]


def _request_table(name: str, load: Load, done: Replayed, end_s: float) -> pa.Table:
    rows = []
    for outcome, phase in zip(done.outcomes, load.phase.tolist(), strict=True):
        arrival, times_s = outcome.arrival, [each + DELIVER_S for each in outcome.token_times_s]
        ended = RequestClass.SHED if outcome.refused else RequestClass.OK if outcome.finish else RequestClass.UNFINISHED
        served = ended is RequestClass.OK
        rows.append(
            {
                "candidate": name,
                "request_id": arrival.name,
                "phase": str(load.phases[phase].phase),
                "intended_s": arrival.at_s,
                "sent_s": arrival.at_s,
                "headers_s": times_s[0] if times_s else None,
                "first_token_s": times_s[0] if times_s else None,
                "last_token_s": times_s[-1] if times_s else None,
                "ended_s": outcome.end_s if outcome.end_s is not None else end_s,
                "request_class": str(ended),
                "status": 503 if outcome.refused else 200 if served else None,
                "streaming": arrival.streaming,
                "prompt_tokens": arrival.prompt_tokens,
                "output_tokens": len(times_s),
                "cached_tokens": outcome.cached_tokens,
                "ttft_s": times_s[0] - arrival.at_s if times_s else None,
                "tpot_s": (times_s[-1] - times_s[0]) / (len(times_s) - 1) if len(times_s) > 1 else None,
                "e2e_s": times_s[-1] - arrival.at_s if served else None,
                "max_gap_s": float(np.diff(times_s).max()) if len(times_s) > 1 else None,
                "queue_wait_s": outcome.joined_s - arrival.at_s if outcome.joined_s is not None else None,
                "token_times_s": times_s,
            }
        )
    return pa.table({field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in REQUEST_COLUMNS})


def _step_table(name: str, done: Replayed) -> pa.Table:
    columns, _ = done.steps.columns(0)
    size = len(columns["step"])
    columns["candidate"] = [name] * size
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in STEP_COLUMNS})


def _decision_table(name: str, done: Replayed) -> pa.Table:
    columns, _ = done.decisions.columns(0)
    columns["candidate"] = [name] * len(columns["decision"])
    columns["operands"] = [list(each.items()) for each in columns["operands"] if isinstance(each, dict)]
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in DECISION_COLUMNS})
