"""Log-probabilities in the two shapes that the OpenAI API has for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from setpoint.engine.request import TokenLogprobs
from setpoint.engine.service import Tokenizer

# JSON knows no infinity; the OpenAI API says this for a token of no probability at all.
LEAST = -9999.0


class LogprobsShape(Protocol):
    """Turns the log-probabilities of new tokens into the ``logprobs`` of a choice."""

    def shown(self, tokens: Sequence[TokenLogprobs]) -> dict[str, object]:
        """Of the answer's next tokens; called once for each, in order."""
        ...


def token_text(piece: bytes) -> str:
    """A token as text; one that holds part of a character as ``bytes:\\xNN...``."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


class ChatLogprobs:
    """``{"content": [{"token", "logprob", "bytes", "top_logprobs"}], "refusal": null}``."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def shown(self, tokens: Sequence[TokenLogprobs]) -> dict[str, object]:
        """Of the answer's next tokens."""
        content = [
            {**self._one(one.token, one.logprob), "top_logprobs": [self._one(token, value) for token, value in one.top]}
            for one in tokens
        ]
        return {"content": content, "refusal": None}

    def _one(self, token: int, logprob: float) -> dict[str, object]:
        piece = self._tokenizer.piece(token)
        return {"token": token_text(piece), "logprob": max(logprob, LEAST), "bytes": list(piece)}


class TextLogprobs:
    """``{"tokens", "token_logprobs", "top_logprobs", "text_offset"}``, offsets in characters of the answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offset = 0

    def shown(self, tokens: Sequence[TokenLogprobs]) -> dict[str, object]:
        """Of the answer's next tokens."""
        texts: list[str] = []
        offsets: list[int] = []
        for one in tokens:
            piece = self._tokenizer.piece(one.token)
            texts.append(token_text(piece))
            offsets.append(self._offset)
            # A character counts where it begins: continuation bytes are 10xxxxxx.
            # A token without text, such as the end of the answer, moves nothing, though it is shown by its name.
            if self._tokenizer.decode([one.token]):
                self._offset += sum(byte & 0xC0 != 0x80 for byte in piece)
        return {
            "tokens": texts,
            "token_logprobs": [max(one.logprob, LEAST) for one in tokens],
            "top_logprobs": [self._top(one) for one in tokens],
            "text_offset": offsets,
        }

    def _top(self, one: TokenLogprobs) -> dict[str, float]:
        """The likeliest tokens and the chosen one, which may be none of them."""
        top = {token_text(self._tokenizer.piece(token)): max(value, LEAST) for token, value in reversed(one.top)}
        top = dict(reversed(top.items()))
        return top | {token_text(self._tokenizer.piece(one.token)): max(one.logprob, LEAST)}
