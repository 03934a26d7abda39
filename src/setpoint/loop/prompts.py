"""The right prompt maker for a target: exact token ids where the server lets us ask its tokenizer, an estimate elsewhere."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Sequence
from functools import lru_cache

from setpoint.measure.probe import ProbeError
from setpoint.measure.target import Target, parse_address
from setpoint.workload.prompts import EstimatedPrompts, PromptMaker, TextPrompts, TokenIdPrompts

TOKENIZE_PATHS = ("/tokenize", "/setpoint/tokenize")
TIMEOUT_S = 10.0
ATTEMPTS = 2
KEPT_ANSWERS = 16


class RemoteTokenizer:
    """Asks a server's ``/tokenize`` (vLLM's and setpoint's); one connection, kept open."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._address = parse_address(target.url)
        self._path = TOKENIZE_PATHS[0]
        self._connection = self._connect()

    def works(self) -> bool:
        """Whether the server tokenizes for us, and by which path."""
        for path in TOKENIZE_PATHS:
            self._path = path
            with contextlib.suppress(ProbeError):
                if self.encode("one two three"):
                    return True
        return False

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of ``text`` without special tokens. Raises ``ProbeError``."""
        body = json.dumps({"model": self._target.model, "prompt": text, "add_special_tokens": False})
        headers = {"content-type": "application/json", **self._target.headers}
        if self._target.api_key is not None:
            headers["authorization"] = f"Bearer {self._target.api_key}"
        for attempt in range(ATTEMPTS):
            try:
                self._connection.request("POST", f"{self._address.base_path}{self._path}", body, headers)
                answer = self._connection.getresponse()
                data = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                self._connection = self._connect()
                # A connection that was kept open may have been closed by the server just now: once more on a fresh one.
                if attempt == ATTEMPTS - 1:
                    raise ProbeError(f"{self._target.url}{self._path}: {error or type(error).__name__}") from error
        if answer.status != 200:
            raise ProbeError(f"{self._target.url}{self._path}: HTTP {answer.status}")
        return _tokens(data, f"{self._target.url}{self._path}")

    def _connect(self) -> http.client.HTTPConnection:
        if not self._address.tls:
            return http.client.HTTPConnection(self._address.host, self._address.port, timeout=TIMEOUT_S)
        context = ssl.create_default_context()
        if not self._target.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(self._address.host, self._address.port, timeout=TIMEOUT_S, context=context)


def _tokens(data: bytes, where: str) -> Sequence[int]:
    try:
        page = json.loads(data)
    except ValueError:
        page = None
    tokens = page.get("tokens") if isinstance(page, dict) else None
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise ProbeError(f"{where}: the answer holds no tokens")
    return tokens


def prompts_for(target: Target, *, token_ids_accepted: bool) -> PromptMaker:
    """``token_ids_accepted``: the endpoint takes prompts as token ids (completions of setpoint and vLLM)."""
    tokenizer = RemoteTokenizer(target)
    if not tokenizer.works():
        return EstimatedPrompts()
    # The shared prefix is asked for with every prompt; a handful of answers is worth keeping.
    encode = lru_cache(maxsize=KEPT_ANSWERS)(tokenizer.encode)
    return TokenIdPrompts(encode) if token_ids_accepted else TextPrompts(encode)
