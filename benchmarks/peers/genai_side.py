"""OpenVINO GenAI's continuous-batching pipeline on the night batch's pile: it has no server, so this drives it from Python.

Reads one job as a JSON line, ``{"lengths": [[prompt, output], ...], "clients": 64, "seed": 1}``, and answers with one.
The pipeline is spared HTTP, text and a load generator beside it, which the servers are not: its figure is an upper bound of
what a server around it would give.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from setpoint.engine.models import resolve_model
from setpoint.engine.openvino.runtime import openvino_genai, ov

CACHE_TOKENS, BLOCK_TOKENS = 32768, 32
TOKEN_BUDGET = 2048
LEAST_ID, MOST_ID = 1000, 40000


def pipeline(clients: int) -> Any:
    """The pipeline with as many places as there are clients."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = CACHE_TOKENS // BLOCK_TOKENS
    scheduler.max_num_seqs = clients
    scheduler.max_num_batched_tokens = TOKEN_BUDGET
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = False
    return openvino_genai.ContinuousBatchingPipeline(str(resolve_model("smollm2-135m").folder), scheduler, "CPU")


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Work through the pile twice, the first time with a few requests to warm up; tokens over seconds of the second."""
    made = pipeline(job["clients"])
    _work(made, job["lengths"][:8], job["clients"], job["seed"] + 1)
    seconds = _work(made, job["lengths"], job["clients"], job["seed"])
    tokens = sum(output for _, output in job["lengths"])
    return {"requests": len(job["lengths"]), "seconds": seconds, "output_tokens_per_s": tokens / seconds, "valid": True}


def _work(made: Any, lengths: list[list[int]], clients: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    left = [(number, prompt, output) for number, (prompt, output) in enumerate(lengths)][::-1]
    live: list[Any] = []
    started_s = time.perf_counter()
    while left or live:
        while left and len(live) < clients:
            number, prompt, output = left.pop()
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens = output
            config.ignore_eos = True
            ids = generator.integers(LEAST_ID, MOST_ID, (1, prompt))
            live.append(made.add_request(number, ov.Tensor(ids.astype(np.int64)), config))
        made.step()
        live = [each for each in live if each.get_status() == openvino_genai.GenerationStatus.RUNNING]
    return time.perf_counter() - started_s


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.stdin.readline()))), flush=True)
