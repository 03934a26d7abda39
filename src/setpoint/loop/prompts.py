"""The right prompt maker for a target: exact token ids where the server lets us ask its tokenizer, an estimate elsewhere."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Sequence

from setpoint.measure.target import Target, parse_address
from setpoint.workload.prompts import EstimatedPrompts, PromptMaker, TextPrompts, TokenIdPrompts

TOKENIZE_PATHS = ("/tokenize", "/setpoint/tokenize")
TIMEOUT_S = 10.0


class RemoteTokenizer:
    """Asks a server's ``/tokenize`` (vLLM's and setpoint's); one connection, kept open. Raises ``OSError`` if it cannot."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._address = parse_address(target.url)
        self._path = TOKENIZE_PATHS[0]
        self._connection = self._connect()

    def works(self) -> bool:
        """Whether the server tokenizes for us, and by which path."""
        for path in TOKENIZE_PATHS:
            self._path = path
            try:
                if self.encode("one two three"):
                    return True
            except (OSError, http.client.HTTPException, ValueError):
                self._connection = self._connect()
        return False

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of ``text`` without special tokens."""
        body = json.dumps({"model": self._target.model, "prompt": text, "add_special_tokens": False})
        headers = {"content-type": "application/json", **self._target.headers}
        if self._target.api_key is not None:
            headers["authorization"] = f"Bearer {self._target.api_key}"
        self._connection.request("POST", f"{self._address.base_path}{self._path}", body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise OSError(f"{self._path} answered {answer.status}")
        tokens = json.loads(data).get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise ValueError(f"{self._path} answered without tokens")
        return tokens

    def _connect(self) -> http.client.HTTPConnection:
        if not self._address.tls:
            return http.client.HTTPConnection(self._address.host, self._address.port, timeout=TIMEOUT_S)
        context = ssl.create_default_context()
        if not self._target.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(self._address.host, self._address.port, timeout=TIMEOUT_S, context=context)


def prompts_for(target: Target, *, token_ids_accepted: bool) -> PromptMaker:
    """``token_ids_accepted``: the endpoint takes prompts as token ids (completions of setpoint and vLLM)."""
    tokenizer = RemoteTokenizer(target)
    if not tokenizer.works():
        return EstimatedPrompts()
    return TokenIdPrompts(tokenizer.encode) if token_ids_accepted else TextPrompts(tokenizer.encode)
