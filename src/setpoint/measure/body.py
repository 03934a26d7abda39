"""Request bytes, made ahead of the send: everything but prompt and length is encoded once a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from setpoint.measure.options import Endpoint, LoadOptions
from setpoint.measure.target import Target

if TYPE_CHECKING:
    from setpoint.workload.plan import PlannedRequest

_PATHS = {Endpoint.COMPLETIONS: "/v1/completions", Endpoint.CHAT: "/v1/chat/completions"}


class RequestWriter:
    """Writes the HTTP requests of one run. ``write`` raises ``ValueError`` for token ids on the chat endpoint."""

    def __init__(self, target: Target, options: LoadOptions) -> None:
        self._chat = options.endpoint is Endpoint.CHAT
        fixed = json.dumps(_fixed_fields(target, options), ensure_ascii=False, separators=(",", ":"))
        self._body_head = fixed.removesuffix("}").encode() + (b"," if len(fixed) > 2 else b"")
        accept = "text/event-stream" if options.streaming else "application/json"
        path = target.address.base_path + _PATHS[options.endpoint]
        self._head = f"POST {path} HTTP/1.1\r\n".encode() + target.header_lines(accept)
        self._head += b"content-type: application/json\r\n"

    def write(self, planned: PlannedRequest, request_id: str) -> bytes:
        """The request line, headers and body of one planned request."""
        prompt: object = planned.prompt
        if self._chat and not isinstance(prompt, str):
            raise ValueError("endpoint: chat takes text prompts, found token ids; use the completions endpoint")
        name, value = ("messages", [{"role": "user", "content": prompt}]) if self._chat else ("prompt", prompt)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        body = self._body_head + f'"max_tokens":{planned.max_tokens},"{name}":{text}}}'.encode()
        return b"%sx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head,
            request_id.encode("ascii"),
            len(body),
            body,
        )


def _fixed_fields(target: Target, options: LoadOptions) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": target.model} if target.model else {}
    fields["temperature"] = options.temperature
    if options.seed is not None:
        fields["seed"] = options.seed
    if options.ignore_eos:
        fields["ignore_eos"] = True
    fields["stream"] = options.streaming
    if options.streaming:
        fields["stream_options"] = {"include_usage": True}
    return fields | dict(options.extra_body)


def get_request(target: Target, path: str) -> bytes:
    """A ``GET`` of ``path`` under the target's base path."""
    head = f"GET {target.address.base_path}{path} HTTP/1.1\r\n".encode()
    return head + target.header_lines("*/*") + b"\r\n"
