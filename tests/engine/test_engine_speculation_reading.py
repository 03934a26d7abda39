"""A draft model reads a long text a part a step: it says how much is left, and the controller hears how long that took."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from engine_world import WatchedPolicy

from setpoint.engine.batch import Batch
from setpoint.engine.openvino.executor import OpenVinoExecutor
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock, counting_tokens
from setpoint.engine.speculation.draft import DRAFT_MODEL_SURENESS, NOTHING, READ_TOKENS, Draft, Outlook
from setpoint.engine.speculation.draft_model import DraftModel
from setpoint.engine.speculation.simulated import PartlyRight
from setpoint.engine.speculation.speculator import Speculator
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.warm_up import CONTEXT_TOKENS, warm_up_drafter
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.modes import build_policy
from setpoint.policy.speculating import SpeculatingPolicy
from setpoint.policy.speculation import SpeculationController
from setpoint.policy.step_time import StepTimeModel

LONGEST, PART = 3, 8
READ_S = 1e-4
CONFIG = ServingConfig(mode=BatchingMode.CONTINUOUS, speculation=SpeculationMode.DRAFT, max_draft_tokens=LONGEST)


class Sevens:
    """Stands for the draft model's executor: it always says 7. ``tokens``: of each of its runs."""

    blocks, block_tokens = 64, 16

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def submit(self, batch: Batch) -> Batch:
        self.tokens.append(batch.work.tokens)
        return batch

    def collect_rows(self, ticket: Batch) -> tuple[list[int], npt.NDArray[Any]]:
        return [7 for item in ticket.items if item.emits], np.zeros((0, 10), dtype=np.float32)

    def close(self) -> None:
        """Nothing is held."""


