"""What a plan is asked: the requirement with what its ``plan`` section and the command line say, names looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from setpoint.hardware.accelerator import Accelerator, accelerator, accelerators
from setpoint.hardware.drafting import check_draft
from setpoint.hardware.model_facts import ModelFacts, model_facts, precision_name
from setpoint.plan.economy import Goal
from setpoint.plan.errors import PlanError
from setpoint.plan.headroom import DEFAULT_CONFIDENCE
from setpoint.plan.shadow import Bounds
from setpoint.plan.space import OWN_ENGINE, PARALLEL, Choices, portable
from setpoint.plan.speculating import LONGEST, Allowed
from setpoint.plan.topology import Scheduler
from setpoint.policy.configuration import SpeculationMode
from setpoint.policy.survival import profile_of_shares
from setpoint.requirement import Objective, PlanWishes, Requirement, Speculation

GOALS = {
    Objective.MIN_COST: Goal.COST,
    Objective.MAX_GOODPUT: Goal.COST,
    Objective.MAX_THROUGHPUT: Goal.TOKENS_PER_USD,
    Objective.MIN_LATENCY: Goal.LATENCY,
}
"""At a given load every candidate that holds has the same goodput, so ``max_goodput`` asks for the cheapest one."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says; ``None`` or empty leaves what the requirement says."""

    hardware: Sequence[str] = ()
    prices: Mapping[str, float] = field(default_factory=dict)
    quantization: Sequence[str] = ()
    kv_cache: Sequence[str] = ()
    max_gpus: int | None = None
    goal: Goal | None = None
    load_error: float | None = None
    confidence: float = DEFAULT_CONFIDENCE
    schedulers: Sequence[Scheduler] = tuple(Scheduler)
    parallel: Sequence[int] = PARALLEL
    seed: int = 0
    speculation: Speculation | None = None
    no_speculation: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything a plan starts from. ``load_error``: relative standard deviation of the load to come against ``load_rps``.

    allowed: speculation that may be tried, ``None`` where there is none or nobody said how many guesses come true.
    """

    requirement: Requirement
    model: ModelFacts
    choices: Choices
    bounds: Bounds
    goal: Goal
    load_error: float
    confidence: float
    schedulers: Sequence[Scheduler]
    seed: int
    hardware_named: bool = True
    allowed: Allowed | None = None

    @property
    def load_rps(self) -> float:
        """The offered load of the sustained phase."""
        return self.requirement.profile.arrival.mean_rps


def asked_of(requirement: Requirement, wishes: Wishes) -> Asked:
    """The names looked up. Raises ``PlanError`` and ``HardwareError``, one sentence each."""
    plan = requirement.plan or PlanWishes()
    model = model_facts(requirement.model.source)
    prices = {accelerator(each.hardware).name: each.usd_per_hour for each in plan.prices} | dict(wishes.prices)
    devices = _devices(tuple(wishes.hardware) or plan.hardware, prices)
    price_of: dict[str, float | None] = {device.name: prices.get(device.name, device.price_usd_per_h) for device in devices}
    if OWN_ENGINE in price_of and OWN_ENGINE not in prices and requirement.price is not None:
        price_of[OWN_ENGINE] = requirement.price.usd_per_hour
    if Scheduler.SETPOINT not in wishes.schedulers:
        devices = _of_others(devices)
        price_of.pop(OWN_ENGINE, None)
    goal = wishes.goal or GOALS[requirement.objective]
    missing = [name for name, price in price_of.items() if price is None]
    if missing and goal in (Goal.COST, Goal.TOKENS_PER_USD):
        raise PlanError(f"no price is known for {missing[0]}; give one with --price {missing[0]}=USD_PER_HOUR")
    if missing and plan.max_usd_per_hour is not None:
        raise PlanError(
            f"max_usd_per_hour bounds what the plan may cost, and no price is known for {missing[0]}; give one with "
            f"--price {missing[0]}=USD_PER_HOUR"
        )
    max_gpus = wishes.max_gpus if wishes.max_gpus is not None else plan.max_gpus
    choices = Choices(
        accelerators=devices,
        prices=price_of,
        parallel=wishes.parallel,
        weight_precisions=_precisions(tuple(wishes.quantization) or plan.quantization or (model.native_precision,)),
        kv_precisions=_precisions(tuple(wishes.kv_cache) or plan.kv_cache or ("bf16",)),
        max_gpus=max_gpus,
    )
    return Asked(
        requirement=requirement,
        model=model,
        choices=choices,
        bounds=Bounds(max_gpus, plan.max_usd_per_hour),
        goal=goal,
        load_error=plan.load_uncertainty if wishes.load_error is None else wishes.load_error,
        confidence=wishes.confidence,
        schedulers=wishes.schedulers,
        seed=wishes.seed,
        hardware_named=bool(tuple(wishes.hardware) or plan.hardware),
        allowed=None if wishes.no_speculation else _allowed(wishes.speculation or requirement.speculation, model),
    )


def _allowed(speculation: Speculation | None, model: ModelFacts) -> Allowed | None:
    """Speculation with its draft model looked up. Raises ``HardwareError`` for one that does not fit the model."""
    if speculation is None or speculation.acceptance is None:
        return None
    draft = None if speculation.draft_model is None else model_facts(speculation.draft_model)
    if draft is not None:
        check_draft(model, draft)
    return Allowed(
        drafters=tuple(SpeculationMode(each) for each in speculation.drafters),
        survival=profile_of_shares(speculation.acceptance, LONGEST).survival,
        share=speculation.drafted_share,
        draft=draft,
        name=speculation.draft_model,
    )


def _devices(names: Sequence[str], prices: Mapping[str, float]) -> tuple[Accelerator, ...]:
    """The named ones in their order, each once; without names all of the catalogue with a price, this machine apart."""
    if names:
        return tuple({device.name: portable(device) for device in map(accelerator, names)}.values())
    known = [portable(device) for device in accelerators() if device.name != OWN_ENGINE]
    return tuple(device for device in known if device.price_usd_per_h is not None or device.name in prices)


def _of_others(devices: tuple[Accelerator, ...]) -> tuple[Accelerator, ...]:
    """Those that run an engine other than setpoint's own. Raises ``PlanError`` if none does."""
    found = tuple(device for device in devices if device.name != OWN_ENGINE)
    if not found:
        raise PlanError(
            f"--scheduler vllm: {OWN_ENGINE} runs setpoint's own engine; add --scheduler setpoint, or other hardware"
        )
    return found


def _precisions(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(precision_name(name) for name in names))
