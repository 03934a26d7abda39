"""The engine's numbers at one moment, read off its step loop."""

from __future__ import annotations

from setpoint.engine.service import EngineGauges, GuessTotals, SpeculationTotals
from setpoint.engine.speculation.guesses import GuessCounters
from setpoint.engine.speculation.speculator import SpeculationCounters
from setpoint.engine.step_loop import StepLoop


def gauges_of(steps: StepLoop, now_s: float, restarts_total: int, stalls_total: int) -> EngineGauges:
    """A snapshot; counters are read without a lock, each is a single number."""
    counters = steps.counters
    return EngineGauges(
        now_s=now_s,
        waiting=len(steps.waiting),
        running=len(steps.running),
        kv_blocks=steps.pool.blocks,
        kv_used_blocks=steps.pool.used,
        steps_total=steps.steps.total,
        step_seconds_total=steps.steps.seconds_total,
        prefix_queries_total=counters.prefix_queries,
        prefix_hits_total=counters.prefix_hits,
        preemptions_total=counters.preemptions,
        shed_total=counters.shed,
        rejected_total=counters.rejected,
        prompt_tokens_total=counters.prompt_tokens,
        output_tokens_total=counters.output_tokens,
        admissions=dict(counters.admissions),
        prediction_error=None if steps.step_time is None else steps.step_time.recent_error,
        prediction_source="" if steps.step_time is None else steps.step_time.source,
        restarts_total=restarts_total,
        stalls_total=stalls_total,
        speculation=None if steps.speculator is None else _totals(steps.speculator.counters, steps.speculator.guesses),
    )


def _totals(counters: SpeculationCounters, guesses: GuessCounters) -> SpeculationTotals:
    return SpeculationTotals(
        drafts=counters.drafts,
        draft_tokens=counters.draft_tokens,
        accepted_tokens=counters.accepted_tokens,
        accepted_per_position=tuple(counters.accepted_per_position),
        draft_seconds=counters.draft_seconds,
        verify_seconds=counters.verify_seconds,
        guesses=GuessTotals(guesses.looked, guesses.found, tuple(guesses.tried), tuple(guesses.stood)),
    )
