"""Requests before they have prompts: when, of which kind, how long, in which session.

One seed decides everything, and each quantity of each phase has a random stream of its own: a longer warm-up or a
different output length leaves the arrivals and prompts of the sustained phase as they were, so that runs compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from setpoint.record import Phase
from setpoint.requirement import MixPart
from setpoint.workload.arrivals import MAX_ARRIVALS
from setpoint.workload.corpus import mixed
from setpoint.workload.lengths import draw_seconds, draw_tokens, mean_tokens
from setpoint.workload.prompt import Prompt, PromptBlock

HIT_BLOCK_TOKENS = 16
"""Caches find whole blocks of tokens; what a prompt shares at a hit rate is a multiple of this."""
OWN_TOKENS_MIN = 8
MAX_TURN_SERIALS = 1 << 40

ARRIVALS, PROMPT_TOKENS, OUTPUT_TOKENS, SHAPES, TURNS, ADDED_TOKENS, THINK_TIMES, GROUPS = range(8)
"""The random streams of a segment."""


@dataclass(slots=True)
class Draft:
    """A request to be: ``time_s`` on the axis of the plan; ``follows`` is the draft of the turn before.

    prefix_seed and serial say which prompt is made, unless ``prompt`` is there already; ``blocks`` as ``PromptMaker`` has it.
    """

    time_s: float
    phase: Phase
    prompt_tokens: int
    output_tokens: int
    serial: int = 0
    prefix_seed: int = 0
    shared_tokens: int = 0
    session: str | None = None
    turn: int = 0
    follows: Draft | None = None
    think_s: float = 0.0
    profile: str = ""
    blocks: Sequence[PromptBlock] = ()
    prompt: Prompt | None = None


@dataclass(frozen=True, slots=True)
class RequestColumns:
    """What a segment's requests are like, int64, shape ``[n]`` each; ``kind`` is the place of the shape."""

    kind: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    shared_tokens: NDArray[np.int64]
    prefix_seed: NDArray[np.int64]


