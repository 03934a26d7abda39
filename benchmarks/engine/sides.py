"""One side of the throughput comparison, in a process of its own: reads a job a line, answers a result a line.

Job: {"concurrency": 8, "requests": 16, "prompt_tokens": 64, "output_tokens": 64, "seed": 1}
Result: {"tokens_per_s": ..., "wall_s": ..., "overhead_fraction": null or ...}
Every side does the same work: random prompt ids, greedy, exactly ``output_tokens`` tokens each, a closed loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Job = dict[str, int]
Result = dict[str, float | None]
CACHE_TOKENS = 32768
TOKEN_BUDGET = 512


def prompts(job: Job) -> list[list[int]]:
    """The same prompts for every side."""
    generator = np.random.default_rng(job["seed"])
    size = (job["requests"], job["prompt_tokens"])
    ids: list[list[int]] = generator.integers(1000, 40000, size).tolist()
    return ids


def result(job: Job, wall_s: float, overhead_fraction: float | None = None) -> Result:
    tokens = job["requests"] * job["output_tokens"]
    return {"tokens_per_s": tokens / wall_s, "wall_s": wall_s, "overhead_fraction": overhead_fraction}


def setpoint_engine(threads: int) -> Callable[[Job], Result]:
    """setpoint's engine as its server uses it: step loop on its thread, streams on an event loop."""
    from setpoint.engine.embedded import embedded_engine
    from setpoint.engine.models import resolve_model
    from setpoint.engine.request import GenerationRequest, SamplingParams
    from setpoint.policy.configuration import BatchingMode, ServingConfig

    config = ServingConfig(
        mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=TOKEN_BUDGET, kv_cache_tokens=CACHE_TOKENS, threads=threads
    )
    engine = embedded_engine(resolve_model("smollm2-135m"), config)
    event_loop = asyncio.new_event_loop()
    event_loop.run_until_complete(engine.start())

    async def one(ids: list[int], count: int, places: asyncio.Semaphore) -> None:
        sampling = SamplingParams(max_tokens=count, temperature=0.0, ignore_eos=True)
        async with places:
            stream = await engine.submit(GenerationRequest(tuple(ids), sampling))
            got = 0
            async for delta in stream:
                got += len(delta.token_ids)
            assert got == count, f"{got} tokens instead of {count}"

    async def closed_loop(job: Job) -> None:
        places = asyncio.Semaphore(job["concurrency"])
        await asyncio.gather(*(one(ids, job["output_tokens"], places) for ids in prompts(job)))

    def run(job: Job) -> Result:
        before = engine.gauges().step_seconds_total
        started_s = time.perf_counter()
        event_loop.run_until_complete(closed_loop(job))
        wall_s = time.perf_counter() - started_s
        stepping_s = engine.gauges().step_seconds_total - before
        return result(job, wall_s, 1 - stepping_s / wall_s)

    return run


def setpoint_steps(threads: int) -> Callable[[Job], Result]:
    """setpoint's step loop driven from Python, as GenAI's pipeline is: no streams, no event loop, no text."""
    from setpoint.engine.models import resolve_model
    from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
    from setpoint.engine.request import GenerationRequest, SamplingParams
    from setpoint.engine.step_loop import StepLoop
    from setpoint.policy.configuration import BatchingMode, ServingConfig
    from setpoint.policy.modes import build_policy
    from setpoint.policy.step_time import StepTimeModel

    options = ExecutorOptions(threads=threads, kv_cache_tokens=CACHE_TOKENS)
    executor = OpenVinoExecutor(resolve_model("smollm2-135m").folder, options, time.perf_counter)
    config = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=TOKEN_BUDGET)
    model = StepTimeModel()
    steps = StepLoop(build_policy(config, model), executor, time.perf_counter, max_model_len=4096, model=model)

    def run(job: Job) -> Result:
        left = list(reversed(prompts(job)))
        sampling = SamplingParams(max_tokens=job["output_tokens"], temperature=0.0, ignore_eos=True)
        before = steps.steps.seconds_total
        started_s = time.perf_counter()
        while left or steps.busy:
            while left and len(steps.waiting) + len(steps.running) < job["concurrency"]:
                steps.submit(GenerationRequest(tuple(left.pop()), sampling))
            steps.begin_step()
            steps.finish_step()
        wall_s = time.perf_counter() - started_s
        return result(job, wall_s, 1 - (steps.steps.seconds_total - before) / wall_s)

    return run


def genai(threads: int) -> Callable[[Job], Result]:
    """OpenVINO GenAI's continuous-batching pipeline, driven from Python by ``add_request`` and ``step``."""
    from setpoint.engine.models import resolve_model
    from setpoint.engine.openvino.runtime import openvino_genai, ov

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = CACHE_TOKENS // 32
    scheduler.max_num_seqs = 64
    scheduler.max_num_batched_tokens = TOKEN_BUDGET
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = False
    folder = str(resolve_model("smollm2-135m").folder)
    pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads})

    def run(job: Job) -> Result:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = job["output_tokens"]
        config.ignore_eos = True
        left = [np.array([ids], dtype=np.int64) for ids in reversed(prompts(job))]
        live: list[Any] = []
        number = 0
        started_s = time.perf_counter()
        while left or live:
            while left and len(live) < job["concurrency"]:
                live.append(pipeline.add_request(number, ov.Tensor(left.pop()), config))
                number += 1
            pipeline.step()
            live = [each for each in live if each.get_status() == openvino_genai.GenerationStatus.RUNNING]
        return result(job, time.perf_counter() - started_s)

    return run


def http(url: str) -> Callable[[Job], Result]:
    """Any OpenAI-compatible server: ``/v1/completions`` with token ids, answers whole, so that the client costs little."""

    async def one(reader_writer: asyncio.Queue[Any], ids: list[int], count: int) -> None:
        reader, writer = await reader_writer.get()
        fields = {"prompt": ids, "max_tokens": count, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        body = json.dumps(fields).encode()
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        writer.write(body)
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        answer = json.loads(await reader.readexactly(int(lengths[0])))
        got = answer["usage"]["completion_tokens"]
        assert got == count, f"{got} tokens instead of {count}"
        reader_writer.put_nowait((reader, writer))

    async def closed_loop(job: Job) -> float:
        host, port = url.removeprefix("http://").split(":")
        connections: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(job["concurrency"]):
            connections.put_nowait(await asyncio.open_connection(host, int(port), limit=1 << 24))
        started_s = time.perf_counter()
        await asyncio.gather(*(one(connections, ids, job["output_tokens"]) for ids in prompts(job)))
        wall_s = time.perf_counter() - started_s
        while not connections.empty():
            connections.get_nowait()[1].close()
        return wall_s

    def run(job: Job) -> Result:
        return result(job, asyncio.run(closed_loop(job)))

    return run


def main() -> None:
    kind, argument = sys.argv[1], sys.argv[2]
    makers: dict[str, Callable[[str], Callable[[Job], Result]]] = {
        "setpoint": lambda threads: setpoint_steps(int(threads)),
        "setpoint-streams": lambda threads: setpoint_engine(int(threads)),
        "genai": lambda threads: genai(int(threads)),
        "http": http,
    }
    run = makers[kind](argument)
    print(json.dumps({"ready": Path(sys.argv[0]).name}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
