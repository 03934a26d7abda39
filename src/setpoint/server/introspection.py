"""What the server tells about itself: models, health, metrics, token counts, the engine's records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from setpoint.engine.chat_template import ToolStyle
from setpoint.engine.request import EngineFailed, RequestStats
from setpoint.server.body import read_body
from setpoint.server.context import Health, ServerContext
from setpoint.server.errors import ClientGone, engine_error, invalid, model_not_found
from setpoint.server.held_bodies import held_body
from setpoint.server.schema import TokenizeBody, parse_body
from setpoint.server.tools import no_tools_in_template

# Records are written in slices of this many values, with the event loop free in between.
SLICE_VALUES: Final = 2048
MAX_SINCE: Final = (1 << 63) - 1
Answer = TypeVar("Answer")
Item = TypeVar("Item")


def since_of(request: Request) -> int:
    """The number in ``since=``, 0 without it. Raises ``ApiError`` 400."""
    text = request.query_params.get("since", "0")
    if text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_SINCE:
        return int(text)
    raise invalid(f"since: found '{text[:64]}', must be a whole number, 0 or more.", "since")


def _plain(value: object) -> object:
    """A value as JSON can hold it: numbers of array libraries become plain ones."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


def json_slice(values: Sequence[object]) -> str:
    """The values as the inside of a JSON array; a number that JSON cannot hold (nan, inf) becomes null."""
    try:
        return json.dumps(values, default=_plain, allow_nan=False)[1:-1]
    except ValueError:
        finite = [None if isinstance(value, float) and value - value != 0 else value for value in values]
        return json.dumps(finite, default=_plain)[1:-1]


async def _array(values: Sequence[Item], shown: Callable[[Item], object] | None = None) -> AsyncIterator[str]:
    """The inside of a JSON array, slice by slice; ``shown`` turns a value into what JSON can hold."""
    for start in range(0, len(values), SLICE_VALUES):
        some = values[start : start + SLICE_VALUES]
        yield ("," if start else "") + json_slice(some if shown is None else [shown(value) for value in some])
        await asyncio.sleep(0)


async def _columns(columns: Mapping[str, Sequence[object]]) -> AsyncIterator[str]:
    comma = ""
    for name, values in columns.items():
        yield f"{comma}{json.dumps(name)}:["
        async for piece in _array(values):
            yield piece
        yield "]"
        comma = ","


async def _pieces(head: str, inside: AsyncIterator[str], tail: str) -> AsyncIterator[str]:
    yield head
    async for piece in inside:
        yield piece
    yield tail


def _json_stream(text: AsyncIterator[str]) -> Response:
    return StreamingResponse(text, media_type="application/json")


def _request_row(stats: RequestStats) -> dict[str, object]:
    return {
        "name": stats.name,
        "arrived_s": stats.arrived_s,
        "first_scheduled_s": stats.first_scheduled_s,
        "first_token_s": stats.first_token_s,
        "ended_s": stats.ended_s,
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "output_tokens": stats.output_tokens,
        "preemptions": stats.preemptions,
        "finish_reason": stats.finish_reason.value,
    }


class Introspection:
    """The endpoints that generate nothing."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def health(self, request: Request) -> Response:
        """200 ``{"status": "ok"}``, else 503 with the status."""
        health = self._context.health()
        return JSONResponse({"status": health.value}, status_code=200 if health is Health.OK else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        return Response(self._context.metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    def _model(self, name: str) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": self._context.created,
            "owned_by": "setpoint",
            "max_model_len": self._context.engine.max_model_len,
        }

    async def models(self, request: Request) -> Response:
        """``GET /v1/models``."""
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self._context.model_names]})

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/NAME``. Raises ``ApiError`` 404."""
        name: str = request.path_params["name"]
        if name not in self._context.model_names:
            raise model_not_found(name)
        return JSONResponse(self._model(name))

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a text or of a conversation in the model's template, and how many they are."""
        try:
            raw = await read_body(request.scope, request.receive, self._context.max_body_bytes)
        except ClientGone:
            return Response(status_code=400)
        body = parse_body(TokenizeBody, raw)
        del raw  # encoding may have to wait
        held_body(request.scope).release()
        self._context.require_model(body.model)
        prompts = self._context.prompts
        if body.messages is not None:
            add_prompt = body.add_generation_prompt is not False
            if body.tools and self._context.engine.tokenizer.tool_style is ToolStyle.NONE:
                raise no_tools_in_template("tools")
            tokens = await prompts.chat(body.messages, tools=body.tools or (), add_generation_prompt=add_prompt)
        else:
            param = "prompt" if body.text is None else "text"
            text = body.text if body.text is not None else body.prompt or ""
            tokens = await prompts.text(text, add_special_tokens=body.add_special_tokens is not False, param=param)
        limit = self._context.engine.max_model_len
        return JSONResponse({"tokens": list(tokens), "count": len(tokens), "max_model_len": limit})

    async def requests(self, request: Request) -> Response:
        """``GET /setpoint/requests?since=N``: the engine's record of ended requests from serial number N on."""
        since = since_of(request)
        stats, following = self._ask(lambda: self._context.engine.ended_requests(since))
        return _json_stream(_pieces(self._head(following) + '"requests":[', _array(stats, _request_row), "]}"))

    async def steps(self, request: Request) -> Response:
        """``GET /setpoint/steps?since=N``: the engine's steps from number N on, as columns of equal length."""
        since = since_of(request)
        columns, following = self._ask(lambda: self._context.engine.step_columns(since))
        return _json_stream(_pieces(self._head(following) + '"columns":{', _columns(columns), "}}"))

    async def decisions(self, request: Request) -> Response:
        """``GET /setpoint/decisions?since=N``: decisions about requests from number N on, as columns of equal length."""
        since = since_of(request)
        columns, following = self._ask(lambda: self._context.engine.decision_columns(since))
        return _json_stream(_pieces(self._head(following) + '"columns":{', _columns(columns), "}}"))

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        try:
            return question()
        except EngineFailed as error:
            raise engine_error(str(error)) from None

    def _head(self, following: int) -> str:
        now_s = self._ask(self._context.engine.gauges).now_s
        return f'{{"now_s":{json.dumps(now_s)},"next":{following},'
