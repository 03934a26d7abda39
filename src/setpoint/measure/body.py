"""Request bytes, made ahead of the send: everything but prompt and length is encoded once a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from setpoint.measure.conversations import Said
from setpoint.measure.options import Endpoint, LoadOptions
from setpoint.measure.target import Target

if TYPE_CHECKING:
    from setpoint.workload.plan import PlannedRequest

_PATHS = {Endpoint.COMPLETIONS: "/completions", Endpoint.CHAT: "/chat/completions"}


class RequestWriter:
    """Writes the HTTP requests of one run. ``write`` raises ``ValueError`` for token ids on the chat endpoint."""

    def __init__(self, target: Target, options: LoadOptions) -> None:
        self._chat = options.endpoint is Endpoint.CHAT
        self._length_field = options.length_field
        fixed = json.dumps(_fixed_fields(target, options), separators=(",", ":"))
        self._body_head = fixed.removesuffix("}").encode() + (b"," if len(fixed) > 2 else b"")
        accept = "text/event-stream" if options.streaming else "application/json"
        path = target.address.api_path + _PATHS[options.endpoint]
        self._head = f"POST {path} HTTP/1.1\r\n".encode() + target.header_lines(accept)
        self._head += b"content-type: application/json\r\n"

    def write(self, planned: PlannedRequest, request_id: str, said: Sequence[Said] = ()) -> bytes:
        """The request line, headers and body of one planned request; ``said`` is the conversation before it.

        The chat endpoint gets the conversation as messages, the completions endpoint as one text.
        """
        if self._chat and not isinstance(planned.prompt, str):
            raise ValueError("endpoint: chat takes text prompts, found token ids; use the completions endpoint")
        name, value = ("messages", _messages(planned, said)) if self._chat else ("prompt", _prompt(planned, said))
        # Escaped: halves of a character that a server split over two events are one again, and a lone half can be sent.
        text = json.dumps(value, separators=(",", ":"))
        length = "" if self._length_field is None else f'"{self._length_field}":{planned.max_tokens},'
        body = self._body_head + f'{length}"{name}":{text}}}'.encode()
        return b"%sx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head,
            request_id.encode("ascii"),
            len(body),
            body,
        )


def _messages(planned: PlannedRequest, said: Sequence[Said]) -> list[dict[str, object]]:
    before: list[dict[str, object]] = [{"role": "user" if one.by_user else "assistant", "content": one.text} for one in said]
    return [*before, {"role": "user", "content": planned.prompt}]


def _prompt(planned: PlannedRequest, said: Sequence[Said]) -> object:
    return "".join([one.text for one in said] + [str(planned.prompt)]) if said else planned.prompt


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
    fields |= options.extra_body
    return {name: value for name, value in fields.items() if value is not None}


def get_request(target: Target, path: str) -> bytes:
    """A ``GET`` of ``path`` under the target's base path."""
    head = f"GET {target.address.base_path}{path} HTTP/1.1\r\n".encode()
    return head + target.header_lines("*/*") + b"\r\n"
