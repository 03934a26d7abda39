"""``/v1/chat/completions`` and ``/v1/completions``: one request through the engine, streamed or whole.

No status line is sent before the engine's first delta, so that a request shed while it waited is still a clean 503.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final, Generic, TypeVar

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from setpoint.engine.request import Delta, EngineFailed, FinishReason, GenerationRequest, InvalidRequest, Rejected
from setpoint.engine.service import TokenStream
from setpoint.policy.views import INTERACTIVE, RequestLimits
from setpoint.server import errors, sse
from setpoint.server.body import read_body
from setpoint.server.context import ServerContext
from setpoint.server.gate import REQUEST_ID, TENANT
from setpoint.server.hangup import Hangup
from setpoint.server.headers import request_class, request_limits
from setpoint.server.metrics import AnswerClock
from setpoint.server.read_ahead import ReadAhead
from setpoint.server.schema import ChatBody, GenerationBody, TextBody, parse_body

FINISHED: Final = (FinishReason.STOP, FinishReason.LENGTH)
NO_END: Final = Delta("", (), FinishReason.ERROR, "The engine ended the answer without a reason.")
AnyBody = TypeVar("AnyBody", bound=GenerationBody)


def failure_of(delta: Delta, *, draining: bool = False) -> errors.ApiError | None:
    """The error that a last delta stands for; ``None`` for a delta that is not last or ends a whole answer.

    ``draining``: the engine was told to stop, so whatever it cuts it cuts for that reason.
    """
    if delta.finish_reason is None or delta.finish_reason in FINISHED:
        return None
    if delta.finish_reason is FinishReason.SHED:
        return errors.overloaded(delta.message or "shed while waiting", delta.retry_after_s)
    if draining or delta.finish_reason is FinishReason.CANCELLED:
        return errors.shutting_down()
    return errors.engine_error(delta.message)


class Answer:
    """One answer on its way: the deltas of a stream, counted, timed and checked for how they end."""

    def __init__(self, context: ServerContext, stream: TokenStream, arrived_s: float) -> None:
        self._context = context
        self._stream = stream
        self._reader = ReadAhead(aiter(stream))
        self._clock = AnswerClock(context.metrics, arrived_s)
        self._output_tokens = 0
        self.finish_reason: FinishReason | None = None

    async def deltas(self) -> tuple[Sequence[Delta], errors.ApiError | None]:
        """What is ready, at least one delta, and the error if the answer ends with one."""
        deltas = await self._reader.batch()
        last = deltas[-1] if deltas else NO_END
        new_tokens = sum([len(delta.token_ids) for delta in deltas])
        self._output_tokens += new_tokens
        self.finish_reason = last.finish_reason
        now_s = time.perf_counter()
        self._clock.tokens(new_tokens, now_s)
        if self.finish_reason in FINISHED:
            self._clock.finished(now_s)
        return deltas, failure_of(last, draining=self._context.draining)

    def usage(self) -> dict[str, object]:
        """The usage so far."""
        return sse.usage(self._stream.prompt_tokens, self._output_tokens, self._stream.cached_tokens)

    def close(self) -> None:
        """End the request in the engine if it has not ended, and count how it ended."""
        if self.finish_reason is None:
            self._stream.cancel()
        self._reader.close()
        self._context.metrics.ended(self.finish_reason or FinishReason.CANCELLED)


class GenerationEndpoint(ABC, Generic[AnyBody]):
    """An ASGI application that answers one POST from the engine."""

    body_model: type[AnyBody]
    id_prefix: ClassVar[str]
    chat: ClassVar[bool]

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    @abstractmethod
    async def prompt_ids(self, body: AnyBody) -> tuple[int, ...]:
        """The prompt of a body as token ids. Raises ``ApiError``."""

    @abstractmethod
    def choice(self, text: str) -> dict[str, object]:
        """The part of a whole answer that holds its text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._context
        try:
            raw = await read_body(scope, receive, context.max_body_bytes)
        except errors.ClientGone:
            return
        arrived_s = time.perf_counter()
        body = parse_body(self.body_model, raw)
        context.require_model(body.model)
        async with Hangup(receive) as hangup:
            request = await self._request(body, scope)
            if hangup.gone:
                return
            stream = await self._submit(request)
            hangup.call(stream.cancel)
            answer = Answer(context, stream, arrived_s)
            try:
                answer_id = f"{self.id_prefix}-{request.name}"
                if body.streaming:
                    await self._stream(answer, answer_id, body.include_usage, hangup, send)
                else:
                    await self._whole(answer, answer_id, hangup, scope, receive, send)
            finally:
                answer.close()

    async def _request(self, body: AnyBody, scope: Scope) -> GenerationRequest:
        headers = Headers(scope=scope)
        kind = request_class(headers)
        # Batch work carries no deadlines but those it asks for itself.
        limits = request_limits(headers, self._context.default_limits if kind == INTERACTIVE else RequestLimits())
        prompt_ids = await self.prompt_ids(body)
        param = "messages" if self.chat else "prompt"
        max_tokens = self._context.prompts.answer_tokens(prompt_ids, body.answer_tokens, param)
        return GenerationRequest(
            prompt_ids=prompt_ids,
            sampling=body.sampling(max_tokens),
            name=scope[REQUEST_ID],
            streaming=body.streaming,
            limits=limits,
            request_class=kind,
            tenant=scope[TENANT],
        )

    async def _submit(self, request: GenerationRequest) -> TokenStream:
        context = self._context
        if context.draining:
            raise errors.shutting_down()
        try:
            stream = await context.engine.submit(request)
        except Rejected as error:
            raise errors.overloaded(error.reason, error.retry_after_s) from None
        except InvalidRequest as error:
            raise errors.invalid(str(error), error.field_name or None) from None
        except EngineFailed as error:
            if context.draining:
                raise errors.shutting_down() from None
            context.submit_failed = True
            raise errors.engine_error(str(error)) from None
        context.submit_failed = False
        return stream

    async def _stream(self, answer: Answer, answer_id: str, with_usage: bool, hangup: Hangup, send: Send) -> None:
        deltas, error = await answer.deltas()
        if hangup.gone:
            return
        if error is not None:
            raise error
        chunks = sse.Chunks(
            answer_id=answer_id,
            created=int(time.time()),
            model=self._context.model_names[0],
            chat=self.chat,
            with_usage=with_usage,
        )
        await send({"type": "http.response.start", "status": 200, "headers": sse.SSE_HEADERS})
        text = chunks.opening() + chunks.deltas(deltas)
        while answer.finish_reason is None and not hangup.gone:
            await send({"type": "http.response.body", "body": text.encode("ascii"), "more_body": True})
            deltas, error = await answer.deltas()
            text = chunks.deltas(deltas)
        if hangup.gone:
            return
        if error is not None or answer.finish_reason is None:
            text += sse.failure((error or errors.engine_error("")).body())
        else:
            text += chunks.closing(answer.finish_reason.value, answer.usage())
        await send({"type": "http.response.body", "body": text.encode("ascii"), "more_body": False})

    async def _whole(self, answer: Answer, answer_id: str, hangup: Hangup, scope: Scope, receive: Receive, send: Send) -> None:
        texts: list[str] = []
        while answer.finish_reason is None and not hangup.gone:
            deltas, error = await answer.deltas()
            texts.extend([delta.text for delta in deltas])
            if error is not None and not hangup.gone:
                raise error
        if hangup.gone or answer.finish_reason is None:
            return
        choice = self.choice("".join(texts))
        whole = {
            "id": answer_id,
            "object": "chat.completion" if self.chat else "text_completion",
            "created": int(time.time()),
            "model": self._context.model_names[0],
            "choices": [{"index": 0, **choice, "logprobs": None, "finish_reason": answer.finish_reason.value}],
            "usage": answer.usage(),
        }
        await JSONResponse(whole)(scope, receive, send)


class ChatCompletions(GenerationEndpoint[ChatBody]):
    """``POST /v1/chat/completions``."""

    body_model = ChatBody
    id_prefix = "chatcmpl"
    chat = True

    async def prompt_ids(self, body: ChatBody) -> tuple[int, ...]:
        """The conversation in the model's template."""
        add = body.add_generation_prompt is not False
        return await self._context.prompts.chat(body.messages, add_generation_prompt=add)

    def choice(self, text: str) -> dict[str, object]:
        """The assistant's message."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}


class TextCompletions(GenerationEndpoint[TextBody]):
    """``POST /v1/completions``."""

    body_model = TextBody
    id_prefix = "cmpl"
    chat = False

    async def prompt_ids(self, body: TextBody) -> tuple[int, ...]:
        """The text encoded, or the token ids as given."""
        prompts = self._context.prompts
        return await prompts.text(body.prompt) if isinstance(body.prompt, str) else prompts.ids(body.prompt)

    def choice(self, text: str) -> dict[str, object]:
        """The text."""
        return {"text": text}
