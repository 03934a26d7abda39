"""How long steps take on a virtual clock: a timer's line for each batch, the loop's own time between, and noise by seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from setpoint.policy.decisions import StepWork
from setpoint.policy.views import FloatColumn

MOST_LINES = 1 << 16
NOISE_AT_ONCE = 4096


class StepTimer(Protocol):
    """What a simulation asks of a machine: the time of a step as a line in what grows while a batch stays the same."""

    @property
    def source(self) -> str:
        """``measured``, ``transferred`` or ``physics``: where the coefficients come from."""
        ...

    @property
    def relative_error(self) -> float:
        """One standard deviation of ln(predicted / true) of a step."""
        ...

    @property
    def guess(self) -> bool:
        """Whether that is no more than a guess."""
        ...

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """``(base_s, per_kv_token_s, per_product_s)`` of a step of ``tokens`` new tokens over ``sequences`` requests.

        It takes ``base_s + per_kv_token_s * kv_tokens_read + per_product_s * attention_products`` (``StepWork``).
        """
        ...


@dataclass(frozen=True, slots=True)
class LineTimer:
    """A machine of five constants, those of ``policy/step_time.py``."""

    base_s: float
    token_s: float = 0.0
    sequence_s: float = 0.0
    kv_token_s: float = 0.0
    product_s: float = 0.0
    source: str = "measured"
    relative_error: float = 0.0
    guess: bool = False

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer``."""
        return self.base_s + self.token_s * tokens + self.sequence_s * sequences, self.kv_token_s, self.product_s


@dataclass(frozen=True, slots=True)
class Overheads:
    """Seconds beside the model's own work.

    between_s: of the loop from the end of a step to the start of the next, and between_sequence_s more for each request in it.
    change_s: a step of another number of tokens than the one before takes longer by it. receive_s: from the intended send to
    where the engine may see a request. deliver_s: from the end of a step to the client, deliver_sequence_s more for each
    request whose token is delivered before. refuse_s: from a refusal to the client.
    """

    between_s: float = 0.0
    between_sequence_s: float = 0.0
    change_s: float = 0.0
    receive_s: float = 0.0
    deliver_s: float = 0.0
    deliver_sequence_s: float = 0.0
    refuse_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Noise:
    """What a step takes over what the timer says, and what the time after it takes over ``Overheads``, as they were measured.

    A step that lost a core to a neighbour is followed by others that do; so pieces of ``run_steps`` consecutive steps are
    drawn whole, by seed (block bootstrap; Kuensch, Annals of Statistics 17, 1989). steps, between: factors of at least 0, one
    a measured step, in order; none is no noise. prompts: factors of steps that compute a prompt, drawn one by one in place of
    the run's (a request that arrives needs the machine for other things too); none: as other steps.
    """

    steps: FloatColumn = field(default_factory=lambda: np.zeros(0))
    between: FloatColumn = field(default_factory=lambda: np.zeros(0))
    run_steps: int = 32
    prompts: FloatColumn = field(default_factory=lambda: np.zeros(0))


