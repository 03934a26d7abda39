"""Mooncake's JSONL traces: an object a line, with the hashes of the blocks of 512 tokens that a prompt consists of.

The Bailian traces of Qwen have the same keys beside ``chat_id`` and ``parent_chat_id``, with times in seconds and blocks of 16
tokens, by their own documentation.

An equal hash stands for an equal block behind equal blocks, so prompts are made of blocks of text that follow from the
hash: what the trace's prompts had in common, ours have, and a prefix cache finds as much.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any

from setpoint.workload.traces.rows import MAX_LINE_CHARS, BadRow, Requests, RowLog, lines_of, tokens_in
from setpoint.workload.traces.trace import Trace

BLOCK_TOKENS, BAILIAN_BLOCK_TOKENS = 512, 16
BAILIAN_KEYS = ("chat_id", "parent_chat_id")
MAX_BLOCKS_A_PROMPT = 16_384

# Later writers of the format spell some keys differently.
TIMES = ("timestamp", "created_time")
PROMPTS = ("input_length", "input_tokens")
OUTPUTS = ("output_length", "output_tokens")


def matches(row: dict[str, Any]) -> bool:
    """Whether an object is a row of such a trace."""
    return all(any(name in row for name in names) for names in (PROMPTS, OUTPUTS))


def read_mooncake(path: Path) -> Trace:
    """The trace in the file. Raises ``TraceError``."""
    log = RowLog(path)
    requests = Requests()
    without_blocks = 0
    for number, line in lines_of(path):
        if requests.full:
            log.more = True
            break
        try:
            row = _row(line)
            bailian = all(name in row for name in BAILIAN_KEYS)
            time_s = _number(_value(row, TIMES)) / (1 if bailian else 1000)
            prompt_tokens = tokens_in(_value(row, PROMPTS), PROMPTS[0], least=1)
            output_tokens = tokens_in(_value(row, OUTPUTS), OUTPUTS[0])
            numbers = _block_numbers(row.get("hash_ids"))
        except BadRow as error:
            log.note_bad(number, str(error))
            continue
        if output_tokens == 0:
            log.note_failed()
            continue
        log.note_good()
        requests.add(time_s, prompt_tokens, output_tokens)
        requests.add_blocks(numbers, BAILIAN_BLOCK_TOKENS if bailian else BLOCK_TOKENS)
        without_blocks += not numbers
    note = f"{without_blocks} requests have no hash_ids; their prompts have nothing in common with others."
    return requests.trace(log, "mooncake", (note,) if without_blocks else ())


def _row(line: str) -> dict[str, Any]:
    if len(line) >= MAX_LINE_CHARS:
        raise BadRow("it is very long")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRow("it is no JSON") from None
    if not isinstance(row, dict):
        raise BadRow("it is no JSON object")
    return row


def _value(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise BadRow(f"it has no {names[0]}")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise BadRow(f"timestamp is {str(value)[:40]!r}, a number is needed")
    return float(value)


def _block_numbers(value: Any) -> list[int]:
    """The hashes as numbers of 63 bits: they are numbers, or text in newer files."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_BLOCKS_A_PROMPT:
        raise BadRow(f"hash_ids is no list of at most {MAX_BLOCKS_A_PROMPT} hashes")
    return [_block_number(entry) for entry in value]


def _block_number(entry: Any) -> int:
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < 1 << 63:
        return entry
    if isinstance(entry, str | int):
        return int.from_bytes(blake2b(str(entry).encode(), digest_size=8).digest(), "big") >> 1
    raise BadRow(f"hash_ids has {str(entry)[:40]!r} in it, numbers or text are needed")
