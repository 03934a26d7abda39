"""Before the first request: every shape of step is run a few times, so that no request pays for compiling kernels, and the
step-time model starts from this machine's own measurements instead of its prior.
"""

from __future__ import annotations

from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.executor import Executor
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.step_time import StepTimeModel

REPEATS = 4
CONTEXT_TOKENS = 96
MOST_PREFILL_TOKENS = 1024


def warm_up(executor: Executor, model: StepTimeModel, config: ServingConfig) -> None:
    """Run shapes up to ``config``'s limits on an executor that holds nothing yet; the first run of each is not learned."""
    for decodes, prefill in shapes(config, executor.blocks * executor.block_tokens):
        for repeat in range(REPEATS):
            batch = make_batch(_items(executor, decodes, prefill))
            output = executor.collect(executor.submit(batch))
            if repeat:
                model.observe(batch.work, output.end_s - output.start_s)


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


def _items(executor: Executor, decodes: int, prefill: int) -> list[BatchItem]:
    next_block = 0
    items = []
    for index in range(decodes + (1 if prefill else 0)):
        is_prefill = index == decodes
        length = prefill if is_prefill else CONTEXT_TOKENS
        request = GenerationRequest(tuple(range(1, length + 1)), SamplingParams(max_tokens=1, temperature=0.0))
        sequence = Sequence(-1 - index, request, arrived_s=0.0, max_tokens=1)
        blocks = -(-length // executor.block_tokens)
        sequence.blocks = [block % executor.blocks for block in range(next_block, next_block + blocks)]
        next_block += blocks
        start = 0 if is_prefill else length - 1
        items.append(BatchItem(sequence, start, length - start, emits=True))
    return items