class Timing:
    """Moments of steps. Deterministic by ``seed``; step n has the same noise however many are asked for at once."""

    def __init__(self, timer: StepTimer, overheads: Overheads, noise: Noise, seed: tuple[int, ...]) -> None:
        self.overheads = overheads
        self._timer = timer
        self._noise = noise
        self._dice = np.random.default_rng(np.random.SeedSequence(seed)) if len(noise.steps) else None
        self._factors = np.zeros((3, 0))
        self._drawn = 0  # Steps before the first of ``_factors``.
        self._lines: dict[tuple[int, int], tuple[float, float, float]] = {}
        self._last_tokens = -1

    def steps(self, work: StepWork, *, step: int, start_s: float, steps: int, decodes: int) -> tuple[FloatColumn, FloatColumn]:
        """Ends of ``steps`` steps from number ``step`` on, the first of ``work``, and when the loop looks up after each.

        In each step the contexts of ``decodes`` requests are a token longer than in the one before. Shapes (steps,).
        """
        base_s, per_read_s, per_product_s = self._line(work)
        grown = decodes * np.arange(steps)
        took_s = base_s + per_read_s * (work.kv_tokens_read + grown) + per_product_s * (work.attention_products + grown)
        if work.tokens != self._last_tokens:
            took_s[0] += self.overheads.change_s
        moments = np.empty(2 * steps + 1)
        moments[0] = start_s
        moments[1::2] = took_s
        moments[2::2] = self._between_s(work)
        if self._dice is not None:
            step_factors, between_factors = self._noise_of(work, step, steps)
            moments[1::2] *= step_factors
            moments[2::2] *= between_factors
        np.add.accumulate(moments, out=moments)
        return moments[1::2], moments[2::2]

    def few(
        self, work: StepWork, *, step: int, start_s: float, steps: int, decodes: int, until_s: float
    ) -> tuple[list[float], list[float]]:
        """``steps`` for a few of them, up to the first after which the loop looks up at ``until_s`` or later."""
        base_s, per_read_s, per_product_s = self._line(work)
        reads, products, between_s = work.kv_tokens_read, work.attention_products, self._between_s(work)
        factors = None if self._dice is None else self._noise_of(work, step, steps).T.tolist()
        ends: list[float] = []
        frees: list[float] = []
        now_s = start_s
        while len(ends) < steps and not now_s >= until_s:
            took_s = base_s + per_read_s * reads + per_product_s * products
            if not ends and work.tokens != self._last_tokens:
                took_s += self.overheads.change_s
            if factors is None:
                end_s = now_s + took_s
                now_s = end_s + between_s
            else:
                step_factor, between_factor = factors[len(ends)]
                end_s = now_s + took_s * step_factor
                now_s = end_s + between_s * between_factor
            ends.append(end_s)
            frees.append(now_s)
            reads, products = reads + decodes, products + decodes
        return ends, frees

    def step(self, work: StepWork, *, step: int, start_s: float) -> tuple[float, float]:
        """``steps`` for a single one: its end, and when the loop looks up after it."""
        base_s, per_read_s, per_product_s = self._line(work)
        took_s = base_s + per_read_s * work.kv_tokens_read + per_product_s * work.attention_products
        if work.tokens != self._last_tokens:
            took_s += self.overheads.change_s
        between_s = self._between_s(work)
        if self._dice is not None:
            (step_factor,), (between_factor,) = self._noise_of(work, step, 1).tolist()
            took_s, between_s = took_s * step_factor, between_s * between_factor
        end_s = start_s + took_s
        return end_s, end_s + between_s

    def _line(self, work: StepWork) -> tuple[float, float, float]:
        line = self._lines.get((work.tokens, work.sequences))
        if line is None:
            if len(self._lines) >= MOST_LINES:
                self._lines.clear()
            line = self._lines[work.tokens, work.sequences] = self._timer.affine(work.tokens, work.sequences)
        return line

    def _between_s(self, work: StepWork) -> float:
        return self.overheads.between_s + self.overheads.between_sequence_s * work.sequences

    def shortest_s(self, work: StepWork) -> float:
        """What the first of these steps takes without noise: those after it, of longer contexts, take no less."""
        line = self._line(work)
        return line[0] + line[1] * work.kv_tokens_read + line[2] * work.attention_products

    def stepped(self, tokens: int) -> None:
        """The last step that was made had so many new tokens."""
        self._last_tokens = tokens

    def _noise_of(self, work: StepWork, step: int, steps: int) -> FloatColumn:
        """Factors of ``steps`` steps from number ``step`` on, shape (2, steps): of the step, of what comes after it."""
        assert self._dice is not None
        size = len(self._noise.steps)
        while step + steps > self._drawn + self._factors.shape[1]:
            passed = min(step - self._drawn, self._factors.shape[1])
            kept, self._drawn = self._factors[:, passed:], self._drawn + passed
            run = min(self._noise.run_steps, size)
            pieces = self._dice.integers(0, size - run + 1, size=-(-NOISE_AT_ONCE // run))
            places = (pieces[:, None] + np.arange(run)).ravel()
            fresh = np.stack((self._noise.steps[places], self._noise.between[places], self._noise.steps[places]))
            if len(self._noise.prompts):
                fresh[2] = self._dice.choice(self._noise.prompts, len(places))
            self._factors = np.concatenate((kept, fresh), axis=1)
        window = self._factors[:, step - self._drawn : step - self._drawn + steps]
        return window[[2, 1]] if work.tokens > work.sequences else window[:2]
