"""A load through a system of replicas on a virtual clock.

The system's parts are the ones that serve: the policy of ``policy/modes.py``, the engine's step loop and its rules for blocks
(``simulate/stretch_loop.py`` says how). A simulation is deterministic: the same load, system and seed give the same columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any

from setpoint.engine.simulated import VirtualClock
from setpoint.engine.speculation.speculator import SpeculationCounters
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.simulate.drafter import Drafting
from setpoint.simulate.drafting_loop import DraftingLoop
from setpoint.simulate.gaps import GapAccount
from setpoint.simulate.ledger import Ledger
from setpoint.simulate.load import Load
from setpoint.simulate.replica import Replica
from setpoint.simulate.router import Router, Routing
from setpoint.simulate.sequences import SimulatedSequence
from setpoint.simulate.speculating import speculator_of, teach_drafts
from setpoint.simulate.stretch_loop import StretchLoop
from setpoint.simulate.taught import taught_model
from setpoint.simulate.timing import Noise, Overheads, StepTimer, Timing

MOST_REPLICAS = 1024
ROWS_AT_ONCE = 1 << 14


class Flavour(StrEnum):
    """Whose engine: what differs is how it is configured and how long its steps take, never a rule of its own."""

    SETPOINT = "setpoint"
    VLLM = "vllm"


@dataclass(frozen=True, slots=True)
class SimulatedSystem:
    """What serves: ``replicas`` alike, each with ``kv_blocks`` blocks of ``block_tokens`` tokens, under ``configuration``.

    model: makes what the policy of a replica knows of the machine to begin with, learning included; ``None``: it knows
    ``timer`` as it is. drafting: what guesses where ``configuration`` speculates, and how well. context_tokens: the longest
    prompt and answer that the model takes, ``None``: what the cache holds.
    """

    timer: StepTimer
    kv_blocks: int
    block_tokens: int
    configuration: ServingConfig
    replicas: int = 1
    flavour: Flavour = Flavour.SETPOINT
    routing: Routing = Routing.ROUND_ROBIN
    overheads: Overheads = field(default_factory=Overheads)
    noise: Noise = field(default_factory=Noise)
    model: Callable[[], StepTimeModel] | None = None
    drafting: Drafting | None = None
    context_tokens: int | None = None


@dataclass(slots=True)
class Simulated:
    """What became of a load: columns by request, gaps by phase, and totals over all replicas.

    end_s: when the last step ended. steps: made in all. busy_s: seconds in steps, over all replicas. peak_kv: largest
    share of blocks in use. drafts: what became of them, over all replicas and from the start.
    """

    load: Load
    ledger: Ledger
    gaps: GapAccount
    end_s: float
    steps: int
    busy_s: float
    peak_kv: float
    overheads: Overheads
    configuration: ServingConfig
    drafts: SpeculationCounters = field(default_factory=SpeculationCounters)


def simulate(load: Load, system: SimulatedSystem, *, seed: int = 0, gap_limits_s: tuple[float, ...] = ()) -> Simulated:
    """Put ``load`` on ``system``. ``gap_limits_s``: gaps are counted as late against each of these.

    Raises ``ValueError`` for a load or a system that cannot be.
    """
    load.check()
    if not 1 <= system.replicas <= MOST_REPLICAS:
        raise ValueError(f"replicas is {system.replicas}; allowed: 1 to {MOST_REPLICAS}")
    spans = tuple((phase.start_s, phase.end_s) for phase in load.phases)
    gaps = GapAccount(len(load.phases), gap_limits_s, spans)
    ledger = Ledger(len(load), len(gap_limits_s))
    accounts = [gaps, *(GapAccount(len(load.phases), gap_limits_s, spans) for _ in range(system.replicas - 1))]
    replicas = [_replica(load, system, ledger, account, (seed, number)) for number, account in enumerate(accounts)]
    _drive(load, system, replicas, ledger)
    for replica in replicas:
        replica.loop.close()
    for account in accounts:
        account.flush()
    for other in accounts[1:]:
        gaps.take(other)
    return Simulated(
        load=load,
        ledger=ledger,
        gaps=gaps,
        end_s=max(replica.loop.last_end_s for replica in replicas),
        steps=sum(replica.loop.steps.total for replica in replicas),
        busy_s=sum(replica.loop.steps.seconds_total for replica in replicas),
        peak_kv=max(replica.loop.peak_used_blocks for replica in replicas) / system.kv_blocks,
        overheads=system.overheads,
        configuration=system.configuration,
        drafts=_drafts_of(replica.loop for replica in replicas),
    )


def _replica(load: Load, system: SimulatedSystem, ledger: Ledger, gaps: GapAccount, seed: tuple[int, ...]) -> Replica:
    clock = VirtualClock()
    known = system.model
    model = known() if known else taught_model(system.timer, system.configuration, system.overheads)
    policy = build_policy(system.configuration, model)
    parts: dict[str, Any] = {
        "blocks": system.kv_blocks,
        "block_tokens": system.block_tokens,
        "timing": Timing(system.timer, system.overheads, system.noise, seed),
        "ledger": ledger,
        "gaps": gaps,
        "phases": len(load.phases),
        "limits": any(kind.limited for kind in load.kinds),
        "whole_answers": not all(kind.streaming for kind in load.kinds),
        "context_tokens": system.context_tokens,
    }
    if system.configuration.speculation is SpeculationMode.OFF:
        return Replica(StretchLoop(policy, clock, **parts), clock)
    if system.drafting is None:
        raise ValueError("the configuration speculates, and nobody said how many guesses come true")
    speculator = speculator_of(system.drafting, system.configuration, clock, seed=seed[0])
    if system.drafting.warmed_up:
        teach_drafts(policy, system.drafting, system.configuration, system.timer, system.overheads)
    return Replica(DraftingLoop(policy, clock, speculator=speculator, **parts), clock)


def _drafts_of(loops: Iterable[StretchLoop]) -> SpeculationCounters:
    total = SpeculationCounters()
    for loop in loops:
        if loop.speculator is not None:
            total.take(loop.speculator.counters)
    return total


def _drive(load: Load, system: SimulatedSystem, replicas: list[Replica], ledger: Ledger) -> None:
    """Every request to the replica that the router chooses, when it arrives; then on to the end, or until the drain is over."""
    router = Router(system.routing, replicas)
    receive_s, size = system.overheads.receive_s, system.block_tokens
    requests = [kind.as_request() for kind in load.kinds]
    for row, (sent_s, prompt, output, cap, phase) in enumerate(_rows(load)):
        at_s = sent_s + receive_s
        number, replica = router.choose(at_s)
        ledger.replica[row] = number
        sequence = SimulatedSequence(
            row,
            requests[0 if load.kind is None else load.kind[row]],
            replica.loop.progress,
            row=row,
            phase=phase,
            arrived_s=at_s,
            sent_s=sent_s,
            prompt_tokens=prompt,
            target_tokens=output,
            cap_tokens=cap,
            named=load.named(row, size),
            fingerprint=row + 1,
        )
        replica.offer(sequence)
    until_s = load.phases[-1].end_s + load.drain_s if load.phases else inf
    followed = load.followed

    def enough() -> bool:
        return bool(ledger.ending[:followed].all())

    for replica in replicas:
        replica.advance(until_s, None if followed is None else enough)


def _rows(load: Load) -> Iterator[tuple[float, int, int, int, int]]:
    """Sends, lengths, caps and phases as Python's numbers, a part of the load at a time."""
    columns = (load.sent_s, load.prompt_tokens, load.output_tokens, load.cap_tokens, load.phase)
    for start in range(0, len(load), ROWS_AT_ONCE):
        yield from zip(*(column[start : start + ROWS_AT_ONCE].tolist() for column in columns), strict=True)
