"""CSV traces with a time and two counts of tokens in a row: Azure's and BurstGPT's, told apart by their heading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from setpoint.workload.traces.rows import MAX_LINE_CHARS, BadRow, Requests, RowLog, lines_of, tokens_in
from setpoint.workload.traces.trace import Trace, TraceError

NOTHING_SHARED = "The trace does not say what prompts have in common, so they have nothing in common."


@dataclass(frozen=True, slots=True)
class TokenCsv:
    """One such format: the names of its columns, in lower case without spaces and underscores, and how a time is written."""

    format: str
    time: str
    prompt_tokens: str
    output_tokens: str
    parse_time: Callable[[str], float]

    def matches(self, heading: Sequence[str]) -> bool:
        """Whether a heading (as ``heading_of`` gives it) has the columns."""
        return {self.time, self.prompt_tokens, self.output_tokens} <= set(heading)

    def read(self, path: Path) -> Trace:
        """The trace in the file. Raises ``TraceError``."""
        log = RowLog(path)
        requests = Requests()
        lines = lines_of(path)
        heading = heading_of(next(lines, (0, ""))[1])
        if not self.matches(heading):
            raise TraceError(f"{path}: the heading has no columns {self.time}, {self.prompt_tokens}, {self.output_tokens}")
        time, prompt, output = (heading.index(name) for name in (self.time, self.prompt_tokens, self.output_tokens))
        for number, line in lines:
            if requests.full:
                log.more = True
                break
            try:
                fields = _fields(line, len(heading))
                time_s = self.parse_time(fields[time])
                prompt_tokens = tokens_in(fields[prompt], self.prompt_tokens, least=1)
                output_tokens = tokens_in(fields[output], self.output_tokens)
            except BadRow as error:
                log.note_bad(number, str(error))
                continue
            if output_tokens == 0:
                log.note_failed()
                continue
            log.note_good()
            requests.add(time_s, prompt_tokens, output_tokens)
        return requests.trace(log, self.format, (NOTHING_SHARED,))


def heading_of(line: str) -> list[str]:
    """The names of a heading, in lower case without spaces, underscores and quotes."""
    return ["".join(char for char in name.lower() if char.isalnum()) for name in line.split(",")]


def parse_instant(text: str) -> float:
    """Seconds of ``2023-11-16 18:17:03.9799600`` or ``2024-05-10 00:00:00.009930+00:00``, of plain seconds too."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return parse_seconds(text)
    return (instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)).timestamp()


def parse_seconds(text: str) -> float:
    """Seconds as a number. Raises ``BadRow``."""
    try:
        time_s = float(text)
    except ValueError:
        time_s = float("nan")
    if not isfinite(time_s):
        raise BadRow(f"the time is {text[:40]!r}")
    return time_s


def _fields(line: str, expected: int) -> list[str]:
    if len(line) >= MAX_LINE_CHARS:
        raise BadRow("it is very long")
    fields = [field.strip().strip('"') for field in line.split(",")]
    if len(fields) != expected:
        raise BadRow(f"it has {len(fields)} fields, the heading has {expected}")
    return fields


AZURE = TokenCsv("azure", "timestamp", "contexttokens", "generatedtokens", parse_instant)
"""Azure's LLM inference traces of 2023 and 2024 (TIMESTAMP, ContextTokens, GeneratedTokens); the 2024 times have a zone."""

BURSTGPT = TokenCsv("burstgpt", "timestamp", "requesttokens", "responsetokens", parse_seconds)
"""BurstGPT (Timestamp, Model, Request tokens, Response tokens, Total tokens, Log Type); 0 response tokens are a failure."""