class Reader(PartlyRight):
    """Always right; reads ``PART`` tokens of a text a step, each in ``READ_S``. ``read``: all that it was asked to read on."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(counting_tokens, LONGEST)
        self._clock = clock
        self._known: dict[int, int] = {}
        self.read = 0

    def outlook(self, sequence: Sequence) -> Outlook:
        unread = max(0, len(sequence.tokens) - self._known.get(sequence.sequence_id, 0) - 1)
        behind = min(PART, unread)
        return Outlook(LONGEST, DRAFT_MODEL_SURENESS, behind, unread - behind)

    def propose(self, asked: Items[tuple[Sequence, int]]) -> list[Draft | None]:
        return [self._read_on(sequence, count) for sequence, count in asked]

    def _read_on(self, sequence: Sequence, count: int) -> Draft | None:
        seen = self.outlook(sequence)
        self._known[sequence.sequence_id] = self._known.get(sequence.sequence_id, 0) + seen.behind_tokens
        self._clock.advance_to(self._clock() + READ_S * seen.behind_tokens)
        self.read += seen.behind_tokens if not count else 0
        assert bool(count) == (not seen.later_tokens), "a guess where there can be one, and only there"
        return Draft(self._right(sequence, count)) if count else None

    def _right(self, sequence: Sequence, count: int) -> tuple[int, ...]:
        known = len(sequence.tokens)
        for _ in range(count):
            sequence.tokens.append(self._next_token(sequence))
        tokens = tuple(sequence.tokens[known:])
        del sequence.tokens[known:]
        return tokens


def text(tokens: int, number: int = 1) -> Sequence:
    request = GenerationRequest(tuple(range(tokens)), SamplingParams(max_tokens=50, temperature=0.0))
    return Sequence(number, request, arrived_s=0.0, max_tokens=50)


def test_a_draft_model_says_how_much_it_has_to_read_and_reads_a_part_of_it() -> None:
    executor = Sevens()
    drafter = DraftModel(cast(OpenVinoExecutor, executor), vocabulary=10, most_tokens=4)
    sequence = text(300)
    assert drafter.outlook(sequence) == Outlook(4, DRAFT_MODEL_SURENESS, READ_TOKENS, 299 - READ_TOKENS)
    assert drafter.propose([(sequence, 0)]) == [None]
    assert drafter.outlook(sequence).later_tokens == 299 - 2 * READ_TOKENS - 1
    assert drafter.propose([(sequence, 0)]) == [None]
    assert drafter.outlook(sequence) == Outlook(4, DRAFT_MODEL_SURENESS, 41, 0)
    (draft,) = drafter.propose([(sequence, 2)])
    assert draft is not None
    assert draft.tokens == (7, 7)
    assert executor.tokens == [129, 129, 42, 1]
    assert drafter.propose([(sequence, 0)]) == [None], "nothing is guessed unasked"
    drafter.check_integrity()


def small_drafter(blocks: int, most_tokens: int) -> DraftModel:
    executor = Sevens()
    executor.blocks = blocks
    return DraftModel(cast(OpenVinoExecutor, executor), vocabulary=10, most_tokens=most_tokens)


def test_who_found_no_room_is_not_offered_until_there_is_some() -> None:
    """Seen: the same text was read on in every step, in no time. Each takes 13 of 20 blocks."""
    for room_again in ("forgotten", "not asked for"):
        drafter = small_drafter(20, 4)
        first, second, short = text(200, 1), text(200, 2), text(10, 3)
        assert drafter.outlook(second) != NOTHING
        drafter.propose([(first, 1), (second, 0)])
        assert drafter.outlook(first) != NOTHING
        assert drafter.outlook(second) == NOTHING
        if room_again == "forgotten":
            drafter.forget(first)
        else:
            drafter.propose([(short, 1)])
        assert drafter.outlook(second) == Outlook(4, DRAFT_MODEL_SURENESS, READ_TOKENS, 199 - READ_TOKENS)
        drafter.propose([(second, 0)])
        assert drafter.outlook(second).later_tokens == 0
        drafter.check_integrity()


def test_who_holds_the_room_gives_way_once_nobody_drafts() -> None:
    """Seen: drafts for one request were given up, and no other was read for until it ended."""
    drafter = small_drafter(20, 4)
    first, second = text(200, 1), text(200, 2)
    drafter.outlook(second)
    drafter.propose([(first, 1), (second, 0)])
    for _ in range(3):
        assert drafter.outlook(second) == NOTHING, "while the first is drafted for"
        drafter.propose([(first, 1)])
    assert drafter.outlook(second) == NOTHING
    assert drafter.outlook(second) == Outlook(4, DRAFT_MODEL_SURENESS, READ_TOKENS, 199 - READ_TOKENS), "a step went by without"
    drafter.propose([(second, 0)])
    assert drafter.outlook(second).later_tokens == 0
    assert drafter.outlook(first) == Outlook(4, DRAFT_MODEL_SURENESS, READ_TOKENS, 199 - READ_TOKENS), "it was forgotten"
    drafter.propose([(second, 1), (first, 0)])
    assert drafter.outlook(first) == NOTHING
    drafter.check_integrity()


def test_the_controller_hears_of_reading_and_its_steps_expect_no_token() -> None:
    """Seen: rounds that only read were no part of what a step was told to have taken."""
    clock = VirtualClock()
    model = StepTimeModel((20e-3, 1e-4, 0.0, 0.0, 0.0))
    watched = WatchedPolicy(build_policy(CONFIG, model))
    executor = SimulatedExecutor(clock, lambda work: 20e-3 + 1e-4 * work.tokens, blocks=100)
    drafter = Reader(clock)
    speculator = Speculator(drafter, clock, most_tokens=LONGEST, most_running=8)
    loop = StepLoop(watched, executor, clock, max_model_len=512, model=model, speculator=speculator)
    loop.submit(GenerationRequest(tuple(range(100, 140)), SamplingParams(max_tokens=40, ignore_eos=True)))
    while loop.begin_step():
        loop.finish_step()
    reading = [each for each in watched.results if each.draft_s and not each.drafted]
    assert 4 <= len(reading) <= 6
    assert sum(each.draft_s for each in reading) == pytest.approx(drafter.read * READ_S)
    records = list(loop.steps._steps)
    assert [record.draft_s for record in records if record.draft_s and not record.drafted] == [e.draft_s for e in reading]
    assert all("drafts" not in record.reason.operands for record in records if not record.drafted)
    assert sum(each.accepted.get(0, 0) for each in watched.results) > 10, "then it guesses"
    policy = watched.inner
    assert isinstance(policy, SpeculatingPolicy)
    assert isinstance(policy.chooser, SpeculationController)
    assert policy.chooser.drafting.coefficients_s[2] > 0.5 * READ_S


def test_the_warm_up_lets_a_drafter_read() -> None:
    heard: list[tuple[int, int, int]] = []
    drafter = DraftModel(cast(OpenVinoExecutor, Sevens()), vocabulary=10, most_tokens=LONGEST)
    warm_up_drafter(drafter, CONFIG, lambda rounds, drafted, read, _: heard.append((rounds, drafted, read)))
    assert heard[:3] == [(1, count, (CONTEXT_TOKENS - 1) * count) for count in (1, 2, 4)]
    assert heard[3] == (LONGEST, LONGEST, 2)
    drafter.check_integrity()


def test_the_warm_up_learns_of_no_reading_for_which_there_was_no_room() -> None:
    """A text takes 7 of 14 blocks."""
    heard: list[tuple[int, int, int]] = []
    drafter = small_drafter(14, LONGEST)
    warm_up_drafter(drafter, CONFIG, lambda rounds, drafted, read, _: heard.append((rounds, drafted, read)))
    assert heard[:2] == [(1, count, (CONTEXT_TOKENS - 1) * count) for count in (1, 2)]
    assert heard[2] == (LONGEST, LONGEST, 2)
    drafter.check_integrity()
