"""What a seed decides: the machine, the configuration, who sends what and how, and what goes wrong.

Everything is drawn once from ``random.Random(seed)``; the same seed is the same world for ever (until this file changes).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.views import RequestLimits

# Of eight seeds in a row three are ``setpoint``, two each ``continuous`` and ``static``.
MODES = (
    BatchingMode.SETPOINT,
    BatchingMode.CONTINUOUS,
    BatchingMode.STATIC,
    BatchingMode.SETPOINT,
    BatchingMode.IMMEDIATE,
    BatchingMode.CONTINUOUS,
    BatchingMode.SETPOINT,
    BatchingMode.STATIC,
)
# Share of worlds whose cache holds hardly more than one whole request, with arrivals for many: preemption is the rule.
CROWDED = 0.3
# Share of worlds with speculation; deciding on drafts in every step makes them take longer than the others.
DRAFTING = 0.15


@dataclass(frozen=True, slots=True)
class Machine:
    """How long steps take (coefficients of ``StepTimeModel``, seconds), and what goes wrong, each a chance in a step.

    slow: a step takes up to 50 times as long. fault: submit or collect raises. jump: the clock leaps by up to ``jump_s``.
    keeps_loop: after a fault the same loop goes on; else executor, loop and policy are built anew.
    """

    coefficients_s: tuple[float, float, float, float, float]
    change_s: float
    noise: float
    slow: float
    fault: float
    jump: float
    jump_s: float
    keeps_loop: bool


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who sends: load against what the machine can do, how arrivals are spread, what requests look like.

    arrivals: ``poisson``, ``bursts`` (in groups with no gap), ``waves`` (on and off) or ``lockstep`` (equal gaps).
    limits: each request has one of these. shares of requests: cancelled, streaming, batch, of the first tenant.
    """

    load: float
    arrivals: str
    prompt_style: str
    output_style: str
    limits: tuple[RequestLimits, ...]
    cancelled: float
    streaming: float
    batch: float
    tenants: int
    first_tenant: float
    families: int
    returning: float
    in_step: float
    stale_s: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """A world. ``model_len``: context length in tokens; the cache may be smaller than that."""

    seed: int
    config: ServingConfig
    blocks: int
    block_tokens: int
    model_len: int
    machine: Machine
    crowd: Crowd

    @property
    def context(self) -> int:
        """Most tokens of a request, prompt and answer."""
        return min(self.model_len, self.blocks * self.block_tokens)

    def work_s(self, *, prompt: float, output: float) -> float:
        """Machine seconds of a typical request, alone or its share of a full step: what the load is measured against."""
        c0, c1, c2, c3, c4 = self.machine.coefficients_s
        together = min(self.config.max_running, 1 if self.config.mode is BatchingMode.IMMEDIATE else 8)
        half = (prompt + output) / 2
        step_s = (c0 + self.machine.change_s) / together + c1 + c2 + (c3 + c4) * half
        chunks = max(1.0, prompt / self.config.token_budget)
        return output * step_s + prompt * (c1 + c4 * half) + chunks * c0 / together


