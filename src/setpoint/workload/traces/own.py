"""Setpoint's own ``requests.parquet``: what a run, or production behind a setpoint server, saw."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from setpoint.workload.traces.rows import BadRow, Requests, RowLog, tokens_in
from setpoint.workload.traces.trace import Trace, TraceError

NEEDED = ("intended_s", "prompt_tokens", "output_tokens")
_WANTED = (*NEEDED, "candidate", "cached_tokens", "profile")
_ROWS_A_BATCH = 1 << 14


def read_own(path: Path) -> Trace:
    """The requests in the file, those that were refused or failed too: they were offered. Raises ``TraceError``.

    What a refused request would have answered is not known: it gets the median of the others. Of what was found in a
    cache only the amount is known, so all prompts of one profile share the beginning of one text.
    """
    log = RowLog(path, "row")
    requests = Requests()
    answers_missing: list[int] = []
    profiles: dict[object, int] = {}
    candidates: dict[object, None] = {}
    cached = 0
    for number, row in enumerate(_rows(path), 1):
        if requests.full:
            log.more = True
            break
        candidates.setdefault(row.get("candidate"))
        if row.get("candidate") != next(iter(candidates)):
            continue
        try:
            time_s = row["intended_s"]
            if not isinstance(time_s, float) or not math.isfinite(time_s):
                raise BadRow(f"intended_s is {time_s}")
            prompt_tokens = tokens_in(row["prompt_tokens"], "prompt_tokens", least=1)
            output_tokens = tokens_in(row["output_tokens"] or 0, "output_tokens")
            shared = min(tokens_in(row.get("cached_tokens") or 0, "cached_tokens"), prompt_tokens)
        except BadRow as error:
            log.note_bad(number, str(error))
            continue
        log.note_good()
        if output_tokens == 0:
            answers_missing.append(len(requests.output_tokens))
        requests.add(time_s, prompt_tokens, output_tokens)
        profile = profiles.setdefault(row.get("profile"), len(profiles))
        requests.add_blocks([profile] if shared else [], shared)
        cached += bool(shared)
    answered = [tokens for tokens in requests.output_tokens if tokens]
    if len(requests.output_tokens) and not answered:
        raise TraceError(f"{path}: no request in it has output tokens, so there is no telling how long answers should be")
    for index in answers_missing:
        requests.output_tokens[index] = round(median(answered))
    return requests.trace(log, "setpoint", tuple(_notes(len(answers_missing), cached, list(candidates))))


def _notes(missing: int, cached: int, candidates: list[object]) -> list[str]:
    notes = []
    if missing:
        notes.append(f"{missing} requests had no answer; they get the median length of the others' answers.")
    if cached:
        notes.append(
            f"{cached} prompts were found in a cache in part; how much is known, with whom they shared it is not: all of "
            "one profile share the beginning of one text."
        )
    else:
        notes.append("The file does not say what prompts had in common, so they have nothing in common.")
    if len(candidates) > 1:
        others = ", ".join(map(str, candidates[1:4]))
        notes.append(f"Of several candidates in the file {candidates[0]} is replayed; left out are {others}.")
    return notes


def _rows(path: Path) -> Any:
    """The rows as mappings, a batch at a time."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in NEEDED if name not in names]
            if missing:
                raise TraceError(
                    f"{path}: a Parquet file without {', '.join(missing)}; a requests.parquet of setpoint is needed, "
                    f"found the columns {', '.join(map(repr, names[:8]))}"
                )
            columns = [name for name in _WANTED if name in names]
            for batch in file.iter_batches(_ROWS_A_BATCH, columns=columns):
                yield from batch.to_pylist()
    except TraceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from error
