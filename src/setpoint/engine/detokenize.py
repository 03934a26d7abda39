"""Token ids to text as they come, never splitting a character; and stop strings found across token boundaries."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one request. Feed it token ids; it gives the characters that are complete.

    ``token_bytes[i]`` are the bytes of token ``i`` (empty for special tokens). With stop strings, text that could be the
    beginning of one is held back until that is decided; a stop string that is found is cut off, and all after it.
    """

    __slots__ = ("_decoder", "_held", "_keep", "_stop", "_token_bytes", "stopped")

    def __init__(self, token_bytes: Sequence[bytes], stop: tuple[str, ...] = ()) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(filter(None, stop))
        self._keep = max(map(len, self._stop), default=1) - 1
        self._held = ""
        self.stopped = False

    def feed(self, token: int, *, last: bool = False) -> str:
        """Text that is certain after ``token``; ``last`` gives out what is held back."""
        if self.stopped:
            return ""
        text = self._decoder.decode(self._token_bytes[token], last)
        return self._release(text, last) if self._stop else text

    def finish(self) -> str:
        """What is still held back, when the request ends without another token."""
        if self.stopped:
            return ""
        return self._release(self._decoder.decode(b"", True), True)

    def _release(self, text: str, last: bool) -> str:
        self._held += text
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            # The one that is complete first ends the answer, so that it does not matter how tokens cut the text.
            self.stopped = True
            text, self._held = self._held[: min(found)[1]], ""
            return text
        keep = 0 if last else self._overlap()
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _overlap(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        for length in range(min(self._keep, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
