"""200 answers that must fit a JSON schema, beside neighbours that need not: how many parse, how many validate, at what cost.

    python benchmarks/structured/validate.py --out benchmarks/results/structured.json

The demo model, greedy and at temperature 1, all requests at once against one server over HTTP. Beside it, what masks cost:
the answers replayed 32 at a time through the code that makes masks for a step. Exit code 1 if an answer does not validate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openai
from cases import Case, cases
from jsonschema import Draft202012Validator

from setpoint.engine.constraint import GrammarKind, GrammarSpec
from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import DEMO_MODEL, resolve_model
from setpoint.engine.openvino.masks import Masks
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.server.app import create_app
from setpoint.server.background import BackgroundServer

MAX_TOKENS = 1024
NEIGHBOURS = 40
ROWS = 32
MAX_REPLAY_STEPS = 400
REQUEST_TIMEOUT_S = 900.0


async def answer(client: openai.AsyncOpenAI, case: Case) -> tuple[str, str, int]:
    """Text, finish reason and tokens of one answer."""
    reply = await client.chat.completions.create(
        model=DEMO_MODEL,
        messages=[{"role": "user", "content": case.prompt}],
        temperature=case.temperature,
        seed=case.seed,
        max_tokens=MAX_TOKENS,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": case.schema, "strict": True}},
    )
    choice = reply.choices[0]
    return choice.message.content or "", choice.finish_reason, reply.usage.completion_tokens if reply.usage else 0


async def neighbour(client: openai.AsyncOpenAI, number: int) -> None:
    """Free text in the same batch."""
    stream = await client.completions.create(
        model=DEMO_MODEL, prompt=f"Story {number}: once", max_tokens=96, temperature=1.0, stream=True
    )
    async for _ in stream:
        pass


async def ask_all(url: str, wanted: list[Case]) -> list[tuple[str, str, int]]:
    """All answers, in order, with the neighbours beside them."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=REQUEST_TIMEOUT_S) as client:
        free = [asyncio.create_task(neighbour(client, number)) for number in range(NEIGHBOURS)]
        answers = await asyncio.gather(*(answer(client, case) for case in wanted))
        await asyncio.gather(*free)
    return answers


def judge(case: Case, text: str) -> str:
    """``valid``, ``invalid`` (parses, does not fit) or ``unparsed``."""
    try:
        value = json.loads(text)
    except ValueError:
        return "unparsed"
    validator = Draft202012Validator(case.schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return "valid" if validator.is_valid(value) else "invalid"


def mask_costs(tokenizer: ModelTokenizer, wanted: list[Case], texts: list[str]) -> dict[str, Any]:
    """Milliseconds a step spends on masks for ``ROWS`` answers, and on adding them to logits, on the calling thread."""
    masks = Masks(len(tokenizer.token_bytes))
    logits = np.zeros((ROWS, len(tokenizer.token_bytes)), dtype=np.float32)
    made_ms: list[float] = []
    added_ms: list[float] = []
    for start in range(0, len(wanted) - ROWS + 1, ROWS):
        sequences, answers = [], []
        for case, text in zip(wanted[start : start + ROWS], texts[start : start + ROWS], strict=True):
            grammar = tokenizer.compile_grammar(GrammarSpec(GrammarKind.JSON_SCHEMA, json.dumps(case.schema), "schema"))
            request = GenerationRequest((1,), SamplingParams(grammar=grammar))
            sequences.append(Sequence(len(sequences), request, arrived_s=0.0, max_tokens=MAX_TOKENS))
            answers.append(tokenizer.encode(text, add_special_tokens=False))
        for step in range(min(max(map(len, answers)), MAX_REPLAY_STEPS)):
            begun_s = time.perf_counter()
            added = masks.prepare(sequences)
            assert added is not None
            made_s = time.perf_counter()
            np.add(logits, added)
            added_ms.append((time.perf_counter() - made_s) * 1000)
            made_ms.append((made_s - begun_s) * 1000)
            for sequence, tokens in zip(sequences, answers, strict=True):
                if step < len(tokens) and not sequence.fault:
                    sequence.emit(tokens[step], 0.0)
    return {"rows": ROWS, "steps": len(made_ms), "make_ms": quantiles(made_ms), "add_ms": quantiles(added_ms)}


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and largest."""
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(values), 3)}


def main() -> int:
    """Run everything; write and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--every", type=int, default=1, help="take every N-th case only")
    options = parser.parse_args()
    wanted = cases()[:: options.every]
    model = resolve_model(DEMO_MODEL)
    engine = embedded_engine(model, ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=ROWS, kv_cache_tokens=65536))
    with BackgroundServer(create_app(engine)) as server:
        begun_s = time.perf_counter()
        answers = asyncio.run(ask_all(server.url, wanted))
        seconds = time.perf_counter() - begun_s
    texts = [text for text, _, _ in answers]
    verdicts = [judge(case, text) for case, text in zip(wanted, texts, strict=True)]
    bad = [
        {"schema": case.name, "temperature": case.temperature, "verdict": verdict, "finish_reason": reason, "text": text[:400]}
        for case, verdict, (text, reason, _) in zip(wanted, verdicts, answers, strict=True)
        if verdict != "valid"
    ]
    result = {
        "model": DEMO_MODEL,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "answers": len(wanted),
        "neighbours": NEIGHBOURS,
        "verdicts": dict(Counter(verdicts)),
        "finish_reasons": dict(Counter(reason for _, reason, _ in answers)),
        "tokens": {"p50": int(np.median([n for _, _, n in answers])), "max": max(n for _, _, n in answers)},
        "seconds": round(seconds, 1),
        "masks": mask_costs(ModelTokenizer(model.folder), wanted, texts) if len(wanted) >= ROWS else None,
        "not_valid": bad,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
