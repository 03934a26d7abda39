"""What prompts have in common, as digests of blocks: equal digests stand for equal tokens behind equal tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from setpoint.policy.views import IntColumn

MOST_BLOCKS_A_TEXT = 1 << 24
"""Digests of one text are numbered from a multiple of this."""


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """Prompts whose first ``shared_tokens`` are those of the text number ``text``. Shapes (requests,)."""

    text: IntColumn
    shared_tokens: IntColumn

    def __call__(self, row: int, block_tokens: int) -> tuple[int, ...]:
        """See ``load.Named``."""
        first = int(self.text[row]) * MOST_BLOCKS_A_TEXT
        return tuple(range(first, first + int(self.shared_tokens[row]) // block_tokens))


@dataclass
class TraceBlocks:
    """Prompts that are lists of numbered blocks of text (``workload.traces.trace.Blocks``), as far as ``prompt_tokens`` go.

    blocks: numbers and token counts of one request, by its row. A block of the cache is known by the numbers up to the one that
    its last token lies in, and its place in that.
    """

    blocks: Callable[[int], tuple[tuple[int, int], ...]]
    prompt_tokens: IntColumn
    _texts: dict[tuple[int, int], int] = field(default_factory=dict)

    def __call__(self, row: int, block_tokens: int) -> tuple[int, ...]:
        """See ``load.Named``."""
        found: list[int] = []
        text, end, most = -1, 0, int(self.prompt_tokens[row])
        for number, tokens in self.blocks(row):
            text = self._texts.setdefault((text, number), len(self._texts))
            begin, end = end, min(end + tokens, most)
            first = text * MOST_BLOCKS_A_TEXT
            found += [first + (place + 1) * block_tokens - begin for place in range(len(found), end // block_tokens)]
            if end >= most:
                break
        return tuple(found)
