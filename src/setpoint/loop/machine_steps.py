"""Steps of many shapes run on purpose on the embedded engine's executor: decodes at several contexts, prompts, and both."""

from __future__ import annotations

import time

from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.executor import Executor
from setpoint.engine.models import resolve_model
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import StepWork

# Times over all shapes; the first compiles kernels and is left out.
TURNS = 6
# Runs of one decode shape in a row: as in a batch that decodes on, all but the first find their kernels set up.
REPEATS = 3
DECODES = (0, 1, 2, 4, 8, 16, 32, 64)
PROMPTS = (0, 4, 16, 64, 256, 512)
CONTEXTS = (64, 512, 1536)
CACHE_TOKENS = 1 << 16
LONGEST_S = 90.0


def machine_steps(model: str) -> tuple[list[StepWork], list[float]]:
    """Work and seconds of each step. Ends after ``LONGEST_S``. Raises ``EngineFailed``."""
    executor = OpenVinoExecutor(resolve_model(model).folder, ExecutorOptions(kv_cache_tokens=CACHE_TOKENS), time.monotonic)
    works: list[StepWork] = []
    seconds: list[float] = []
    began_s = time.monotonic()
    try:
        for turn in range(TURNS):
            for decodes, prompt, context in shapes(executor.blocks * executor.block_tokens):
                if time.monotonic() - began_s > LONGEST_S and seconds:
                    return works, seconds
                batch = make_batch(_items(executor, decodes, prompt, context))
                for repeat in range(1 if prompt else REPEATS):
                    output = executor.collect(executor.submit(batch))
                    if turn and (prompt or repeat):
                        works.append(batch.work)
                        seconds.append(output.end_s - output.start_s)
    finally:
        executor.close()
    return works, seconds


def shapes(capacity_tokens: int) -> list[tuple[int, int, int]]:
    """(decodes, prompt tokens, context of each decode) worth running within the cache."""
    wanted = [(decodes, 0, context) for decodes in DECODES if decodes for context in CONTEXTS]
    wanted += [(decodes, prompt, CONTEXTS[1]) for prompt in PROMPTS if prompt for decodes in (0, 8, 32)]
    return [each for each in wanted if each[0] * (each[2] + 64) + each[1] + 64 <= capacity_tokens]


def _items(executor: Executor, decodes: int, prompt: int, context: int) -> list[BatchItem]:
    items, next_block = [], 0
    for index in range(decodes + (1 if prompt else 0)):
        is_prompt = index == decodes
        length = prompt if is_prompt else context
        request = GenerationRequest(
            tuple(1 + place % 1000 for place in range(length)), SamplingParams(max_tokens=1, temperature=0.0)
        )
        sequence = Sequence(-1 - index, request, arrived_s=0.0, max_tokens=1)
        blocks = -(-length // executor.block_tokens)
        sequence.blocks = list(range(next_block, next_block + blocks))
        next_block += blocks
        start = 0 if is_prompt else length - 1
        items.append(BatchItem(sequence, start, length - start, emits=True))
    return items
