"""The small parts: sequences, batches, views, step records, the virtual clock and warm-up shapes."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.engine.batch import Batch, BatchItem, make_batch
from setpoint.engine.kv_blocks import ROOT_HASH, BlockPool, chain_hash
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock, counting_tokens
from setpoint.engine.step_record import StepRecord, StepRing
from setpoint.engine.views import columns, kv_view, request_view
from setpoint.engine.warm_up import CONTEXT_TOKENS, REPEATS, shapes, warm_up, warm_up_drafts
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.policy.decisions import Reason, StepWork
from setpoint.policy.speculation import SpeculationController
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import BATCH, RequestLimits
from setpoint.record.columns import STEP_COLUMNS


def sequence(prompt: int = 6, *, tokens: int = 5, number: int = 0, **fields: object) -> Sequence:
    request = GenerationRequest(tuple(range(prompt)), SamplingParams(max_tokens=tokens), **fields)  # type: ignore[arg-type]
    return Sequence(number, request, arrived_s=10.0, max_tokens=tokens)


# Sequences


def test_a_sequence_counts_what_is_missing() -> None:
    each = sequence()
    assert (each.uncomputed, each.in_prefill, each.prefill_tokens, each.emitted) == (6, True, 6, 0)
    each.computed = 5
    assert (each.uncomputed, each.in_prefill, each.prefill_tokens) == (1, False, 0)
    each.computed = 6
    each.emit(77, 11.0)
    each.emit(78, 12.0)
    assert (each.uncomputed, each.emitted, each.tokens[-2:]) == (2, 2, [77, 78])
    assert (each.first_token_s, each.last_token_s) == (11.0, 12.0)


def test_the_deadline_moves_with_every_token() -> None:
    each = sequence(sent_s=9.0, limits=RequestLimits(ttft_s=0.5, itl_s=0.1))
    assert each.deadline_s == pytest.approx(9.5)
    each.emit(7, 10.2)
    assert each.deadline_s == pytest.approx(10.3)
    each.emit(7, 10.9)
    assert each.deadline_s == pytest.approx(11.0)
    assert sequence().deadline_s == inf


def test_an_answer_due_as_a_whole_owes_all_its_tokens() -> None:
    each = sequence(streaming=False, limits=RequestLimits(e2e_s=2.0))
    assert (each.deadline_s, each.tokens_to_deadline) == (12.0, 5)
    for _ in range(5):
        each.emit(7, 11.0)
    assert (each.deadline_s, each.tokens_to_deadline) == (12.0, 1)
    assert sequence().tokens_to_deadline == 1


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=30), st.integers(1, 8), st.integers(0, 30), st.data())
def test_hashes_are_those_of_full_blocks_however_often_they_are_asked_for(
    tokens: list[int], block_tokens: int, limit: int, data: st.DataObject
) -> None:
    each = Sequence(0, GenerationRequest(tuple(tokens)), arrived_s=0.0, max_tokens=100)
    expected, parent = [], ROOT_HASH
    for _ in range(data.draw(st.integers(0, 20))):
        each.emit(data.draw(st.integers(0, 50_000)), 0.0)
        each.hash_full_blocks(block_tokens, limit)
    for end in range(block_tokens, min(limit, len(each.tokens)) + 1, block_tokens):
        parent = chain_hash(parent, each.tokens[end - block_tokens : end])
        expected.append(parent)
    assert each.hash_full_blocks(block_tokens, min(limit, len(each.tokens))) == expected


def test_integrity_notices_computed_tokens_without_blocks() -> None:
    each = sequence()
    each.check_integrity(4)
    each.computed = 3
    with pytest.raises(AssertionError, match="without blocks"):
        each.check_integrity(4)


# Batches


def test_the_work_of_a_batch() -> None:
    """Two tokens at 4..6 of a prompt not yet done, the last three of another, and a decode at position 9."""
    items = [
        BatchItem(sequence(20), 4, 2, emits=False),
        BatchItem(sequence(8), 5, 3, emits=True),
        BatchItem(sequence(8), 9, 1, emits=True),
    ]
    batch = make_batch(items)
    assert batch.work == StepWork(6, 3, 6 + 8 + 10, 2 * 6 + 3 * 8 + 1 * 10)
    assert (batch.prefill_tokens, batch.decode_tokens) == (5, 1)
    assert make_batch([]) == Batch((), StepWork(0, 0, 0, 0), 0)


# Views


def test_columns_show_what_a_policy_may_see() -> None:
    waiting = sequence(6, number=3, request_class=BATCH)
    waiting.uncached_tokens = 2
    running = sequence(4, number=4, limits=RequestLimits(itl_s=0.5))
    running.computed = 4
    running.emit(9, 11.0)
    shown = columns([waiting], waiting=True)
    assert (shown.ids.tolist(), shown.prefill_tokens.tolist(), shown.context_tokens.tolist()) == ([3], [2], [0])
    assert (shown.arrived_s.tolist(), shown.deadline_s.tolist(), shown.request_class.tolist()) == ([10.0], [inf], [BATCH])
    shown = columns([running])
    assert (shown.prefill_tokens.tolist(), shown.context_tokens.tolist(), shown.emitted_tokens.tolist()) == ([0], [4], [1])
    assert shown.deadline_s.tolist() == [11.5]
    assert len(columns([])) == 0


def test_a_request_at_admission_and_the_pool() -> None:
    each = sequence(6, sent_s=9.0, streaming=False)
    each.uncached_tokens = 2
    shown = request_view(each)
    assert (shown.prompt_tokens, shown.uncached_tokens, shown.max_output_tokens) == (6, 2, 5)
    assert (shown.arrived_s, shown.sent_s, shown.streaming) == (10.0, 9.0, False)
    pool = BlockPool(7, 4)
    pool.allocate(3)
    assert (kv_view(pool).blocks, kv_view(pool).free_blocks, kv_view(pool).block_tokens) == (7, 4, 4)


# Step records


def record(number: int) -> StepRecord:
    return StepRecord(number, 0.0, 0.5, None, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, Reason("why", {"n": number}))


@given(st.integers(0, 12), st.integers(1, 5), st.integers(-1, 15))
def test_the_ring_gives_the_newest_steps_from_any_number_on(total: int, kept: int, since: int) -> None:
    ring = StepRing(kept)
    for number in range(total):
        ring.append(record(number))
    table, following = ring.columns(since)
    assert following == ring.total == total
    assert table["step"] == list(range(max(0, since, total - kept), total))
    assert table["reason"] == [f"why n={number}" for number in table["step"]]
    assert ring.seconds_total == 0.5 * total


def test_columns_are_those_of_the_record() -> None:
    table, _ = StepRing().columns(0)
    assert ["candidate", *table] == STEP_COLUMNS.names


# The simulated executor


def test_the_virtual_clock_never_goes_back() -> None:
    clock = VirtualClock(3.0)
    clock.advance_to(2.0)
    assert clock() == 3.0
    clock.advance_to(4.0)
    assert clock() == 4.0


def test_a_simulated_step_takes_what_it_is_told_and_tokens_follow_the_text() -> None:
    clock = VirtualClock(1.0)
    executor = SimulatedExecutor(clock, lambda work: 0.1 * work.tokens, blocks=4)
    items = [BatchItem(sequence(6), 0, 3, emits=False), BatchItem(sequence(7), 5, 2, emits=True)]
    output = executor.collect(executor.submit(make_batch(items)))
    assert [output.start_s, output.end_s] == pytest.approx([1.0, 1.5])
    assert output.tokens == (counting_tokens(sequence(7)),)
    assert counting_tokens(sequence(7)) != counting_tokens(sequence(6))


# Warm-up


@given(st.integers(1, 1024), st.integers(1, 65_536), st.integers(64, 100_000))
def test_warm_up_shapes_keep_the_limits(most: int, budget: int, capacity: int) -> None:
    found = shapes(ServingConfig(max_running=most, token_budget=budget), capacity)
    assert len(found) == len(set(found)) <= 16
    for decodes, prefill in found:
        assert decodes <= most
        assert prefill <= budget
        assert 0 < decodes * CONTEXT_TOKENS + prefill <= capacity


def test_warm_up_shapes_cover_decodes_prompts_and_both() -> None:
    found = shapes(ServingConfig(max_running=12, token_budget=100), 10_000)
    assert found == [(1, 0), (2, 0), (4, 0), (8, 0), (12, 0), (0, 16), (0, 64), (0, 100), (8, 16), (8, 64), (8, 100)]


def test_warm_up_teaches_the_step_time_model() -> None:
    clock = VirtualClock()
    executor = SimulatedExecutor(clock, lambda work: 0.02 + 1e-3 * work.tokens, blocks=100)
    model = StepTimeModel()
    config = ServingConfig(max_running=16, token_budget=256)
    warm_up(executor, model, config)
    back_and_forth = 2 * len([1, 2, 4, 8])  # from each of these decodes to twice as many
    assert model.observations == (REPEATS - 1) * len(shapes(config, 3200)) + back_and_forth
    assert model.source == "measured"
    work = StepWork(16, 16, 16 * CONTEXT_TOKENS, 16 * CONTEXT_TOKENS)
    assert model.predict_s(work) == pytest.approx(0.036, rel=0.05)


class Kernels:
    """A machine that takes a second more for a shape it never had, and 5 ms more for another number of tokens than before."""

    def __init__(self) -> None:
        self._had: set[StepWork] = set()
        self._last_tokens = -1

    def __call__(self, work: StepWork) -> float:
        """Seconds of a step."""
        changed, compiles = work.tokens != self._last_tokens, work not in self._had
        self._had.add(work)
        self._last_tokens = work.tokens
        return 0.02 + 1e-3 * work.tokens + 5e-3 * changed + 1.0 * compiles


def test_warm_up_tells_steps_of_a_new_shape_from_others() -> None:
    """Seen: the second run of each shape counted as a change that had cost nothing, so that changes seemed to be free."""
    executor = SimulatedExecutor(VirtualClock(), Kernels(), blocks=100)
    config = ServingConfig(max_running=16, token_budget=256, speculation=SpeculationMode.PROMPT_LOOKUP, max_draft_tokens=4)
    model = StepTimeModel()
    warm_up(executor, model, config)
    assert model.change_s == pytest.approx(5e-3, rel=0.25)
    controller = SpeculationController(model, most_tokens=4)
    warm_up_drafts(executor, config, controller.learn)
    found = controller.verify.predict_s(1, CONTEXT_TOKENS, np.arange(5))
    np.testing.assert_allclose(found, 0.021 + 1e-3 * np.arange(5), rtol=0.03)
