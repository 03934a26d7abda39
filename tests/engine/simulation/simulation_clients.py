"""The clients of a simulated world: what they send and when, when they give up, and what they got."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from simulation_executor import STOP_TOKEN
from simulation_recipe import Crowd, Recipe

from setpoint.engine.request import FinishReason, GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.policy.views import BATCH, INTERACTIVE

MOST_ATTEMPTS = 4


@dataclass(slots=True)
class Client:
    """One request and its life. ``output`` tokens end its answer; ``cancel``: how it gives up, if it does.

    cancel: ``timed`` after ``cancel_s``, ``token`` once it has ``cancel_after`` tokens, ``in_step`` the same while a step is
    under way, ``last`` inside the step that ends the answer. told: what it makes of the seconds it is told to wait; ``None``
    if it does not come back.
    """

    number: int
    prompt: tuple[int, ...]
    output: int
    cap: int
    request: GenerationRequest
    cancel: str | None
    cancel_s: float
    cancel_after: int
    told: float | None
    attempts: int = 0
    sequence: Sequence | None = None
    admitted_step: int = 0
    bound_steps: float = inf
    due_s: float = inf
    due_step: int | None = None
    joined: bool = False
    cancelled: bool = False
    end: FinishReason | None = None
    tokens: list[int] = field(default_factory=list)

    def expected(self) -> list[int]:
        """The whole answer, from the text alone."""
        text = list(self.prompt)
        for emitted in range(self.cap):
            text.append(STOP_TOKEN if emitted + 1 >= self.output else (sum(text[-3:]) * 31 + len(text)) % 50_000 + 10)
            if text[-1] == STOP_TOKEN:
                break
        return text[len(self.prompt) :]


class Population:
    """Makes the clients of a world one after the other, each with the moment it comes."""

    def __init__(self, recipe: Recipe, dice: random.Random) -> None:
        self._recipe = recipe
        self._crowd: Crowd = recipe.crowd
        self._dice = dice
        self._numbers = 0
        samples = [self._lengths() for _ in range(64)]
        prompt = sum(p for p, _, _ in samples) / 64
        output = sum(min(o, c, recipe.context - p) for p, o, c in samples) / 64
        self._gap_s = recipe.work_s(prompt=prompt, output=output) / recipe.crowd.load

    def arrivals(self) -> Iterator[tuple[float, Client]]:
        """Without end, in order of time."""
        dice, now_s, mean_s = self._dice, 0.0, self._gap_s
        style = self._crowd.arrivals
        while True:
            group = 1
            if style == "bursts":
                group = dice.randint(1, 12)
                now_s += dice.expovariate(1 / (mean_s * 6.5))
            elif style == "waves":
                quiet = int(now_s / (40 * mean_s)) % 2
                now_s += dice.expovariate(1 / (mean_s * (4.0 if quiet else 0.6)))
            else:
                now_s += mean_s if style == "lockstep" else dice.expovariate(1 / mean_s)
            for _ in range(group):
                yield now_s, self._client(now_s)

    def _client(self, now_s: float) -> Client:
        dice, crowd = self._dice, self._crowd
        prompt_tokens, output, cap = self._lengths()
        number = self._numbers
        self._numbers += 1
        prompt = self._prompt(prompt_tokens, number)
        tenant = 0 if dice.random() < crowd.first_tenant else dice.randrange(crowd.tenants)
        request = GenerationRequest(
            prompt,
            SamplingParams(max_tokens=cap),
            name=f"{number}:{output}",
            streaming=dice.random() < crowd.streaming,
            limits=dice.choice(crowd.limits),
            request_class=BATCH if dice.random() < crowd.batch else INTERACTIVE,
            sent_s=now_s - dice.random() * crowd.stale_s if crowd.stale_s else None,
            tenant=f"tenant{tenant}" if tenant else "",
        )
        cancel = dice.choice(("timed", "token", "in_step", "last")) if dice.random() < crowd.cancelled else None
        told = dice.choice((1.0, 1.0, 0.5, 1.3)) if dice.random() < crowd.returning else None
        room = self._recipe.context - prompt_tokens
        return Client(
            number,
            prompt,
            output,
            min(cap, room),
            request,
            cancel,
            cancel_s=dice.random() * 20 * self._gap_s,
            cancel_after=dice.randrange(max(1, output)),
            told=told,
        )

    def _lengths(self) -> tuple[int, int, int]:
        """Prompt tokens, tokens until the answer ends of itself, and the cap (which may come first)."""
        dice, context, block = self._dice, self._recipe.context, self._recipe.block_tokens
        most = context - 1
        if most < 1:
            return 1, 1, 1
        match self._crowd.prompt_style:
            case "short":
                prompt = dice.randint(1, min(most, 8))
            case "blocks":
                prompt = min(most, block * dice.randint(1, max(1, most // block)))
            case "extremes":
                prompt = dice.choice((1, 1, min(most, 2), most))
            case _:
                prompt = dice.randint(1, most)
        room = context - prompt
        match self._crowd.output_style:
            case "short":
                output = dice.randint(1, 6)
            case "one":
                output = 1
            case "extremes":
                output = dice.choice((1, room, 10 * room))
            case _:
                output = dice.randint(1, room)
        cap = dice.choice((output, max(1, output // 2), dice.randint(1, 2 * room), 4 * context))
        return prompt, output, cap

    def _prompt(self, tokens: int, number: int) -> tuple[int, ...]:
        """Tokens of its own, behind a beginning that it shares with its family, all of it in the extreme."""
        dice, families = self._dice, self._crowd.families
        shared = dice.choice((0, tokens // 2, tokens, max(0, tokens - 1))) if families else 0
        first = 100_000 * dice.randrange(families) if families else 0
        own = 10_000_000 + number * 1_000
        return tuple(range(first, first + shared)) + tuple(range(own, own + tokens - shared))
