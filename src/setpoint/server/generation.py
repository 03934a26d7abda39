"""``/v1/chat/completions`` and ``/v1/completions``: a request through the engine, streamed or whole.

No status line is sent before the engine's first delta, so that a request shed while it waited is still a clean 503.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Generic, TypeVar

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from setpoint.engine.chat_template import ToolStyle
from setpoint.engine.constraint import Grammar
from setpoint.engine.request import EngineFailed, GenerationRequest, InvalidRequest, Rejected
from setpoint.engine.service import Tokenizer, TokenStream
from setpoint.policy.views import INTERACTIVE, RequestLimits
from setpoint.server import errors, sse
from setpoint.server.body import read_body
from setpoint.server.choices import Choices, Ready
from setpoint.server.context import ServerContext
from setpoint.server.gate import REQUEST_ID, TENANT
from setpoint.server.hangup import Hangup
from setpoint.server.headers import request_class, request_limits
from setpoint.server.held_bodies import held_body
from setpoint.server.live.endpoint import account_of
from setpoint.server.logprobs import ChatLogprobs, LogprobsShape, TextLogprobs
from setpoint.server.rendering import Rendering, StreamedAnswer, WholeAnswer
from setpoint.server.schema import ChatBody, GenerationBody, TextBody, parse_body
from setpoint.server.tool_calls import CallFinder
from setpoint.server.tools import no_tools_in_template

AnyBody = TypeVar("AnyBody", bound=GenerationBody)
# Of this many tokens or fewer a whole answer is written on the event loop; each takes some ten microseconds.
INLINE_LOGPROBS = 128


class GenerationEndpoint(ABC, Generic[AnyBody]):
    """An ASGI application that answers one POST from the engine."""

    body_model: type[AnyBody]
    id_prefix: ClassVar[str]
    chat: ClassVar[bool]

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    @abstractmethod
    async def prompts(self, body: AnyBody) -> Sequence[tuple[int, ...]]:
        """The prompts of a body as token ids, most often one. Raises ``ApiError``."""

    @abstractmethod
    def logprobs_shape(self, tokenizer: Tokenizer) -> LogprobsShape:
        """How this API shows log-probabilities."""

    def finder(self, body: AnyBody) -> Callable[[], CallFinder] | None:
        """What finds calls of tools in an answer, if there may be any."""
        return None

    async def grammar(self, body: AnyBody) -> Grammar | None:
        """What the answer must look like. Raises ``ApiError``."""
        spec = body.grammar_spec()
        return None if spec is None else await self._context.grammars.compile(spec)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._context
        try:
            raw = await read_body(scope, receive, context.max_body_bytes)
        except errors.ClientGone:
            return
        arrived_s, sent_s = time.perf_counter(), context.engine.now_s()
        body = parse_body(self.body_model, raw)
        del raw  # it would stay for as long as the answer is made
        held_body(scope).release()
        context.require_model(body.model)
        async with Hangup(receive) as hangup:
            prompts = await self._requests(body, scope, sent_s)
            account = account_of(scope)
            account.asked(prompts[0][0], arrived_s)
            if hangup.gone:
                return
            if context.draining:
                raise errors.shutting_down()
            choices = Choices(context, self._submit, account.clock)
            hangup.call(choices.cancel)
            try:
                await choices.open(prompts)
                answer_id = f"{self.id_prefix}-{scope[REQUEST_ID]}"
                rendering = self._rendering(body, sum(map(len, prompts)))
                if body.streaming:
                    await self._stream(choices, rendering, answer_id, body, hangup, send)
                else:
                    await self._whole(choices, rendering, answer_id, hangup, scope, receive, send)
            except errors.ApiError:
                if not hangup.gone:
                    raise
            finally:
                choices.close()

    async def _requests(self, body: AnyBody, scope: Scope, sent_s: float) -> list[list[GenerationRequest]]:
        """For each prompt the requests that share it: ``n`` of them, each with a seed of its own if one is given.

        Their limits run from ``sent_s``: what encoding and a grammar take is a client's wait too.
        """
        headers = Headers(scope=scope)
        kind = request_class(headers)
        # Batch work carries no deadlines but those it asks for itself.
        limits = request_limits(headers, self._context.default_limits if kind == INTERACTIVE else RequestLimits())
        prompts = await self.prompts(body)
        param = "messages" if self.chat else "prompt"
        grammar = await self.grammar(body)
        groups: list[list[GenerationRequest]] = []
        for prompt_ids in prompts:
            max_tokens = self._context.prompts.answer_tokens(prompt_ids, body.answer_tokens, param, cap=body.cap_field)
            request = GenerationRequest(
                prompt_ids=prompt_ids,
                sampling=body.sampling(max_tokens, grammar),
                name=scope[REQUEST_ID],
                streaming=body.streaming,
                limits=limits,
                request_class=kind,
                tenant=scope[TENANT],
                sent_s=sent_s,
                follows=bool(groups),
            )
            first = replace(request, answers=body.n or 1)
            groups.append([first, *(_sibling(request, number) for number in range(1, body.n or 1))])
        return groups

    def _rendering(self, body: AnyBody, choices: int) -> Rendering:
        shape = None if body.wanted_logprobs is None else partial(self.logprobs_shape, self._context.engine.tokenizer)
        return Rendering(chat=self.chat, choices=choices, logprobs=shape, finder=self.finder(body))

    async def _submit(self, request: GenerationRequest) -> TokenStream:
        context = self._context
        try:
            return await context.engine.submit(request)
        except Rejected as error:
            raise errors.overloaded(error.reason, error.retry_after_s) from None
        except InvalidRequest as error:
            raise errors.invalid(str(error), error.field_name or None) from None
        except EngineFailed as error:
            if context.draining:
                raise errors.shutting_down() from None
            raise errors.engine_error(str(error)) from None

    async def _stream(
        self, choices: Choices, rendering: Rendering, answer_id: str, body: AnyBody, hangup: Hangup, send: Send
    ) -> None:
        ready = await choices.ready()
        if hangup.gone:
            return
        choices.raise_error()
        chunks = sse.Chunks(
            answer_id=answer_id,
            created=int(time.time()),
            model=self._context.model_names[0],
            chat=self.chat,
            with_usage=body.include_usage,
            choices=rendering.choices,
        )
        answer = StreamedAnswer(chunks, rendering)

        def written(ready: Sequence[Ready]) -> str:
            if body.running_usage:
                chunks.count(choices.usage())
            return answer.write(ready, choices)

        await send({"type": "http.response.start", "status": 200, "headers": sse.SSE_HEADERS})
        text = written(ready)
        while not choices.done and not hangup.gone:
            await send({"type": "http.response.body", "body": text.encode("ascii"), "more_body": True})
            text = written(await choices.ready())
        if hangup.gone:
            return
        text += chunks.closing(choices.usage()) if choices.error is None else sse.failure(choices.error.body())
        await send({"type": "http.response.body", "body": text.encode("ascii"), "more_body": False})

    async def _whole(
        self,
        choices: Choices,
        rendering: Rendering,
        answer_id: str,
        hangup: Hangup,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        answer = WholeAnswer(rendering)
        while not choices.done and not hangup.gone:
            answer.take(await choices.ready())
        if hangup.gone:
            return
        choices.raise_error()
        response = partial(self._whole_response, answer, answer_id, choices.usage())
        written = await asyncio.to_thread(response) if answer.logprobs > INLINE_LOGPROBS else response()
        await written(scope, receive, send)

    def _whole_response(self, answer: WholeAnswer, answer_id: str, usage: object) -> JSONResponse:
        return JSONResponse(
            {
                "id": answer_id,
                "object": "chat.completion" if self.chat else "text_completion",
                "created": int(time.time()),
                "model": self._context.model_names[0],
                "choices": answer.choices(),
                "usage": usage,
            }
        )


def _sibling(request: GenerationRequest, number: int) -> GenerationRequest:
    """The same request for one more answer: another name, and another seed where one is given."""
    seed = request.sampling.seed
    sampling = request.sampling if seed is None else replace(request.sampling, seed=seed + number)
    return replace(request, name=f"{request.name}-{number}", sampling=sampling, follows=True, answers=0)


class ChatCompletions(GenerationEndpoint[ChatBody]):
    """``POST /v1/chat/completions``."""

    body_model = ChatBody
    id_prefix = "chatcmpl"
    chat = True

    async def prompts(self, body: ChatBody) -> Sequence[tuple[int, ...]]:
        """The conversation in the model's template."""
        style = self._context.engine.tokenizer.tool_style
        use = body.tool_use()
        if style is ToolStyle.NONE and (use is not None or any(message.of_tools for message in body.messages)):
            raise no_tools_in_template("tools" if use is not None else "messages")
        tools = () if use is None else use.tools
        add = body.add_generation_prompt is not False
        extra = body.template_variables
        return [await self._context.prompts.chat(body.messages, tools=tools, add_generation_prompt=add, extra=extra)]

    async def grammar(self, body: ChatBody) -> Grammar | None:
        """That of the answer, or that of the calls it must or may hold."""
        use = body.tool_use()
        spec = None if use is None else use.spec(self._context.engine.tokenizer.tool_style)
        if spec is None:
            return await super().grammar(body)
        other = body.grammar_spec()
        if other is not None:
            message = f"{other.field}: cannot be combined with tools that must be called as their schema says."
            raise errors.invalid(message, other.field)
        return await self._context.grammars.compile(spec)

    def finder(self, body: ChatBody) -> Callable[[], CallFinder] | None:
        """One that knows the tools of the request."""
        use = body.tool_use()
        if use is None:
            return None
        return partial(CallFinder, self._context.engine.tokenizer.tool_style, use.names, parallel=use.parallel)

    def logprobs_shape(self, tokenizer: Tokenizer) -> LogprobsShape:
        """A list of tokens."""
        return ChatLogprobs(tokenizer)


class TextCompletions(GenerationEndpoint[TextBody]):
    """``POST /v1/completions``."""

    body_model = TextBody
    id_prefix = "cmpl"
    chat = False

    async def prompts(self, body: TextBody) -> Sequence[tuple[int, ...]]:
        """Texts encoded, or token ids as given."""
        encoder, special = self._context.prompts, body.add_special_tokens is not False
        return [
            await encoder.text(one, add_special_tokens=special) if isinstance(one, str) else encoder.ids(one)
            for one in body.prompt
        ]

    def logprobs_shape(self, tokenizer: Tokenizer) -> LogprobsShape:
        """Four lists."""
        return TextLogprobs(tokenizer)
