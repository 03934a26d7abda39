"""Before the first request: every shape of step is run a few times, so that no request pays for compiling kernels, and the
step-time model starts from this machine's own measurements instead of its prior.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.executor import Executor
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.draft import Draft, Drafter
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import StepTimeModel

REPEATS = 4
CONTEXT_TOKENS = 96
MOST_PREFILL_TOKENS = 1024
DRAFTING = (1, 2, 4, 8, 16)
DRAFT_LENGTHS = (1, 2, 3, 4, 6, 8, 11)
DRAFT_REPEATS = 3
READING = 3
# Steps so small that what a change of shape costs shows in them.
CHANGED_TOKENS = 32


def warm_up(executor: Executor, model: StepTimeModel, config: ServingConfig) -> None:
    """Run shapes up to ``config``'s limits on an executor that holds nothing yet. The first run of each compiles: only its
    shape is told, so that the next counts as what it is, a step of the shape before.

    What a change of shape costs is shown by going back to the shape before and forth again.
    """
    before = (0, 0)
    for shape in shapes(config, executor.blocks * executor.block_tokens):
        work, _ = _timed(executor, *shape)
        model.observe(work, 0.0)
        told = [shape] * (REPEATS - 1)
        if 0 < sum(before) <= CHANGED_TOKENS and sum(shape) <= CHANGED_TOKENS and sum(shape) != sum(before):
            told += [before, shape]
        for each in told:
            model.observe(*_timed(executor, *each))
        before = shape


def _timed(executor: Executor, decodes: int, prefill: int) -> tuple[StepWork, float]:
    """Run a step: its work and its seconds."""
    batch = make_batch(_items(executor, decodes, prefill))
    output = executor.collect(executor.submit(batch))
    return batch.work, output.end_s - output.start_s


def warm_up_drafts(executor: Executor, config: ServingConfig, learn: Callable[[StepWork, float, int], None]) -> None:
    """Run verify steps of the usual shapes, greedy ones; ``learn`` hears each step's work, seconds and draft tokens, and of
    the first of each shape no seconds."""
    longest = config.longest_draft_tokens
    for decodes in drafting_counts(config):
        for drafted in sorted({0, *(length for length in DRAFT_LENGTHS if length < longest), longest}):
            work = make_batch(_items(executor, decodes, 0, drafted)).work
            for repeat, seconds in enumerate(time_verification(executor, decodes, drafted, DRAFT_REPEATS)):
                learn(work, seconds if repeat else 0.0, decodes * drafted)


def time_verification(executor: Executor, decodes: int, drafted: int, repeats: int) -> list[float]:
    """Seconds of steps of ``decodes`` requests with ``drafted`` wrong draft tokens each; none if the cache is too small."""
    if decodes * (CONTEXT_TOKENS + drafted) > executor.blocks * executor.block_tokens:
        return []
    times = []
    for _ in range(repeats):
        output = executor.collect(executor.submit(make_batch(_items(executor, decodes, 0, drafted))))
        times.append(output.end_s - output.start_s)
    return times


def warm_up_drafter(drafter: Drafter, config: ServingConfig, learn: Callable[[int, int, int, float], None]) -> None:
    """Let ``drafter`` guess for the usual numbers of requests; ``learn`` hears rounds, drafted and read tokens, and seconds."""
    length = min(4, config.longest_draft_tokens)
    for count in drafting_counts(config)[:READING]:
        read_s = time_reading(drafter, count)
        if read_s is not None:
            learn(1, count, (CONTEXT_TOKENS - 1) * count, read_s)
    for count in drafting_counts(config):
        # Of the text behind the first guess that did not come true, three tokens are read anew.
        for seconds in time_drafting(drafter, count, length, DRAFT_REPEATS)[1:]:
            learn(length, length * count, 2 * count, seconds)


def time_reading(drafter: Drafter, requests: int) -> float | None:
    """Seconds of reading the texts of ``requests`` and guessing a token behind each; not the first time, which compiles.

    ``None`` if there is not a guess for each, as where the drafter's cache cannot hold them.
    """
    seconds: float | None = None
    for _ in range(2):
        sequences = [_text(-1000 - index) for index in range(requests)]
        for sequence in sequences:
            drafter.outlook(sequence)
        began_s = time.perf_counter()
        drafts = drafter.propose([(sequence, 1) for sequence in sequences])
        passed_s = time.perf_counter() - began_s
        seconds = None if None in drafts else passed_s
        for sequence in sequences:
            drafter.forget(sequence)
    return seconds


def time_drafting(drafter: Drafter, requests: int, length: int, repeats: int) -> list[float]:
    """Seconds of drafting ``length`` tokens for each of ``requests``; the first time reads their texts as well."""
    sequences = [_text(-1000 - index) for index in range(requests)]
    times = []
    for _ in range(repeats + 1):
        for sequence in sequences:
            drafter.outlook(sequence)
        began_s = time.perf_counter()
        drafter.propose([(sequence, length) for sequence in sequences])
        times.append(time.perf_counter() - began_s)
        for sequence in sequences:  # an answer of its own: guesses are rejected and the text is read on
            sequence.tokens += [1, 2, 3]
    for sequence in sequences:
        drafter.forget(sequence)
    return times


def drafting_counts(config: ServingConfig) -> list[int]:
    """Numbers of requests that a controller will want to know about."""
    return [count for count in DRAFTING if count <= config.max_running] if config.draft_tokens is None else []


def _text(sequence_id: int) -> Sequence:
    request = GenerationRequest(tuple(range(1, CONTEXT_TOKENS + 1)), SamplingParams(max_tokens=99, temperature=0.0))
    return Sequence(sequence_id, request, arrived_s=0.0, max_tokens=99)


def shapes(config: ServingConfig, capacity_tokens: int) -> list[tuple[int, int]]:
    """(decodes, prefill tokens) worth running, within the running limit, the token budget and the cache."""
    largest = min(config.token_budget, MOST_PREFILL_TOKENS)
    most = min(64, config.max_running)
    decodes = sorted({count for count in (1, 2, 4, 8, 16, 32, 64) if count < most} | {most})
    chunks = sorted({tokens for tokens in (16, 64, 256) if tokens < largest} | {largest})
    wanted = [(count, 0) for count in decodes]
    wanted += [(0, tokens) for tokens in chunks]
    wanted += [(min(8, config.max_running), tokens) for tokens in chunks if tokens <= 256]
    return [(d, p) for d, p in wanted if d * CONTEXT_TOKENS + p <= capacity_tokens]


def _items(executor: Executor, decodes: int, prefill: int, drafted: int = 0) -> list[BatchItem]:
    next_block = 0
    items = []
    for index in range(decodes + (1 if prefill else 0)):
        is_prefill = index == decodes
        length = prefill if is_prefill else CONTEXT_TOKENS
        request = GenerationRequest(tuple(range(1, length + 1)), SamplingParams(max_tokens=1, temperature=0.0))
        sequence = Sequence(-1 - index, request, arrived_s=0.0, max_tokens=1)
        blocks = -(-(length + drafted) // executor.block_tokens)
        sequence.blocks = [block % executor.blocks for block in range(next_block, next_block + blocks)]
        next_block += blocks
        start = 0 if is_prefill else length - 1
        draft = Draft((0,) * drafted) if drafted else None
        items.append(BatchItem(sequence, start, length - start + drafted, emits=True, draft=draft))
    return items