def draw(seed: int) -> Recipe:
    """The world of ``seed``."""
    dice = random.Random(seed)
    mode = MODES[seed % len(MODES)]
    block_tokens = dice.choice((1, 2, 4, 4, 8, 16, 32))
    model_len = dice.choice((6, 16, 40, 40, 96, 96, 200)) + dice.randrange(4)
    whole = -(-model_len // block_tokens)
    # From a few blocks, where not even the context fits, to a cache that holds everything.
    blocks = dice.choice((dice.randint(1, 4), whole, whole + dice.randint(0, 4), 2 * whole, 4 * whole, 12 * whole))
    config = ServingConfig(
        mode=mode,
        max_running=dice.choice((1, 2, 3, 4, 6, 8, 16)),
        token_budget=dice.choice((1, 2, 3, 8, 16, 64, 512)),
        batch_wait_s=dice.choice((0.0, 0.01, 0.2, 3.0)),
        max_waiting=dice.choice((0, 1, 2, 5, 12, 40, 1024)),
        prefill_floor_tokens=dice.choice((1, 1, 4, 16)),
    )
    machine = _machine(dice)
    crowd = _crowd(dice, machine)
    config = config.model_copy(update=_drafting(random.Random(f"{seed} drafts")))
    if dice.random() < CROWDED:
        blocks = whole + dice.randint(0, 4)
        places, queue = dice.choice((3, 4, 8, 16)), dice.choice((5, 12, 40))
        config = config.model_copy(update={"max_running": places, "max_waiting": queue})
        crowd = replace(crowd, prompt_style="short", output_style="any", load=dice.choice((1.5, 4.0)))
    return Recipe(seed, config, blocks, block_tokens, model_len, machine, crowd)


def _drafting(dice: random.Random) -> dict[str, object]:
    """Some of the worlds guess at the next tokens: a fixed number of them, or what is predicted to pay."""
    if dice.random() > DRAFTING:
        return {}
    fixed = dice.choice((None, None, 1, 4, 12))
    return {"speculation": SpeculationMode.DRAFT, "draft_tokens": fixed, "max_draft_tokens": dice.choice((1, 3, 15))}


def _machine(dice: random.Random) -> Machine:
    base_s = dice.choice((1e-4, 2e-3, 7e-3, 3e-2, 0.2))
    troubled = dice.random() < 0.5
    return Machine(
        coefficients_s=(
            base_s,
            base_s * dice.choice((1e-3, 0.05, 0.5)),
            base_s * dice.choice((0.0, 0.05, 0.3)),
            base_s * dice.choice((0.0, 1e-4)),
            base_s * dice.choice((0.0, 1e-5, 1e-3)),
        ),
        change_s=base_s * dice.choice((0.0, 0.5)),
        noise=dice.choice((0.0, 0.05, 0.5)),
        slow=dice.choice((0.001, 0.02)) if troubled else 0.0,
        fault=dice.choice((0.0, 0.001, 0.01)) if troubled else 0.0,
        jump=dice.choice((0.0, 0.001, 0.01)) if troubled else 0.0,
        jump_s=dice.choice((0.1, 10.0, 1000.0)),
        keeps_loop=dice.random() < 0.5,
    )


def _crowd(dice: random.Random, machine: Machine) -> Crowd:
    step_s = machine.coefficients_s[0]
    menu = [_limits(dice, step_s) for _ in range(3)]
    limits = dice.choice(([RequestLimits()], menu, [*menu, RequestLimits()], menu[:1]))
    return Crowd(
        load=dice.choice((0.3, 0.8, 1.0, 1.5, 4.0)),
        arrivals=dice.choice(("poisson", "poisson", "bursts", "waves", "lockstep")),
        prompt_style=dice.choice(("any", "short", "blocks", "extremes")),
        output_style=dice.choice(("any", "short", "one", "extremes")),
        limits=tuple(limits),
        cancelled=dice.choice((0.0, 0.1, 0.5)),
        streaming=dice.choice((0.0, 0.5, 1.0)),
        batch=dice.choice((0.0, 0.0, 0.3, 1.0)),
        tenants=dice.choice((1, 1, 2, 5)),
        first_tenant=dice.choice((0.5, 0.9)),
        families=dice.choice((0, 1, 3)),
        returning=dice.choice((0.0, 0.5, 1.0)),
        in_step=dice.choice((0.0, 0.2)),
        stale_s=dice.choice((0.0, 0.0, 5 * step_s)),
    )


def _limits(dice: random.Random, step_s: float) -> RequestLimits:
    """Limits from what nobody can keep to what everybody can, each there or not."""

    def maybe(*steps: float) -> float | None:
        return None if dice.random() < 0.4 else step_s * dice.choice(steps)

    return RequestLimits(maybe(2, 20, 200), maybe(1.5, 4, 20), maybe(2, 8), maybe(10, 100, 1000))
