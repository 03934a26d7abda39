"""What a profile is measured on: the shipped kinds of work, or a user's prompts from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from setpoint.engine.request import GenerationRequest, InvalidRequest, SamplingParams
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.loop.errors import BadInput
from setpoint.workload.kinds import KINDS, WorkloadKind

MOST_FILE_BYTES: Final = 64 << 20
MOST_PROMPTS: Final = 1000


def shipped_work(kinds: Sequence[WorkloadKind], tokenizer: ModelTokenizer, count: int) -> dict[str, list[GenerationRequest]]:
    """``count`` requests of each kind."""
    return {
        kind.value: [
            _request(tokenizer, KINDS[kind].prompt(number), KINDS[kind].temperature, KINDS[kind].output_tokens, number)
            for number in range(count)
        ]
        for kind in kinds
    }


def work_from_file(
    path: Path, tokenizer: ModelTokenizer, *, temperature: float, output_tokens: int, most_tokens: int
) -> Mapping[str, list[GenerationRequest]]:
    """One request a line: a JSON object with a string ``prompt`` or a list ``messages``.

    Raises ``BadInput`` that names the line of a prompt that cannot be answered within ``most_tokens``.
    """
    requests: list[GenerationRequest] = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        if len(requests) == MOST_PROMPTS:
            break
        try:
            request = _request(tokenizer, _text(path, number, line, tokenizer), temperature, output_tokens, number)
        except InvalidRequest as error:
            raise BadInput(f"--prompts {path}: line {number}: {error}") from None
        found = len(request.prompt_ids)
        if not 0 < found < most_tokens:
            raise BadInput(f"--prompts {path}: line {number} has {found} tokens, give 1 to {most_tokens - 1}")
        requests.append(request)
    if not requests:
        raise BadInput(f'--prompts {path}: found no prompt, give a line such as {{"prompt": "Once upon a time"}} for each')
    return {path.stem: requests}


def _request(tokenizer: ModelTokenizer, text: str, temperature: float, output_tokens: int, seed: int) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=output_tokens, temperature=temperature, seed=seed)
    return GenerationRequest(tuple(tokenizer.encode(text)), sampling)


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise BadInput(f"--prompts {path}: found {path.stat().st_size} bytes, give at most {MOST_FILE_BYTES}")
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--prompts {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _text(path: Path, number: int, line: str, tokenizer: ModelTokenizer) -> str:
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if isinstance(told, dict) and isinstance(told.get("prompt"), str) and told["prompt"]:
        return str(told["prompt"])
    messages = told.get("messages") if isinstance(told, dict) else None
    if isinstance(messages, list) and messages and all(isinstance(each, dict) for each in messages):
        return tokenizer.render_chat(messages)
    raise BadInput(f'--prompts {path}: line {number} is no JSON object with "prompt" or "messages", found {line[:60]!r}')
