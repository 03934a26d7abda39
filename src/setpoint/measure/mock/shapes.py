"""Behaviours as writes: which bytes, how many tokens each carries, and which token's time it goes out at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from setpoint.measure.mock.options import Behaviour
from setpoint.measure.mock.wire import DONE, LAST_CHUNK, SSE_HEAD, Wire, chunk, error, event, refusal, usage_of

AT_ONCE = -1

STATUSES = {Behaviour.HTTP_429: 429, Behaviour.HTTP_503: 503, Behaviour.HTTP_500: 500}
_BROKEN = frozenset({Behaviour.CUT, Behaviour.CUT_CLEANLY, Behaviour.RESET, Behaviour.IN_STREAM_ERROR})
_SPLIT_BYTES = 20


class End(Enum):
    """What happens at the last step of a shape."""

    KEEP = "keep the connection"
    CLOSE = "close it"
    RESET = "reset it"
    HANG = "do nothing more"


@dataclass(frozen=True, slots=True)
class Write:
    """One write. ``token``: position of the token at whose time it is due, or ``AT_ONCE``. ``tokens`` it carries."""

    data: bytes
    tokens: int
    token: int


@dataclass(frozen=True, slots=True)
class Shape:
    """All writes of an answer and its end; ``end_token`` is when that is, for ends other than ``KEEP``.

    closes: the bytes after the last token (``Wire.closing``) belong to the last write. finish: a finish reason of its own
    among them; else the last token's event has it, as vLLM's do. status: of the HTTP answer.
    """

    writes: tuple[Write, ...]
    end: End = End.KEEP
    end_token: int = AT_ONCE
    closes: bool = True
    finish: bool = False
    status: int = 200


def stream_shape(behaviour: Behaviour, wire: Wire, tokens: int, per_chunk: int, retry_after_s: float) -> Shape:
    """The shape of an answer of ``tokens`` tokens that is streamed."""
    if behaviour in STATUSES:
        return _refused(behaviour, retry_after_s)
    if behaviour is Behaviour.SILENT:
        return Shape((), End.HANG, closes=False, status=0)
    if behaviour is Behaviour.NOT_STREAMING:
        return whole_shape(behaviour, wire, tokens, 0, retry_after_s)
    if behaviour in _BROKEN:
        return _broken_shape(behaviour, wire, tokens)
    head = Write(SSE_HEAD, 0, AT_ONCE)
    finish = behaviour in (Behaviour.EARLY_ROLE, Behaviour.NO_USAGE)
    words = _words(wire, tokens, finishes=not finish)
    match behaviour:
        case Behaviour.MULTI_TOKEN:
            words = _grouped(wire, tokens, per_chunk, one_event=True)
        case Behaviour.SEVERAL_EVENTS:
            words = _grouped(wire, tokens, per_chunk, one_event=False)
        case Behaviour.SPLIT_EVENT:
            words = _split(wire, tokens)
        case Behaviour.LATE_HEADERS:
            return Shape((Write(SSE_HEAD + words[0].data, 1, 0), *words[1:]))
        case Behaviour.EARLY_ROLE:
            head = Write(SSE_HEAD + chunk(wire.role), 0, AT_ONCE)
        case _:
            pass
    return Shape((head, *words), finish=finish)


def _broken_shape(behaviour: Behaviour, wire: Wire, tokens: int) -> Shape:
    """A stream that ends after half of its tokens, when the next one would have come."""
    half = max(1, tokens // 2)
    broken_at = min(half, tokens - 1)
    writes = (Write(SSE_HEAD, 0, AT_ONCE), *_words(wire, half, finishes=False))
    if behaviour in (Behaviour.CUT, Behaviour.RESET):
        return Shape(writes, End.CLOSE if behaviour is Behaviour.CUT else End.RESET, broken_at, closes=False)
    data = LAST_CHUNK
    if behaviour is Behaviour.IN_STREAM_ERROR:
        data = chunk(event(error(500, "the engine ran out of memory")) + DONE) + LAST_CHUNK
    return Shape((*writes, Write(data, 0, broken_at)), closes=False)


def whole_shape(behaviour: Behaviour, wire: Wire, tokens: int, prompt_tokens: int, retry_after_s: float) -> Shape:
    """The shape of an answer of ``tokens`` tokens that is not streamed: one write at the time of the last token."""
    if behaviour in STATUSES:
        return _refused(behaviour, retry_after_s)
    if behaviour is Behaviour.SILENT:
        return Shape((), End.HANG, closes=False, status=0)
    last = tokens - 1
    if behaviour is Behaviour.IN_STREAM_ERROR:
        return Shape((Write(refusal(500, "the engine ran out of memory"), 0, last),), closes=False, status=500)
    data = wire.whole(tokens, usage_of(prompt_tokens, tokens))
    if behaviour in (Behaviour.CUT, Behaviour.CUT_CLEANLY, Behaviour.RESET):
        end = End.RESET if behaviour is Behaviour.RESET else End.CLOSE
        return Shape((Write(data[: len(data) // 2], 0, last // 2),), end, last, closes=False)
    return Shape((Write(data, tokens, last),), closes=False)


def _refused(behaviour: Behaviour, retry_after_s: float) -> Shape:
    status = STATUSES[behaviour]
    data = refusal(status, f"refused with {status}", retry_after_s if status != 500 else None)
    return Shape((Write(data, 0, AT_ONCE),), closes=False, status=status)


def _words(wire: Wire, tokens: int, *, finishes: bool) -> tuple[Write, ...]:
    """One token an event, one event a write; ``finishes``: the last has the finish reason."""
    data = [chunk(wire.text(1))] * (tokens - 1) + [chunk(wire.text(1, last=finishes))]
    return tuple(Write(each, 1, token) for token, each in enumerate(data))


def _grouped(wire: Wire, tokens: int, per_chunk: int, *, one_event: bool) -> tuple[Write, ...]:
    """``per_chunk`` tokens at the time of the first of them: in one event, or in as many events in one write."""
    writes = []
    word = chunk(wire.text(1))
    for first in range(0, tokens, per_chunk):
        held = min(per_chunk, tokens - first)
        last = first + held == tokens
        data = chunk(wire.text(held, last=last)) if one_event else word * (held - 1) + chunk(wire.text(1, last=last))
        writes.append(Write(data, held, first))
    return tuple(writes)


def _split(wire: Wire, tokens: int) -> tuple[Write, ...]:
    """Each event in two writes: its beginning at the time of the token before, the rest at its own."""
    writes = []
    for token in range(tokens):
        data = wire.text(1, last=token == tokens - 1)
        begin, rest = chunk(data[:_SPLIT_BYTES]), chunk(data[_SPLIT_BYTES:])
        writes += [Write(begin, 0, token - 1), Write(rest, 1, token)]
    return tuple(writes)
