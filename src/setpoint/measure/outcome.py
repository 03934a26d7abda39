"""How one intended request ended: the recorded exchange and what its answer said, as one row.

The class is provisional: ``ok`` means served; ``late`` needs the SLOs and is given where figures are judged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from setpoint.measure.answer import DETAIL_CHARACTERS_MAX, Answer, read_json_answer, refusal_text
from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.sse import StreamReader
from setpoint.record import Phase, RequestClass

if TYPE_CHECKING:
    from setpoint.workload.plan import PlannedRequest

# 529 is how some gateways (Dynamo's frontend by default) say that they are overloaded.
SHED_STATUSES = frozenset({429, 503, 529})


@dataclass(slots=True, kw_only=True)
class RequestOutcome:
    """One intended request. Times are seconds from the start of the run; ``None`` where it never came so far.

    dispatched_s: when the client took it up (later than intended by the client's own lag alone).
    sent_s: when its bytes were handed to the socket: ``dispatched_s`` plus what a connection limit or a connect cost.
    connect_started_s, connected_s: when a connection began to be opened for it and was ready; ``None`` if an open one
        was used again. Up to ``connect_started_s`` (or ``sent_s``) from ``dispatched_s`` it was held back.
    attempts: how often it was sent. With more than one the four times above are those of the first attempt, everything
        after them of the last.
    streaming: whether tokens have times; of a request that was not served, whether a stream was asked for. in_one_piece: a
        stream was asked for and the answer came whole, so that all its tokens came at its end.
    token_times_s: arrival at the socket of each output token, also of requests that failed or were cut off.
    queue_wait_s, cached_tokens: from the server's own records or ``usage``, where it has them.
    """

    index: int
    request_id: str
    phase: Phase
    intended_s: float
    dispatched_s: float | None = None
    sent_s: float | None = None
    connect_started_s: float | None = None
    connected_s: float | None = None
    headers_s: float | None = None
    ended_s: float | None = None
    request_class: RequestClass
    status: int | None = None
    error: str = ""
    finish_reason: str | None = None
    streaming: bool
    prompt_tokens: int
    output_tokens: int = 0
    cached_tokens: int | None = None
    token_times_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)
    queue_wait_s: float | None = None
    retry_after_s: float | None = None
    completed: bool = False
    in_one_piece: bool = False
    attempts: int = 0
    session: str | None = None
    turn: int = 0
    profile: str = ""

    @property
    def first_token_s(self) -> float | None:
        """Arrival of the first output token."""
        return float(self.token_times_s[0]) if self.token_times_s.size else None

    @property
    def last_token_s(self) -> float | None:
        """Arrival of the last output token so far."""
        return float(self.token_times_s[-1]) if self.token_times_s.size else None

    @property
    def ttft_s(self) -> float | None:
        """Intended send to first token; streams only, whether or not they ended well."""
        return None if self.first_token_s is None else self.first_token_s - self.intended_s

    @property
    def e2e_s(self) -> float | None:
        """Intended send to last token (to the end of the answer if it was not streamed); completed requests only."""
        if not self.completed:
            return None
        end_s = self.ended_s if self.last_token_s is None else self.last_token_s
        return None if end_s is None else end_s - self.intended_s

    @property
    def tpot_s(self) -> float | None:
        """(last - first) / (tokens - 1); completed streams of at least two tokens only."""
        if not self.completed or self.token_times_s.size < 2:
            return None
        return float(self.token_times_s[-1] - self.token_times_s[0]) / (self.token_times_s.size - 1)

    @property
    def max_gap_s(self) -> float | None:
        """The largest gap between consecutive tokens seen; streams of at least two tokens."""
        return float(np.diff(self.token_times_s).max()) if self.token_times_s.size >= 2 else None


def dropped(planned: PlannedRequest, request_id: str, *, streaming: bool) -> RequestOutcome:
    """A request that the client never came to send."""
    return RequestOutcome(
        index=planned.index,
        request_id=request_id,
        phase=planned.phase,
        intended_s=planned.intended_s,
        request_class=RequestClass.DROPPED,
        error="the client did not send it before the end of the run",
        streaming=streaming,
        prompt_tokens=planned.prompt_tokens,
        session=planned.session,
        turn=planned.turn,
        profile=planned.profile,
    )


def read_answer(exchange: Exchange, reader: StreamReader | None, *, keep_text: bool = False) -> Answer | None:
    """What the body said; ``None`` if there was no good answer to read."""
    if exchange.status is None or not 200 <= exchange.status < 300:
        return None
    if reader is not None:
        return reader.finish(exchange.chunk_times_s, exchange.chunks)
    return read_json_answer(exchange.body(), keep_text=keep_text) if exchange.ended_s is not None else None


def judge(
    planned: PlannedRequest,
    exchange: Exchange,
    answer: Answer | None,
    *,
    start_s: float,
    streaming: bool,
    attempts: int = 1,
    first: Exchange | None = None,
) -> RequestOutcome:
    """The row of a request that was handed to a connection; ``start_s`` is the start of the run on the clock.

    answer: what ``read_answer`` made of the exchange, the last of ``attempts``; first: the first of them.
    """
    request_class, error = _classify(exchange, answer)
    begun = exchange if first is None else first
    row = RequestOutcome(
        index=planned.index,
        request_id=exchange.request_id,
        phase=planned.phase,
        intended_s=planned.intended_s,
        dispatched_s=_since(begun.dispatched_s, start_s),
        sent_s=_since(begun.sent_s, start_s),
        connect_started_s=_since(begun.connect_started_s, start_s),
        connected_s=_since(begun.connected_s, start_s),
        headers_s=_since(exchange.headers_s, start_s),
        ended_s=_since(exchange.ended_s, start_s),
        request_class=request_class,
        status=exchange.status,
        error=error,
        # One that failed keeps what it asked for: it has no first token, and is not left out of those that have one.
        streaming=answer.streaming if answer is not None and request_class is RequestClass.OK else streaming,
        prompt_tokens=planned.prompt_tokens,
        retry_after_s=exchange.retry_after_s,
        completed=request_class is RequestClass.OK,
        attempts=attempts,
        session=planned.session,
        turn=planned.turn,
        profile=planned.profile,
    )
    if answer is not None:
        _take_answer(row, answer, start_s=start_s, asked_for_stream=streaming)
    return row


def _take_answer(row: RequestOutcome, answer: Answer, *, start_s: float, asked_for_stream: bool) -> None:
    """What the answer said of itself. One that came whole though a stream was asked for had its tokens at its end."""
    row.finish_reason = answer.finish_reason
    row.prompt_tokens = answer.prompt_tokens or row.prompt_tokens
    row.cached_tokens = answer.cached_tokens
    row.token_times_s = answer.token_times_s - start_s
    row.output_tokens = answer.output_tokens or len(answer.token_times_s)
    if asked_for_stream and row.completed and not answer.streaming and row.ended_s is not None:
        row.streaming = row.in_one_piece = True
        row.output_tokens = max(1, row.output_tokens)
        row.token_times_s = np.full(row.output_tokens, row.ended_s)


def _classify(exchange: Exchange, answer: Answer | None) -> tuple[RequestClass, str]:
    """Class and error; an answer that came whole is served, whatever became of its connection afterwards."""
    if exchange.status in SHED_STATUSES:
        return RequestClass.SHED, refusal_text(exchange.body())
    encoding = exchange.header(b"content-encoding").lower()
    if encoding not in ("", "identity") and answer is not None and exchange.ended_s is not None:
        why = f"the answer is compressed ({encoding}), though the request allows no compression"
        return RequestClass.FAILED, f"{ErrorKind.MALFORMED}: {why}"
    if answer is not None:
        if answer.unreadable and exchange.error is None:
            return RequestClass.FAILED, f"{ErrorKind.MALFORMED}: {answer.error}"
        if answer.error and not answer.unreadable:
            return RequestClass.FAILED, f"{ErrorKind.STREAM_ERROR}: {answer.error}"
        if answer.complete and not answer.unreadable:
            if (answer.output_tokens == 0 and not answer.streaming) or (answer.streaming and not answer.token_times_s.size):
                return RequestClass.FAILED, f"{ErrorKind.EMPTY}: the answer ended without any output"
            return RequestClass.OK, ""
    if exchange.error is ErrorKind.CLIENT:
        return RequestClass.DROPPED, f"{exchange.error}: {exchange.detail}"
    if exchange.error is not None:
        return RequestClass.FAILED, f"{exchange.error}: {exchange.detail}"
    if exchange.ended_s is None:
        return RequestClass.UNFINISHED, ""
    if answer is None:
        return RequestClass.FAILED, f"{ErrorKind.STATUS}: {exchange.status} {_refusal(exchange)}"
    return RequestClass.FAILED, f"{ErrorKind.CUT}: the stream ended without a finish_reason or [DONE]"


def _refusal(exchange: Exchange) -> str:
    place = exchange.header(b"location")
    if place:
        return f"to {place!r}, which is not followed; measure that address itself"[:DETAIL_CHARACTERS_MAX]
    return refusal_text(exchange.body())[:DETAIL_CHARACTERS_MAX]


def _since(time_s: float | None, start_s: float) -> float | None:
    return None if time_s is None else time_s - start_s
