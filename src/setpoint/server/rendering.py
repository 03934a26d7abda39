"""From the deltas of answers to what the client reads, streamed or whole: text, log-probabilities, calls of tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from setpoint.engine.request import Delta, FinishReason, TokenLogprobs
from setpoint.server.choices import Choices, Ready
from setpoint.server.logprobs import LogprobsShape
from setpoint.server.sse import Chunks
from setpoint.server.tool_calls import CallArguments, CallBegun, CallFinder, Piece, Text

TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a request wants its answers shown. logprobs, finder: make one for each choice, ``None`` where not asked for."""

    chat: bool
    choices: int
    logprobs: Callable[[], LogprobsShape] | None = None
    finder: Callable[[], CallFinder] | None = None

    @property
    def plain(self) -> bool:
        """Whether text is all there is to show."""
        return self.logprobs is None and self.finder is None


def ended_as(reason: FinishReason, finder: CallFinder | None) -> str:
    """The finish reason as the API has it."""
    return TOOL_CALLS if reason is FinishReason.STOP and finder is not None and finder.calls else reason.value


class StreamedAnswer:
    """Writes the events of one stream. ``write`` is called with everything that ``Choices.ready`` gives, in order."""

    def __init__(self, chunks: Chunks, rendering: Rendering) -> None:
        self._chunks = chunks
        self._plain = rendering.plain
        self._chat = rendering.chat
        every = range(rendering.choices)
        self._logprobs = [rendering.logprobs() for _ in every] if rendering.logprobs is not None else None
        self._finders = [rendering.finder() for _ in every] if rendering.finder is not None else None
        self._open: set[int] = set()

    def write(self, ready: Sequence[Ready], choices: Choices) -> str:
        """The events of what is ready, with the opening of every choice that begins and the end of every one that ends."""
        out: list[str] = []
        for index, deltas in ready:
            if index not in self._open:
                self._open.add(index)
                out.append(self._chunks.opening(index))
            if self._plain:
                out.append(self._chunks.deltas(deltas, index))
            else:
                out += [self._delta(delta, index) for delta in deltas]
            reason = choices.finish_reason(index)
            if reason is not None and choices.error is None:
                finder = None if self._finders is None else self._finders[index]
                out.append(self._chunks.ending(ended_as(reason, finder), index))
        return "".join(out)

    def _delta(self, delta: Delta, index: int) -> str:
        logprobs = self._shown(delta, index)
        if self._finders is None:
            if not (delta.text or delta.finish_reason is None or logprobs):
                return ""
            return self._chunks.piece(self._text(delta.text), index, logprobs)
        finder = self._finders[index]
        pieces: list[Piece] = finder.feed(delta.text)
        if delta.finish_reason is not None:
            pieces += finder.finish()
        bodies = [_delta_body(piece) for piece in pieces]
        if not bodies and (delta.finish_reason is None or logprobs):
            bodies = [{}]
        return "".join([self._chunks.piece(body, index, None if at else logprobs) for at, body in enumerate(bodies)])

    def _text(self, text: str) -> dict[str, object]:
        return {"content" if self._chat else "text": text}

    def _shown(self, delta: Delta, index: int) -> object:
        if self._logprobs is None or delta.logprobs is None:
            return None
        return self._logprobs[index].shown([delta.logprobs])


def _delta_body(piece: Piece) -> dict[str, object]:
    if isinstance(piece, Text):
        return {"content": piece.text}
    if isinstance(piece, CallBegun):
        function = {"name": piece.name, "arguments": ""}
        return {"tool_calls": [{"index": piece.index, "id": piece.call_id, "type": "function", "function": function}]}
    return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.text}}]}


@dataclass(slots=True)
class _Collected:
    """What one choice has gained so far."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    reason: FinishReason | None = None


class WholeAnswer:
    """Collects answers and gives their choices when all have ended."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self._collected = [_Collected() for _ in range(rendering.choices)]

    def take(self, ready: Sequence[Ready]) -> None:
        """Keep what is ready."""
        for index, deltas in ready:
            one = self._collected[index]
            one.texts += [delta.text for delta in deltas]
            one.logprobs += [delta.logprobs for delta in deltas if delta.logprobs is not None]
            one.reason = deltas[-1].finish_reason if deltas else None

    @property
    def logprobs(self) -> int:
        """Of how many tokens there are log-probabilities to show."""
        return sum(len(one.logprobs) for one in self._collected)

    def choices(self) -> list[dict[str, object]]:
        """The ``choices`` of the answer."""
        return [self._choice(index, one) for index, one in enumerate(self._collected)]

    def _choice(self, index: int, one: _Collected) -> dict[str, object]:
        assert one.reason is not None
        text = "".join(one.texts)
        make_shape, make_finder = self._rendering.logprobs, self._rendering.finder
        finder = None if make_finder is None else make_finder()
        shown = {"message": _message(text, finder)} if self._rendering.chat else {"text": text}
        logprobs = None if make_shape is None else make_shape().shown(one.logprobs)
        return {"index": index, **shown, "logprobs": logprobs, "finish_reason": ended_as(one.reason, finder)}


def _message(text: str, finder: CallFinder | None) -> dict[str, object]:
    """The assistant's message, with the calls that are in ``text``."""
    if finder is None:
        return {"role": "assistant", "content": text, "refusal": None}
    pieces = [*finder.feed(text), *finder.finish()]
    content = "".join([piece.text for piece in pieces if isinstance(piece, Text)])
    message: dict[str, object] = {"role": "assistant", "content": content or None, "refusal": None}
    if finder.calls:
        message["tool_calls"] = [
            {
                "id": begun.call_id,
                "type": "function",
                "function": {"name": begun.name, "arguments": _arguments(pieces, begun.index)},
            }
            for begun in pieces
            if isinstance(begun, CallBegun)
        ]
    else:
        message["content"] = content
    return message


def _arguments(pieces: Sequence[Piece], index: int) -> str:
    return "".join([piece.text for piece in pieces if isinstance(piece, CallArguments) and piece.index == index])
