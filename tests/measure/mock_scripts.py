"""Behaviours of the mock server as scripts: writes at known times after a request was received.

A script holds the writes, when each token is due at the client, and how the connection goes on afterwards.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST_S, GAP_S, TOKENS = 0.04, 0.02, 6


class End(Enum):
    """What happens after the last write."""

    KEEP = "keep the connection"
    CLOSE = "close it"
    RESET = "reset it"
    HANG = "do nothing more"


@dataclass(frozen=True)
class Script:
    """``writes``: (seconds after arrival, bytes). ``token_s``: when each token is due at the client, on the same axis."""

    writes: list[tuple[float, bytes]]
    token_s: list[float]
    end: End = End.KEEP
    end_s: float | None = None


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def text(words: str, reason: str | None = None) -> bytes:
    """An event of the completions endpoint."""
    return event({"choices": [{"index": 0, "text": words, "finish_reason": reason}], "usage": None})


def delta(value: dict[str, object], reason: str | None = None) -> bytes:
    """An event of the chat endpoint."""
    return event({"choices": [{"index": 0, "delta": value, "finish_reason": reason}]})


def usage(tokens: int, cached: int = 3) -> bytes:
    """The last event before ``[DONE]``."""
    return event({"choices": [], "usage": usage_block(tokens, cached)})


def usage_block(tokens: int, cached: int = 3) -> dict[str, object]:
    """A usage object for a prompt of 7 tokens."""
    return {
        "prompt_tokens": 7,
        "completion_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def finale(tokens: int) -> bytes:
    """Finish reason, usage, ``[DONE]`` and the end of the chunked body."""
    return chunk(text("", "length") + usage(tokens) + event(b"[DONE]")) + b"0\r\n\r\n"


def at(position: int) -> float:
    """When the token at ``position`` is due."""
    return FIRST_S + position * GAP_S


def stream(pieces: list[tuple[float, bytes]], token_s: list[float], closing: bytes | None = None) -> Script:
    """Headers at once, pieces (one HTTP chunk each) at their times, and the closing at the time of the last."""
    last_s = pieces[-1][0]
    ending = finale(len(token_s)) if closing is None else closing
    writes = [(0.0, SSE_HEAD), *((time_s, chunk(data)) for time_s, data in pieces), (last_s, ending)]
    return Script(writes, token_s)


def plain(tokens: int = TOKENS) -> Script:
    """One token an event, one event a write."""
    times = [at(position) for position in range(tokens)]
    return stream([(time_s, text(f"w{time_s} ")) for time_s in times], times)


def multi_token() -> Script:
    """Chunks of three tokens, which only ``usage`` tells."""
    times = [at(position) for position in range(4)]
    return stream([(time_s, text("one two three")) for time_s in times], [time_s for time_s in times for _ in range(3)])


def several_events() -> Script:
    """Three events in every write."""
    times = [at(position) for position in range(4)]
    return stream([(time_s, text("a") * 3) for time_s in times], [time_s for time_s in times for _ in range(3)])


def split_event() -> Script:
    """Every event in two writes; the second half, with the blank line, comes 10 ms later."""
    times = [at(position) for position in range(4)]
    pieces = []
    for time_s in times:
        data = text("halved")
        pieces += [(time_s - 0.01, data[:20]), (time_s, data[20:])]
    return stream(pieces, times)


def stalled() -> Script:
    """A gap of 300 ms after the third token."""
    times = [at(position) + (0.3 if position >= 3 else 0.0) for position in range(TOKENS)]
    return stream([(time_s, text("w")) for time_s in times], times)


def late_headers() -> Script:
    """Headers and first token together."""
    script = plain()
    return Script([(FIRST_S, SSE_HEAD), *script.writes[1:]], script.token_s)


def role_first() -> Script:
    """A chat stream whose first event, long before the first token, has only the role."""
    times = [at(position) for position in range(4)]
    pieces = [(0.0, delta({"role": "assistant", "content": ""}))]
    return stream(pieces + [(time_s, delta({"content": "w"})) for time_s in times], times)


def reasoning() -> Script:
    """A chat stream of two reasoning tokens, one of content, one of a tool call."""
    kinds: list[dict[str, object]] = [
        {"reasoning_content": "hm"},
        {"reasoning": "so"},
        {"content": "yes"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
    ]
    times = [at(position) for position in range(4)]
    return stream([(time_s, delta(kind)) for time_s, kind in zip(times, kinds, strict=True)], times)


def silent_tokens() -> Script:
    """Tokens whose text is not complete yet have an event without text; ``usage`` counts them."""
    times = [at(position) for position in range(6)]
    return stream([(time_s, text("é" if position % 2 else "")) for position, time_s in enumerate(times)], times)


def crlf() -> Script:
    """Lines end with CRLF, with comments between the events."""
    times = [at(position) for position in range(4)]
    return stream([(time_s, b": ping\r\n\r\n" + text("w").replace(b"\n", b"\r\n")) for time_s in times], times)


def no_usage() -> Script:
    """No usage block."""
    times = [at(position) for position in range(4)]
    return stream([(time_s, text("w")) for time_s in times], times, chunk(text("", "stop") + event(b"[DONE]")) + b"0\r\n\r\n")


def cut() -> Script:
    """The connection is closed after three tokens, inside the chunked body."""
    script = plain(3)
    return Script(script.writes[:-1], script.token_s, End.CLOSE, at(3))


def clean_cut() -> Script:
    """The HTTP body ends properly, but the stream has neither a finish reason nor ``[DONE]``."""
    times = [at(position) for position in range(3)]
    return stream([(time_s, text("w")) for time_s in times], times, b"0\r\n\r\n")


def reset() -> Script:
    """The connection is reset after two tokens."""
    script = plain(2)
    return Script(script.writes[:-1], script.token_s, End.RESET, at(2))


def closed_at_once() -> Script:
    """The connection is closed before any answer."""
    return Script([], [], End.CLOSE, 0.01)


def stream_error() -> Script:
    """An error object after two tokens, then ``[DONE]``."""
    times = [at(position) for position in range(2)]
    error = event({"error": {"message": "out of blocks", "type": "server_error", "code": 500}}) + event(b"[DONE]")
    return stream([(time_s, text("w")) for time_s in times], times, chunk(error) + b"0\r\n\r\n")


def named_error() -> Script:
    """An error as an event of its own name."""
    data = b'event: error\ndata: {"message": "worker died"}\n\n'
    return stream([(FIRST_S, text("w"))], [FIRST_S], chunk(data) + b"0\r\n\r\n")


def not_json() -> Script:
    """An event that is not JSON."""
    return stream([(FIRST_S, text("w")), (at(1), event(b"<html>"))], [FIRST_S])


def empty() -> Script:
    """A stream that ends at once, without output."""
    return stream([(FIRST_S, text("", "stop"))], [], chunk(event(b"[DONE]")) + b"0\r\n\r\n")


def frozen() -> Script:
    """Two tokens, then nothing for ever."""
    script = plain(2)
    return Script(script.writes[:-1], script.token_s, End.HANG)


def silent() -> Script:
    """No answer at all."""
    return Script([], [], End.HANG)


def refusal(status: int, extra: bytes = b"") -> Script:
    """An HTTP error with an error object, 10 ms after the arrival."""
    body = json.dumps({"error": {"message": f"refused with {status}", "type": "t", "param": None, "code": "c"}}).encode()
    head = b"HTTP/1.1 %d Some Reason\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return Script([(0.01, head % (status, extra, len(body)) + body)], [])


def one_json(tokens: int = 5) -> Script:
    """An answer that is not streamed."""
    choice = {"index": 0, "text": "five words are in here", "finish_reason": "length"}
    body = json.dumps({"choices": [choice], "usage": usage_block(tokens, 4)}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return Script([(0.05, head + body)], [])


def until_close() -> Script:
    """A stream without a length: it ends with its connection."""
    times = [at(position) for position in range(3)]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    writes = [(0.0, head), *((time_s, text("w")) for time_s in times)]
    writes.append((times[-1], text("", "stop") + usage(3) + event(b"[DONE]")))
    return Script(writes, times, End.CLOSE, times[-1])


def interim() -> Script:
    """Two interim answers, the second with headers of its own, before a stream."""
    script = plain(3)
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\n"
    return Script([(0.0, before + script.writes[0][1]), *script.writes[1:]], script.token_s)


def closes_unannounced() -> Script:
    """A whole answer, then the connection is closed though nothing said so."""
    script = plain(2)
    return Script(script.writes, script.token_s, End.CLOSE)


def called_text() -> Script:
    """A stream whose content type is plain text."""
    script = plain(3)
    return Script([(0.0, SSE_HEAD.replace(b"event-stream", b"plain")), *script.writes[1:]], script.token_s)


def called_stream() -> Script:
    """One JSON object whose content type is that of a stream."""
    script = one_json()
    return Script([(0.05, script.writes[0][1].replace(b"application/json", b"text/event-stream"))], [])


def running_usage() -> Script:
    """Usage in every event tells how many tokens each holds, one of them without text."""
    times = [at(position) for position in range(4)]
    counts = [1, 4, 5, 7]
    pieces = []
    for time_s, count in zip(times, counts, strict=True):
        choice = {"index": 0, "text": "" if count == 5 else "w", "finish_reason": None}
        pieces.append((time_s, event({"choices": [choice], "usage": usage_block(count)})))
    token_s = [times[0], *[times[1]] * 3, times[2], *[times[3]] * 2]
    return stream(pieces, token_s)


def logprobs() -> Script:
    """No usage, but log-probabilities of every token, two in each event."""
    times = [at(position) for position in range(3)]
    entries = {"content": [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -2.0}]}
    chunks = [event({"choices": [{"delta": {"content": "ab"}, "logprobs": entries}]}) for _ in times]
    ending = chunk(delta({}, "stop") + event(b"[DONE]")) + b"0\r\n\r\n"
    return stream(list(zip(times, chunks, strict=True)), [time_s for time_s in times for _ in range(2)], ending)


def end_token() -> Script:
    """The end token has an event without text, 20 ms after the last word, and is in ``usage``."""
    times = [at(position) for position in range(4)]
    ending = chunk(text("", "stop") + usage(4) + event(b"[DONE]")) + b"0\r\n\r\n"
    script = stream([(time_s, text("w")) for time_s in times[:3]], times, b"")
    return Script([*script.writes[:-1], (times[3], ending)], times)


def aborted() -> Script:
    """The server gives the request up and says so in the finish reason."""
    times = [at(position) for position in range(2)]
    ending = chunk(text("", "abort") + event(b"[DONE]")) + b"0\r\n\r\n"
    return stream([(time_s, text("w")) for time_s in times], times, ending)


def json_error() -> Script:
    """An error object with status 200 and no stream."""
    body = b'{"error": {"message": "no such adapter", "code": 404}}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return Script([(0.01, head + body)], [])


def trailers() -> Script:
    """Chunk extensions, and a trailer after the last chunk."""
    times = [at(position) for position in range(3)]
    pieces = [(time_s, chunk(text("w")).replace(b"\r\n", b";x=1\r\n", 1)) for time_s in times]
    ending = chunk(text("", "stop") + event(b"[DONE]")) + b"0\r\nx-checksum: 1\r\n\r\n"
    return Script([(0.0, SSE_HEAD), *pieces, (times[-1], ending)], times)


def left_open() -> Script:
    """A whole answer with ``[DONE]``, whose body never ends."""
    script = no_usage()
    last_s, ending = script.writes[-1]
    return Script([*script.writes[:-1], (last_s, ending.removesuffix(b"0\r\n\r\n"))], script.token_s, End.HANG)


def http_10() -> Script:
    """A stream in HTTP/1.0, which ends with its connection."""
    times = [at(position) for position in range(3)]
    writes = [(0.0, b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"), *((one, text("w")) for one in times)]
    return Script([*writes, (times[-1], text("", "stop"))], times, End.CLOSE, times[-1])


def compressed() -> Script:
    """A stream that is compressed though nobody asked for it."""
    head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    return Script([(0.0, head), (0.04, chunk(gzip.compress(text("w", "stop") + event(b"[DONE]"))) + b"0\r\n\r\n")], [])


def redirect() -> Script:
    """The address has changed."""
    head = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: https://else.where/v1/completions\r\ncontent-length: 0\r\n\r\n"
    return Script([(0.01, head)], [])


def garbage() -> Script:
    """Not HTTP."""
    return Script([(0.01, b"SSH-2.0-nothing\r\n\r\n")], [])


BEHAVIOURS: dict[str, Callable[[], Script]] = {
    "plain": plain,
    "multi_token": multi_token,
    "several_events": several_events,
    "split_event": split_event,
    "stalled": stalled,
    "late_headers": late_headers,
    "role_first": role_first,
    "reasoning": reasoning,
    "silent_tokens": silent_tokens,
    "crlf": crlf,
    "no_usage": no_usage,
    "until_close": until_close,
    "interim": interim,
    "closes_unannounced": closes_unannounced,
    "called_text": called_text,
    "called_stream": called_stream,
    "running_usage": running_usage,
    "logprobs": logprobs,
    "end_token": end_token,
    "aborted": aborted,
    "json_error": json_error,
    "trailers": trailers,
    "left_open": left_open,
    "http_10": http_10,
    "cut": cut,
    "clean_cut": clean_cut,
    "reset": reset,
    "closed_at_once": closed_at_once,
    "stream_error": stream_error,
    "named_error": named_error,
    "not_json": not_json,
    "empty": empty,
    "frozen": frozen,
    "silent": silent,
    "garbage": garbage,
    "headers_only": lambda: Script([(0.0, SSE_HEAD)], [], End.CLOSE, FIRST_S),
    "html": lambda: Script([(0.01, b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>")], []),
    "compressed": compressed,
    "redirect": redirect,
    "one_json": one_json,
    "status_429": lambda: refusal(429, b"Retry-After: 2\r\n"),
    "status_503": lambda: refusal(503, b"Retry-After: 1\r\nretry-after-ms: 1500\r\n"),
    "status_500": lambda: refusal(500),
    "status_401": lambda: refusal(401),
}
