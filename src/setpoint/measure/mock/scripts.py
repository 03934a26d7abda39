"""The script of one request: its writes and the gaps before them, from its behaviour and the token clock."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from setpoint.measure.mock.options import Behaviour, MockOptions
from setpoint.measure.mock.shapes import End, Shape, stream_shape, whole_shape
from setpoint.measure.mock.wire import Wire, usage_of

_CACHE_MAX = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """What a generation request asks for. ``counts``: usage is wanted in the stream. ``number``: for dealing behaviours."""

    chat: bool
    streaming: bool
    counts: bool
    tokens: int
    prompt_tokens: int
    behaviours: tuple[Behaviour, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Script:
    """Writes with the gap in seconds before each and the tokens each carries; an empty last write is the end itself.

    refused: answered at once, without a place among the served.
    """

    behaviour: Behaviour
    writes: list[bytes]
    gaps_s: list[float]
    tokens: tuple[int, ...]
    end: End
    status: int

    @property
    def refused(self) -> bool:
        """Whether the request takes no capacity."""
        return self.status >= 400 and self.gaps_s == [0.0]


@dataclass(frozen=True)
class _Outline:
    """A shape with what follows from it, kept for all requests that look alike."""

    shape: Shape

    @cached_property
    def writes(self) -> list[bytes]:
        ends = [] if self.shape.end in (End.KEEP, End.HANG) else [b""]
        return [write.data for write in self.shape.writes] + ends

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        return tuple(write.tokens for write in self.shape.writes) + (0,) * (len(self.writes) - len(self.shape.writes))

    @cached_property
    def _due(self) -> NDArray[np.int64]:
        """Of each write, the place in the token clock, whose first entry stands for the beginning."""
        places = [write.token for write in self.shape.writes]
        places += [self.shape.end_token] * (len(self.writes) - len(places))
        return np.array(places, dtype=np.int64) + 1

    def gaps_s(self, clock_s: NDArray[np.float64]) -> list[float]:
        """The gap before each write; ``clock_s`` are the times of the tokens after the beginning."""
        due_s = np.concatenate(([0.0], clock_s))[self._due]
        gaps: list[float] = np.diff(due_s, prepend=0.0).tolist()
        return gaps


class ScriptBook:
    """Writes scripts. Draws from one generator in the order of the calls; without jitter nothing is drawn."""

    def __init__(self, options: MockOptions) -> None:
        self._options = options
        self._wires = {chat: Wire(chat, options.model) for chat in (False, True)}
        self._rng = np.random.default_rng(options.seed)
        self._outlines: dict[tuple[Behaviour, bool, int], _Outline] = {}
        self._steady_gaps_s: dict[tuple[Behaviour, bool, int], list[float]] = {}

    def script(self, asked: Asked) -> Script:
        """The script of one request."""
        behaviours = asked.behaviours or self._options.behaviours
        behaviour = behaviours[asked.number % len(behaviours)]
        if asked.streaming:
            key = behaviour, asked.chat, asked.tokens
            outline = self._outlines.get(key) or self._remember(key)
            gaps_s = self._gaps_s(key, outline)
        else:
            wire, wait_s = self._wires[asked.chat], self._options.retry_after_s
            outline = _Outline(whole_shape(behaviour, wire, asked.tokens, asked.prompt_tokens, wait_s))
            gaps_s = outline.gaps_s(self._clock_s(asked.tokens, behaviour))
        writes = outline.writes
        if outline.shape.closes:
            usage = usage_of(asked.prompt_tokens, asked.tokens)
            counts = asked.counts and behaviour is not Behaviour.NO_USAGE
            closing = self._wires[asked.chat].closing(usage if counts else None, finish=outline.shape.finish)
            writes = [*writes[:-1], writes[-1] + closing]
        return Script(behaviour, writes, gaps_s, outline.tokens, outline.shape.end, outline.shape.status)

    def _remember(self, key: tuple[Behaviour, bool, int]) -> _Outline:
        behaviour, chat, tokens = key
        if len(self._outlines) >= _CACHE_MAX:
            self._outlines.clear()
            self._steady_gaps_s.clear()
        options = self._options
        shape = stream_shape(behaviour, self._wires[chat], tokens, options.tokens_per_chunk, options.retry_after_s)
        return self._outlines.setdefault(key, _Outline(shape))

    def _gaps_s(self, key: tuple[Behaviour, bool, int], outline: _Outline) -> list[float]:
        if self._options.ttft_cv or self._options.itl_cv:
            return outline.gaps_s(self._clock_s(key[2], key[0]))
        if key not in self._steady_gaps_s:
            self._steady_gaps_s[key] = outline.gaps_s(self._clock_s(key[2], key[0]))
        return self._steady_gaps_s[key]

    def _clock_s(self, tokens: int, behaviour: Behaviour) -> NDArray[np.float64]:
        """When each token is made, in seconds after the beginning, shape ``[tokens]``."""
        options = self._options
        gaps_s = np.full(tokens, options.itl_s)
        if options.itl_cv:
            gaps_s = self._rng.gamma(options.itl_cv**-2, options.itl_s * options.itl_cv**2, size=tokens)
        gaps_s[0] = options.ttft_s
        if options.ttft_cv:
            gaps_s[0] = self._rng.gamma(options.ttft_cv**-2, options.ttft_s * options.ttft_cv**2)
        if behaviour is Behaviour.STALLED and tokens > 1:
            gaps_s[tokens // 2] += options.stall_s
        return np.cumsum(gaps_s)
