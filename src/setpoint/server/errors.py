"""Errors as OpenAI clients expect them: a status, an error object, and headers that say when to try again."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from starlette.responses import JSONResponse

MAX_RETRY_AFTER_S = 3600.0
DEFAULT_RETRY_AFTER_S = 1.0
MAX_REASON_CHARACTERS = 256
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")


class ApiError(Exception):
    """An answer that is an error. ``code`` is what programs read, ``param`` names the field or header at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """The error object: ``{"error": {"message", "type", "param", "code"}}``."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole HTTP answer."""
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


class ClientGone(Exception):
    """The client closed the connection before its request was whole: nobody is left to answer."""


def invalid(message: str, param: str | None, *, code: str = "invalid_value") -> ApiError:
    """400: the request itself is wrong."""
    return ApiError(400, message, code=code, param=param)


def too_long(prompt_tokens: str, max_tokens: int | None, limit: int, param: str, *, cap: str = "max_tokens") -> ApiError:
    """400 ``context_length_exceeded``. ``prompt_tokens`` is words, because it may be a lower bound. cap: the field of the cap.

    Its first words are those by which client libraries know it: they look at no code.
    """
    asked = "" if max_tokens is None else f" and {max_tokens} tokens of answer"
    message = (
        f"This model's maximum context length is {limit} tokens. However, this request asks for {prompt_tokens} of prompt"
        f"{asked}. Shorten the prompt{'' if max_tokens is None else f' or lower {cap}'}."
    )
    return invalid(message, param, code="context_length_exceeded")


def model_not_found(name: str) -> ApiError:
    """404 for a model that is not served here."""
    shown = name if len(name) <= 128 else name[:128] + "..."
    message = f"The model `{shown}` is not served here; GET /v1/models lists what is."
    return ApiError(404, message, code="model_not_found", param="model")


def retry_headers(retry_after_s: float | None) -> dict[str, str]:
    """``Retry-After`` in whole seconds, at least 1, and ``retry-after-ms``, both rounded up."""
    wait_s = retry_after_s if retry_after_s is not None and math.isfinite(retry_after_s) else DEFAULT_RETRY_AFTER_S
    wait_s = min(max(wait_s, 0.001), MAX_RETRY_AFTER_S)
    return {"retry-after": str(max(1, math.ceil(wait_s))), "retry-after-ms": str(math.ceil(wait_s * 1000))}


def overloaded(reason: str, retry_after_s: float | None) -> ApiError:
    """503 ``server_is_overloaded``: no capacity within the limits; the reason is in the body and in a header."""
    headers = retry_headers(retry_after_s)
    shown = _NOT_PRINTABLE.sub("?", reason)[:MAX_REASON_CHARACTERS].strip()
    if shown:
        headers["x-setpoint-reason"] = shown
    message = f"The server cannot take this request within its limits now: {reason or 'no capacity'}."
    return ApiError(503, message, code="server_is_overloaded", kind="server_error", headers=headers)


def crowded() -> ApiError:
    """503: every connection this server keeps is in use."""
    error = overloaded("every connection is in use", DEFAULT_RETRY_AFTER_S)
    error.headers["connection"] = "close"
    return error


def body_too_large(max_bytes: int) -> ApiError:
    """413: the body alone is over its limit."""
    message = f"The request body is larger than the {max_bytes} bytes this server reads."
    return ApiError(413, message, code="request_too_large")


def bodies_full(most_bytes: int) -> ApiError:
    """503: there is no room left for what is still to come of this request's body."""
    return overloaded(f"bodies_full: bodies that are being read may take {most_bytes} bytes together", DEFAULT_RETRY_AFTER_S)


def rate_limited(message: str, retry_after_s: float) -> ApiError:
    """429 ``rate_limit_exceeded``: the caller's own quota, whatever the server's load."""
    return ApiError(429, message, code="rate_limit_exceeded", kind="requests", headers=retry_headers(retry_after_s))


def shutting_down() -> ApiError:
    """503: the server is draining and this request was not, or will not be, finished. The connection ends with it."""
    message = "The server is shutting down; send the request again elsewhere or later."
    headers = {**retry_headers(DEFAULT_RETRY_AFTER_S), "connection": "close"}
    return ApiError(503, message, code="server_shutting_down", kind="server_error", headers=headers)


def engine_error(message: str) -> ApiError:
    """500: the engine failed this request."""
    return ApiError(500, message or "The engine failed.", code="engine_error", kind="server_error")
