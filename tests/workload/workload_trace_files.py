"""Small trace files in each format, written by the tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

AZURE_HEADING = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURSTGPT_HEADING = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"


def write(path: Path, lines: Iterable[str], *, end: str = "\n", last_end: bool = True) -> Path:
    """The lines as a file."""
    path.write_bytes((end.join(lines) + (end if last_end else "")).encode())
    return path


def azure(path: Path, rows: Sequence[tuple[float, int, int]], *, zone: str = "", digits: int = 7) -> Path:
    """An Azure CSV: as that of 2023 with seven digits and no zone, of 2024 with six and ``+00:00``."""
    lines = [AZURE_HEADING]
    for time_s, prompt, output in rows:
        minutes, seconds = divmod(time_s, 60)
        lines.append(f"2023-11-16 18:{int(minutes):02}:{seconds:0{digits + 3}.{digits}f}{zone},{prompt},{output}")
    return write(path, lines, end="\r\n", last_end=False)


def mooncake(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """A Mooncake JSONL."""
    return write(path, [json.dumps(row) for row in rows])


def burstgpt(path: Path, rows: Sequence[tuple[float, int, int]]) -> Path:
    """A BurstGPT CSV."""
    lines = [f"{time_s:g},ChatGPT,{prompt},{output},{prompt + output},Conversation log" for time_s, prompt, output in rows]
    return write(path, [BURSTGPT_HEADING, *lines])


def talk(*texts: str, **extra: Any) -> dict[str, Any]:
    """A ShareGPT conversation, the person first."""
    roles = ("human", "gpt")
    turns = [{"from": roles[index % 2], "value": text} for index, text in enumerate(texts)]
    return {"id": "x", "conversations": turns, **extra}


def own(path: Path, columns: dict[str, list[Any]]) -> Path:
    """A ``requests.parquet`` with these columns."""
    pq.write_table(pa.table(columns), path)
    return path
