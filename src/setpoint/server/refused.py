"""Paths of the OpenAI API that this server does not have, refused in its words instead of "unknown"."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from starlette.requests import Request
from starlette.routing import Route

from setpoint.server.errors import ApiError

INSTEAD: Final = "it serves /v1/chat/completions and /v1/completions"
REFUSED: Final = {
    "/v1/embeddings": "embeddings",
    "/v1/responses": "the Responses API",
    "/v1/responses/{rest:path}": "the Responses API",
    "/v1/audio/{rest:path}": "audio",
    "/v1/images/{rest:path}": "images",
    "/v1/moderations": "moderation",
    "/v1/files": "files",
    "/v1/files/{rest:path}": "files",
    "/v1/batches": "batches of files",
    "/v1/batches/{rest:path}": "batches of files",
    "/v1/fine_tuning/{rest:path}": "fine-tuning",
    "/v1/assistants": "assistants",
    "/v1/threads": "assistants",
    "/v1/vector_stores": "vector stores",
    "/v1/realtime": "the Realtime API",
    "/v1/rerank": "reranking",
}
METHODS: Final = ["GET", "POST", "DELETE"]


def refusals() -> list[Route]:
    """Routes that answer 404 ``unsupported_endpoint`` and say what is not there."""
    return [Route(path, _refusal(what), methods=METHODS) for path, what in REFUSED.items()]


def _refusal(what: str) -> Callable[[Request], Awaitable[NoReturn]]:
    async def refuse(request: Request) -> NoReturn:
        where = f"{request.method} {request.url.path[:256]}"
        message = f"{where}: this server does not offer {what}; {INSTEAD}."
        raise ApiError(404, message, code="unsupported_endpoint")

    return refuse
