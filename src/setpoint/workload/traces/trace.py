"""A trace of real traffic, whatever file it came from: arrivals, lengths, and what prompts have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from setpoint.workload.prompt import PromptBlock

MAX_ROWS = 2_000_000
"""Most requests that are read of a file; the rest is left out, and the trace says so."""


class TraceError(ValueError):
    """A file that is no trace, or cannot be replayed as asked; the message names the file, what was found and the fix."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks that prompts begin with: of request i those at ``starts[i]`` to ``starts[i + 1]`` of ``numbers``.

    numbers: int64, shape ``[blocks]``; equal numbers are equal text. starts: int64, shape ``[requests + 1]``.
    sizes: tokens of each block, int64, shape ``[blocks]``, or one number for all.
    """

    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64] | int

    def of(self, index: int) -> tuple[PromptBlock, ...]:
        """The blocks of one request."""
        first, last = int(self.starts[index]), int(self.starts[index + 1])
        numbers = self.numbers[first:last].tolist()
        sizes = [self.sizes] * len(numbers) if isinstance(self.sizes, int) else self.sizes[first:last].tolist()
        return tuple(map(PromptBlock, numbers, sizes))


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user said and how the answer went on, as text."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival.

    name: the file. format: one of ``FORMATS``. times_s: arrivals from the first one on, in seconds, float64, shape ``[n]``;
    ``None`` where the file has no times. prompt_tokens, output_tokens: int64, shape ``[n]``. blocks: what prompts share,
    ``None`` where the file does not say. conversations: their turns in text, one entry a request of which the counts are
    those of its first turn; empty where the file has no text. exact: whether the counts are the file's own (estimates from
    the length of the text otherwise). notes: what was left out, repaired or estimated, one sentence each.
    """

    name: str
    format: str
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    times_s: NDArray[np.float64] | None = None
    blocks: Blocks | None = None
    conversations: Sequence[Sequence[Turn]] = ()
    exact: bool = True
    notes: tuple[str, ...] = field(default=())

    @property
    def requests(self) -> int:
        """How many requests there are."""
        return int(self.prompt_tokens.size)

    @property
    def duration_s(self) -> float | None:
        """From the first arrival to the last, and the mean gap after it; ``None`` without times."""
        if self.times_s is None:
            return None
        span_s = float(self.times_s[-1])
        return span_s * self.requests / max(self.requests - 1, 1)

    @property
    def rate_rps(self) -> float | None:
        """Mean arrivals per second; ``None`` without times or with all of them at one instant."""
        duration_s = self.duration_s
        return self.requests / duration_s if duration_s else None
