"""Server-sent events out of recorded chunks: read later, in slices, with the time of the chunk that completed each.

An event counts as received when the blank line that ends it was: that is when any client can act on it. The payloads of
a slice are read by the JSON module in one call, which costs about half of reading them one by one.
"""

from __future__ import annotations

import json
import re
from array import array
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setpoint.measure.answer import Answer, error_text, is_silent, output_weight, reconcile, take_usage, whole_number

SLICE_CHUNKS = 64
EVENT_BYTES_MAX = 16 << 20

_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\r?\n|\r\r")
_DONE = b"[DONE]"


class StreamReader:
    """Reads one stream's chunks as they pile up; ``advance`` does a bounded slice of the work.

    event_times_s: arrival of the tokens read so far, one entry a token as far as events show it (see ``reconcile``).
    """

    def __init__(self) -> None:
        self.event_times_s: array[float] = array("d")
        self._silent_s: array[float] = array("d")
        self._next_chunk = 0
        self._tail = b""
        self._answer = Answer(streaming=True)
        self._end_s: float | None = None

    def advance(self, times_s: array[float], chunks: list[bytes]) -> bool:
        """Read at most ``SLICE_CHUNKS`` more chunks and let go of their bytes; returns whether any are left.

        times_s, chunks: all chunks of the response so far, one time each; read chunks are replaced by empty ones.
        """
        first = self._next_chunk
        stop = min(first + SLICE_CHUNKS, len(chunks))
        if first == stop:
            return False
        pieces = chunks[first:stop]
        chunks[first:stop] = [b""] * len(pieces)
        self._next_chunk = stop
        buffer = self._tail + b"".join(pieces)
        ends = list(accumulate((len(piece) for piece in pieces), initial=len(self._tail)))[1:]
        self._read(buffer, ends, times_s[first:stop])
        return stop < len(chunks)

    def _read(self, buffer: bytes, ends: list[int], times_s: array[float]) -> None:
        """Read the complete events; ``ends[i]`` is where the chunk received at ``times_s[i]`` ends in ``buffer``."""
        payloads: list[bytes] = []
        payload_times_s: list[float] = []
        start = chunk = 0
        for blank in _BLANK_LINE.finditer(buffer):
            stop = blank.end()
            while ends[chunk] < stop:
                chunk += 1
            payload = _payload(buffer[start : blank.start()])
            if payload:
                payloads.append(payload)
                payload_times_s.append(times_s[chunk])
            start = stop
        self._tail = buffer[start:]
        if len(self._tail) > EVENT_BYTES_MAX:
            self._unreadable(self._tail)
            self._tail = b""
        self._take_payloads(payloads, payload_times_s)

    def _take_payloads(self, payloads: list[bytes], times_s: list[float]) -> None:
        if _DONE in payloads:
            place = payloads.index(_DONE)
            self._answer.complete = True
            self._end_s = self._end_s if self._end_s is not None else times_s[place]
            times_s = [time_s for time_s, payload in zip(times_s, payloads, strict=True) if payload != _DONE]
            payloads = [payload for payload in payloads if payload != _DONE]
        for value, time_s, payload in zip(_values(payloads), times_s, payloads, strict=True):
            if isinstance(value, dict):
                self._take_event(value, time_s)
            else:
                self._unreadable(payload)

    def _take_event(self, event: dict[str, Any], time_s: float) -> None:
        answer = self._answer
        if "error" in event or event.get("object") == "error":
            answer.error = answer.error or error_text(event)
        choices = event.get("choices")
        usage = event.get("usage")
        if usage is not None:
            take_usage(answer, usage)
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return
        choice = choices[0]
        weight = output_weight(choice)
        if usage is not None and weight:  # Usage in every event tells how many tokens this one holds.
            so_far = whole_number(usage.get("completion_tokens")) if isinstance(usage, dict) else None
            weight = max(1, (so_far or 0) - len(self.event_times_s))
        if weight:
            self.event_times_s.extend([time_s] * weight)
        reason = choice.get("finish_reason")
        if not weight and not reason and is_silent(choice):
            self._silent_s.append(time_s)
        if reason:
            answer.finish_reason = str(reason)
            answer.complete = True
            self._end_s = time_s

    def _unreadable(self, payload: bytes) -> None:
        self._answer.unreadable = True
        self._answer.error = self._answer.error or f"an event of the stream is not a JSON object: {payload[:80]!r}"

    def finish(self, times_s: array[float], chunks: list[bytes]) -> Answer:
        """Read what is left, an unterminated last event included, and reconcile the count of tokens with ``usage``."""
        while self.advance(times_s, chunks):
            pass
        if self._tail.strip() and times_s:
            payload = _payload(self._tail)
            if payload == _DONE or isinstance(_value(payload), dict):  # Else it was cut inside the event.
                self._take_payloads([payload], [times_s[-1]])
            self._tail = b""
        answer = self._answer
        times: NDArray[np.float64] = np.array(self.event_times_s, dtype=np.float64)
        silent: NDArray[np.float64] = np.array(self._silent_s, dtype=np.float64)
        answer.token_times_s = reconcile(times, answer.output_tokens, silent_s=silent, end_s=self._end_s)
        if answer.output_tokens or answer.token_times_s.size:
            answer.output_tokens = len(answer.token_times_s)
        return answer


def _payload(block: bytes) -> bytes:
    """The data of one event: its ``data`` lines joined, as an error object if the event is named so; no comments."""
    if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
        return block[6:].strip()
    lines = block.splitlines()
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")).strip()
    is_error = any(line.startswith(b"event:") and line[6:].strip() == b"error" for line in lines)
    return b'{"error":' + (data if _value(data) else b'"the stream sent an error event"') + b"}" if is_error else data


def _value(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return None


def _values(payloads: list[bytes]) -> list[Any]:
    """The JSON values of payloads, read at once where all are well formed, else one by one."""
    try:
        values = json.loads(b"[" + b",".join(payloads) + b"]")
    except ValueError:
        values = []
    return values if len(values) == len(payloads) else [_value(payload) for payload in payloads]
