"""Bytes of the OpenAI endpoints: events, answers and errors as servers send them, over HTTP/1.1."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

WORD = " token"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_ERROR_CODES = {429: "rate_limit_exceeded", 503: "server_is_overloaded"}


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + _json(value) + b"\n\n"


def answer(status: int, value: object, headers: str = "") -> bytes:
    """A whole HTTP answer with a JSON body; ``headers`` are more lines, each ended by CRLF."""
    body = _json(value)
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def refusal(status: int, message: str, retry_after_s: float | None = None) -> bytes:
    """An HTTP error with an OpenAI error object and, where given, both headers that say when to come again."""
    headers = ""
    if retry_after_s is not None:
        headers = f"retry-after: {max(1, round(retry_after_s))}\r\nretry-after-ms: {round(retry_after_s * 1e3)}\r\n"
    return answer(status, error(status, message), headers)


def error(status: int, message: str) -> dict[str, Any]:
    """An OpenAI error object."""
    code = _ERROR_CODES.get(status, status)
    return {
        "error": {
            "message": message,
            "type": "invalid_request_error" if status < 429 else "server_error",
            "param": None,
            "code": code,
        }
    }


@dataclass(frozen=True)
class Wire:
    """The events of one endpoint: chat or completions."""

    chat: bool
    model: str

    def text(self, tokens: int, *, last: bool = False) -> bytes:
        """An event with the text of ``tokens`` tokens; the ``last`` one has the finish reason too."""
        return self._event(WORD * tokens, "length" if last else None)

    @cached_property
    def role(self) -> bytes:
        """The event before any output: the role (chat), or an empty text."""
        if not self.chat:
            return self._event("", None)
        return self._choice(
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        )

    @cached_property
    def finish(self) -> bytes:
        """An event with the finish reason and without output."""
        return self._event("", "length")

    def closing(self, usage: dict[str, int] | None, *, finish: bool) -> bytes:
        """All that follows the last token: finish reason and usage if wanted, ``[DONE]``, the end of the chunked body."""
        events = self.finish if finish else b""
        if usage is not None:
            events += event({**self._base(), "choices": [], "usage": usage})
        return chunk(events + DONE) + LAST_CHUNK

    def whole(self, tokens: int, usage: dict[str, int]) -> bytes:
        """An answer that is not streamed."""
        text = WORD * tokens
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        base = self._base() | ({"object": "chat.completion"} if self.chat else {})
        return answer(200, base | {"choices": [choice], "usage": usage})

    def _event(self, text: str, reason: str | None) -> bytes:
        said: dict[str, Any] = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return self._choice({"index": 0, **said, "logprobs": None, "finish_reason": reason})

    def _choice(self, choice: dict[str, Any]) -> bytes:
        return event({**self._base(), "choices": [choice]})

    def _base(self) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {"id": "chatcmpl-mock" if self.chat else "cmpl-mock", "object": kind, "created": 0, "model": self.model}


def usage_of(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    """A usage block."""
    total = prompt_tokens + output_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens, "total_tokens": total}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