class Segment:
    """The random streams of one phase of a plan; ``number`` is its position, so a phase of 0 s keeps its place."""

    def __init__(self, seed: int, number: int, phase: Phase) -> None:
        self.seed = seed
        self.number = number
        self.phase = phase

    def stream(self, quantity: int, shape: int = 0) -> np.random.Generator:
        """The stream of one quantity, for each kind of request its own."""
        return np.random.default_rng(np.random.SeedSequence((self.seed, self.number, quantity, shape)))

    def drafts(self, times_s: NDArray[np.float64], shapes: Sequence[MixPart], most: int) -> list[Draft]:
        """What begins at ``times_s``: requests, or sessions with all their turns, in the order of their beginning.

        Raises ``ValueError`` if there are more than ``most`` requests.
        """
        kinds = self._kinds(times_s.size, shapes)
        drafts: list[list[Draft]] = [[] for _ in range(times_s.size)]
        left = most
        for index, shape in enumerate(shapes):
            places = np.flatnonzero(kinds == index)
            left -= self._draw(index, shape, places, times_s[places], left, drafts)
        return [draft for turns in drafts for draft in turns]

    def columns(self, shapes: Sequence[MixPart], size: int) -> RequestColumns:
        """The lengths and prefixes of ``size`` requests, the same as ``drafts`` draws; none of ``shapes`` has sessions."""
        kinds = self._kinds(size, shapes)
        columns = RequestColumns(kinds, *(np.zeros(size, dtype=np.int64) for _ in range(4)))
        for index, shape in enumerate(shapes):
            places = np.flatnonzero(kinds == index)
            prompts = draw_tokens(shape.prompt_tokens, places.size, self.stream(PROMPT_TOKENS, index))
            columns.prompt_tokens[places] = prompts
            columns.output_tokens[places] = draw_tokens(shape.output_tokens, places.size, self.stream(OUTPUT_TOKENS, index))
            columns.shared_tokens[places] = shared_tokens(shape, prompts)
            columns.prefix_seed[places] = self._prefix_seeds(index, shape, places.size)
        return columns

    def _kinds(self, size: int, shapes: Sequence[MixPart]) -> NDArray[np.int64]:
        """Which shape each has, shape ``[size]``."""
        if len(shapes) == 1:
            return np.zeros(size, dtype=np.int64)
        weights = np.array([shape.weight for shape in shapes])
        kinds: NDArray[np.int64] = self.stream(SHAPES).choice(len(shapes), size=size, p=weights / weights.sum())
        return kinds

    def _draw(
        self,
        index: int,
        shape: MixPart,
        places: NDArray[np.int64],
        times_s: NDArray[np.float64],
        most: int,
        drafts: list[list[Draft]],
    ) -> int:
        """Draw the requests of one shape into ``drafts`` at their ``places``; returns how many there are."""
        size = times_s.size
        sessions = shape.sessions
        turns = np.ones(size, np.int64) if sessions is None else draw_tokens(sessions.turns, size, self.stream(TURNS, index))
        later = int(turns.sum()) - size
        if size + later > most:
            raise ValueError(f"more than {most} requests")
        prompts = draw_tokens(shape.prompt_tokens, size, self.stream(PROMPT_TOKENS, index))
        outputs = draw_tokens(shape.output_tokens, size + later, self.stream(OUTPUT_TOKENS, index)).tolist()
        shared = shared_tokens(shape, prompts).tolist()
        groups = self._prefix_seeds(index, shape, size)
        added: list[int] = []
        think_s: list[float] = []
        if sessions is not None:
            added_tokens = sessions.added_tokens or shape.prompt_tokens
            added = draw_tokens(added_tokens, later, self.stream(ADDED_TOKENS, index)).tolist()
            think_s = draw_seconds(sessions.think_time, later, self.stream(THINK_TIMES, index)).tolist()
        ends = np.cumsum(turns - 1).tolist()
        rows = zip(places.tolist(), times_s.tolist(), prompts.tolist(), shared, groups, strict=True)
        for row, (place, time_s, tokens, shared_prefix, group) in enumerate(rows):
            serial = self.number * MAX_ARRIVALS + place
            draft = Draft(time_s, self.phase, tokens, outputs[row], serial, group, shared_prefix, profile=shape.name)
            drafts[place].append(draft)
            if sessions is None:
                continue
            draft.session = f"{self.number}-{place}"
            first = ends[row - 1] if row else 0
            for later_turn in range(first, ends[row]):
                draft = following(draft, added[later_turn], outputs[size + later_turn], think_s[later_turn])
                drafts[place].append(draft)
        return size + later

    def _prefix_seeds(self, index: int, shape: MixPart, size: int) -> list[int]:
        """Which shared prefix each prompt has; the first group of the first shape has that of the plan's seed."""
        if shape.prefix_groups == 1:
            return [prefix_seed(self.seed, index, 0)] * size
        groups = self.stream(GROUPS, index).integers(shape.prefix_groups, size=size)
        return [prefix_seed(self.seed, index, group) for group in groups.tolist()]


def following(before: Draft, added_tokens: int, output_tokens: int, think_s: float) -> Draft:
    """The turn after ``before`` of the same session."""
    return Draft(
        before.time_s + think_s,
        before.phase,
        added_tokens,
        output_tokens,
        before.serial + MAX_TURN_SERIALS,
        before.prefix_seed,
        session=before.session,
        turn=before.turn + 1,
        follows=before,
        think_s=think_s,
        profile=before.profile,
    )


def prefix_seed(seed: int, shape: int, group: int) -> int:
    """The seed of the texts of one group of prompts."""
    return seed if shape == group == 0 else mixed(seed, shape, group) >> 2


def shared_tokens(shape: MixPart, prompt_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many leading tokens each prompt shares, shape as ``prompt_tokens``."""
    if shape.prefix_hit_rate is None:
        return np.full(prompt_tokens.size, shape.shared_prefix_tokens, dtype=np.int64)
    blocks = np.rint(prompt_tokens * shape.prefix_hit_rate / HIT_BLOCK_TOKENS).astype(np.int64)
    most = np.maximum(prompt_tokens - OWN_TOKENS_MIN, 0) // HIT_BLOCK_TOKENS
    shared: NDArray[np.int64] = np.minimum(blocks, most) * HIT_BLOCK_TOKENS
    return shared


def mean_turns(shapes: Sequence[MixPart]) -> float:
    """Requests that one arrival brings on average: 1, or the turns of a session."""
    turns = [1.0 if shape.sessions is None else mean_tokens(shape.sessions.turns) for shape in shapes]
    return float(np.average(turns, weights=[shape.weight for shape in shapes]))
