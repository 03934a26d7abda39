"""The served model's own tokenizer, asked over HTTP: what makes prompt lengths exact.

Servers agree on ``POST /tokenize`` and on little else, so the dialects are tried in turn.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Sequence
from typing import Any

from setpoint.measure.probe import ProbeError
from setpoint.measure.target import Target, parse_address

TIMEOUT_S = 10.0
ATTEMPTS = 2
_SAMPLE = "one two three"


class Dialect:
    """How one family of servers is asked. The base is vLLM's way, which SGLang and setpoint share."""

    path = "/tokenize"

    def question(self, model: str, text: str, *, special: bool) -> dict[str, Any]:
        """The body that asks for the tokens of ``text``; ``special``: with what the server adds to a text prompt."""
        return {"model": model, "prompt": text, "add_special_tokens": special}

    def chat_question(self, model: str, text: str) -> dict[str, Any] | None:
        """The body that asks for the tokens of a conversation of one user message; ``None`` if it cannot be asked."""
        messages = [{"role": "user", "content": text}]
        return {"model": model, "messages": messages, "add_generation_prompt": True}

    def tokens(self, page: object) -> list[int] | None:
        """The token ids of an answer, ``None`` if it holds none."""
        tokens = page.get("tokens") if isinstance(page, dict) else None
        if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens):
            return tokens
        return None


class OwnDialect(Dialect):
    """setpoint behind something that keeps ``/tokenize`` to itself."""

    path = "/setpoint/tokenize"


class LlamaCppDialect(Dialect):
    """llama.cpp's server: the text is called content; a conversation is turned into text by another page."""

    def question(self, model: str, text: str, *, special: bool) -> dict[str, Any]:
        return {"content": text, "add_special": special, "parse_special": True}

    def chat_question(self, model: str, text: str) -> None:
        return None


class TgiDialect(Dialect):
    """TGI: the answer is a list of tokens with their places; special tokens are always in it."""

    def question(self, model: str, text: str, *, special: bool) -> dict[str, Any]:
        return {"inputs": text}

    def chat_question(self, model: str, text: str) -> None:
        return None

    def tokens(self, page: object) -> list[int] | None:
        if isinstance(page, list) and all(isinstance(token, dict) and isinstance(token.get("id"), int) for token in page):
            return [token["id"] for token in page]
        return None


DIALECTS = (Dialect(), LlamaCppDialect(), TgiDialect(), OwnDialect())


class RemoteTokenizer:
    """Asks a server's tokenizer over one connection, kept open."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._address = parse_address(target.url)
        self._dialect: Dialect = DIALECTS[0]
        self._connection = self._connect()

    def works(self) -> bool:
        """Whether the server tokenizes for us, and in which dialect."""
        for dialect in DIALECTS:
            self._dialect = dialect
            try:
                if self.encode(_SAMPLE):
                    return True
            except ProbeError:
                continue
        return False

    def works_for_chat(self) -> bool:
        """Whether it also tells the tokens of a conversation, chat template included. Call ``works`` first."""
        try:
            # The template adds to the text: an answer without more tokens is not of a conversation.
            return len(self.encode_chat(_SAMPLE)) > len(self.encode(_SAMPLE))
        except ProbeError:
            return False

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of ``text`` without special tokens. Raises ``ProbeError``."""
        return self._tokens_for(self._dialect.question(self._target.model, text, special=False))

    def encode_prompt(self, text: str) -> Sequence[int]:
        """Token ids the completions endpoint makes of a text prompt, what the server adds included. Raises ``ProbeError``."""
        return self._tokens_for(self._dialect.question(self._target.model, text, special=True))

    def encode_chat(self, text: str) -> Sequence[int]:
        """Token ids the chat endpoint makes of one user message, chat template included. Raises ``ProbeError``."""
        question = self._dialect.chat_question(self._target.model, text)
        if question is not None:
            return self._tokens_for(question)
        page = self._ask("/apply-template", {"messages": [{"role": "user", "content": text}]})
        prompt = page.get("prompt") if isinstance(page, dict) else None
        if not isinstance(prompt, str):
            raise ProbeError(f"{self._target.url}/apply-template: the answer holds no prompt")
        return self.encode_prompt(prompt)

    def _tokens_for(self, question: dict[str, Any]) -> Sequence[int]:
        tokens = self._dialect.tokens(self._ask(self._dialect.path, question))
        if tokens is None:
            raise ProbeError(f"{self._target.url}{self._dialect.path}: the answer holds no tokens")
        return tokens

    def _ask(self, path: str, question: dict[str, Any]) -> object:
        """The answer's JSON, ``None`` if it is none. Raises ``ProbeError`` for anything but a good answer."""
        where = f"{self._target.url}{path}"
        headers = {"content-type": "application/json", **self._target.headers}
        if self._target.api_key is not None:
            headers["authorization"] = f"Bearer {self._target.api_key}"
        for attempt in range(ATTEMPTS):
            try:
                self._connection.request("POST", f"{self._address.base_path}{path}", json.dumps(question), headers)
                answer = self._connection.getresponse()
                data = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                self._connection = self._connect()
                # A connection that was kept open may have been closed by the server just now: once more on a fresh one.
                if attempt == ATTEMPTS - 1:
                    raise ProbeError(f"{where}: {error or type(error).__name__}") from error
        if answer.status != 200:
            raise ProbeError(f"{where}: HTTP {answer.status}")
        try:
            return json.loads(data)
        except ValueError:
            return None

    def _connect(self) -> http.client.HTTPConnection:
        if not self._address.tls:
            return http.client.HTTPConnection(self._address.host, self._address.port, timeout=TIMEOUT_S)
        context = ssl.create_default_context()
        if not self._target.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(self._address.host, self._address.port, timeout=TIMEOUT_S, context=context)
