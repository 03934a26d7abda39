"""Server-sent events out of recorded chunks: read later, in slices, with the time of the chunk that completed each.

An event counts as received when the blank line that ends it was: that is when any client can act on it. Events that
repeat one another around their text are counted without reading their JSON (``event_shape``), which costs a sixth of
reading it; where a stream has no such shape, the payloads of a slice are read by the JSON module in one call, which
costs about half of reading them one by one.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setpoint.measure.answer import (
    Answer,
    content_of,
    error_text,
    is_silent,
    output_weight,
    reconcile,
    shows_reasoning,
    take_usage,
    whole_number,
)
from setpoint.measure.event_shape import EventShape, learn_shape

SLICE_CHUNKS = 64
SLICE_BYTES = 1 << 16
EVENT_BYTES_MAX = 16 << 20

# Learning a shape costs as much as reading some events; it is done only where as many are left, and while it pays.
_LEARNING_COST_EVENTS = 8
_RUN_COST_EVENTS = 4
_LEARNING_CREDIT_EVENTS = 16

_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\r?\n|\r\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DONE = b"[DONE]"


class StreamReader:
    """Reads one stream's chunks as they pile up; ``advance`` does a bounded slice of the work.

    event_times_s: arrival of the tokens read so far, one entry a token as far as events show it (see ``reconcile``).
    keep_text: whether the content is wanted too. by_shape: False reads the JSON of every event.
    """

    def __init__(self, *, keep_text: bool = False, by_shape: bool = True) -> None:
        self.event_times_s: array[float] = array("d")
        self._silent_s: array[float] = array("d")
        self._next_chunk = 0
        self._tail = b""
        self._answer = Answer(streaming=True)
        self._end_s: float | None = None
        self._done = False
        self._reasoned = False
        self._counts_running = False
        self._texts: list[str] | None = [] if keep_text else None
        self._shape: EventShape | None = None
        self._credit = _LEARNING_CREDIT_EVENTS if by_shape else -1

    @property
    def is_done(self) -> bool:
        """Whether ``[DONE]`` was read."""
        return self._done

    @property
    def read_chunks(self) -> int:
        """How many chunks were read."""
        return self._next_chunk

    def advance(self, times_s: array[float], chunks: list[bytes]) -> bool:
        """Read some more chunks and let go of their bytes; returns whether any are left.

        A slice ends after ``SLICE_CHUNKS`` chunks, or with the one that reaches ``SLICE_BYTES``: a server that was frozen
        may send much at once.

        times_s, chunks: all chunks of the response so far, one time each; read chunks are replaced by empty ones.
        """
        first = self._next_chunk
        stop = min(first + SLICE_CHUNKS, len(chunks))
        if first == stop:
            return False
        pieces = chunks[first:stop]
        if first == 0:
            pieces[0] = pieces[0].removeprefix(_BYTE_ORDER_MARK)
        ends = list(accumulate(map(len, pieces), initial=len(self._tail)))[1:]
        if ends[-1] - len(self._tail) > SLICE_BYTES:
            del pieces[bisect_left(ends, len(self._tail) + SLICE_BYTES) + 1 :]
            stop = first + len(pieces)
        chunks[first:stop] = [b""] * len(pieces)
        self._next_chunk = stop
        buffer = self._tail + b"".join(pieces)
        arrivals = _Arrivals(times_s[first:stop], ends)
        self._tail = buffer[self._read(buffer, arrivals) :]
        if len(self._tail) > EVENT_BYTES_MAX:
            self._unreadable(self._tail)
            self._tail = b""
        return stop < len(chunks)

    def _read(self, buffer: bytes, arrivals: _Arrivals) -> int:
        """Read the complete events of ``buffer``; returns where the incomplete rest begins."""
        start, stop = -1, 0
        while start < stop < len(buffer):
            start = self._read_alike(buffer, stop, arrivals)
            stop = self._read_any(buffer, start, arrivals) if start < len(buffer) else start
        return stop

    def _read_alike(self, buffer: bytes, start: int, arrivals: _Arrivals) -> int:
        """Read the events from ``start`` on that have the shape learnt last; returns where others begin."""
        shape = self._shape
        while shape is not None and not self._done and (texts := shape.texts(buffer, start)):
            self._credit = min(_LEARNING_CREDIT_EVENTS, self._credit + len(texts) - _RUN_COST_EVENTS)
            around = len(shape.head) + len(shape.tail)
            stops = list(accumulate([len(text) + around for text in texts], initial=start))[1:]
            self._take_texts(shape, texts, arrivals.at(stops))
            start = stops[-1]
        return start

    def _take_texts(self, shape: EventShape, texts: list[bytes], times_s: list[float]) -> None:
        """Take events of a shape by their texts, as escaped in JSON."""
        if b"" in texts:
            if shape.silent:
                self._silent_s.extend([time_s for time_s, text in zip(times_s, texts, strict=True) if not text])
            times_s = [time_s for time_s, text in zip(times_s, texts, strict=True) if text]
        self.event_times_s.extend(times_s)
        if self._texts is not None and shape.content:
            self._texts.extend(json.loads(b'["' + b'","'.join(texts) + b'"]'))

    def _read_any(self, buffer: bytes, start: int, arrivals: _Arrivals) -> int:
        """Read as JSON: one event, from which a shape may be learnt, or all where learning does not pay."""
        blocks: list[tuple[bytes, bytes]] = []
        stops: list[int] = []
        place = start
        learning = False
        for blank in _BLANK_LINE.finditer(buffer, start):
            blocks.append((buffer[place : blank.start()], blank.group()))
            place = blank.end()
            stops.append(place)
            if len(blocks) == 1 and self._credit >= 0:
                learning = len(buffer) - place >= _LEARNING_COST_EVENTS * (place - start)
                if learning:
                    break
        times_s = arrivals.at(stops)
        payloads = [_payload(block) for block, _ in blocks]
        wanted = [position for position, payload in enumerate(payloads) if payload]
        values = self._take_payloads([payloads[position] for position in wanted], [times_s[position] for position in wanted])
        if learning and values and isinstance(values[0], dict):
            block, line_end = blocks[0]
            self._learn(learn_shape(block, line_end, payloads[0], values[0]))
        return place

    def _learn(self, shape: EventShape | None) -> None:
        if shape is None:
            self._credit -= 1
        else:
            self._shape = shape
            self._credit -= _LEARNING_COST_EVENTS

    def _take_payloads(self, payloads: list[bytes], times_s: list[float]) -> list[Any]:
        """Take what the payloads of events say; nothing counts after ``[DONE]``. Returns their JSON values."""
        if self._done:
            return []
        if _DONE in payloads:
            place = payloads.index(_DONE)
            self._done = self._answer.complete = True
            self._end_s = self._end_s if self._end_s is not None else times_s[place]
            payloads, times_s = payloads[:place], times_s[:place]
        values = _values(payloads)
        for value, time_s, payload in zip(values, times_s, payloads, strict=True):
            if isinstance(value, dict):
                self._take_event(value, time_s)
            else:
                self._unreadable(payload)
        return values

    def _take_event(self, event: dict[str, Any], time_s: float) -> None:
        answer = self._answer
        if "error" in event or event.get("object") == "error":
            answer.error = answer.error or error_text(event)
        usage = event.get("usage")
        if usage is not None:
            take_usage(answer, usage)
        found = event.get("choices")
        choices = [choice for choice in found if isinstance(choice, dict)] if isinstance(found, list) else []
        if not choices:
            return
        weight = sum(map(output_weight, choices))
        if isinstance(usage, dict):
            weight = self._running_weight(usage, weight)
        if weight:
            self.event_times_s.extend([time_s] * weight)
        if self._texts is not None and choices[0].get("index") in (0, None):
            self._texts.append(content_of(choices[0]))
        self._reasoned = self._reasoned or any(map(shows_reasoning, choices))
        reason = next((choice["finish_reason"] for choice in choices if choice.get("finish_reason")), None)
        if reason:
            answer.finish(reason)
            self._end_s = time_s
        elif not weight and any(map(is_silent, choices)):
            self._silent_s.append(time_s)

    def _running_weight(self, usage: dict[str, Any], weight: int) -> int:
        """Tokens of an event with choices and ``usage``: a server that counts in every event says exactly how many.

        Such a count is believed from the first event on that shows output beside it.
        """
        so_far = whole_number(usage.get("completion_tokens"))
        if so_far and weight and not self._counts_running:
            self._counts_running = so_far <= len(self.event_times_s) + weight or not self.event_times_s
        return max(0, so_far - len(self.event_times_s)) if so_far and self._counts_running else weight

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
        answer.token_times_s = reconcile(
            times,
            self._shown_tokens(),
            silent_s=np.array(self._silent_s, dtype=np.float64),
            end_s=self._end_s,
            end_token=answer.finish_reason != "length",
        )
        if answer.output_tokens or answer.token_times_s.size:
            answer.output_tokens = len(answer.token_times_s)
        if self._texts is not None:
            answer.text = "".join(self._texts)
        return answer

    def _shown_tokens(self) -> int | None:
        """The server's count without what it thought but did not send: those tokens came in none of the events."""
        told, thought = self._answer.output_tokens, self._answer.reasoning_tokens
        if not told or self._reasoned or not 0 < thought <= told:
            return told
        # More events than that: what was thought came as content.
        return told - thought if len(self.event_times_s) <= told - thought else told


class _Arrivals:
    """When each place of a buffer had arrived: ``ends[i]`` is where the chunk received at ``times_s[i]`` ends in it."""

    __slots__ = ("_chunk", "_ends", "_times_s")

    def __init__(self, times_s: array[float], ends: list[int]) -> None:
        self._times_s = times_s
        self._ends = ends
        self._chunk = 0

    def at(self, stops: list[int]) -> list[float]:
        """Arrival of the chunk that completed each of ``stops``, which rise from call to call."""
        ends, times_s, chunk = self._ends, self._times_s, self._chunk
        found = []
        for stop in stops:
            while ends[chunk] < stop:
                chunk += 1
            found.append(times_s[chunk])
        self._chunk = chunk
        return found


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
    if len(payloads) == 1:
        return [_value(payloads[0])]
    try:
        # No JSON string holds a line break, so that none can reach from one payload into the next.
        values = json.loads(b"[" + b",\n".join(payloads) + b"]")
    except ValueError:
        values = []
    return values if len(values) == len(payloads) else [_value(payload) for payload in payloads]
