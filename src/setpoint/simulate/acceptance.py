"""Which guesses come true in a simulation: drawn from a profile, by seed, request and place in the answer.

A draft's token at position j of the draft, n-th of its request's answer, stands if all before it do and ``u(request, n)`` is
below the chance at j: survival[j] / survival[j - 1]. The draw belongs to the token and not to the moment, so it is the same
whatever was drafted before, in whatever order requests are served; and with a higher chance everything that stood stands still.
Whether there is a guess at all (prompt lookup finds one in a share of the steps) is drawn likewise.

When it is wrong: real acceptance comes in runs, and differs between requests; here every token is drawn by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from setpoint.policy.survival import SurvivalProfile
from setpoint.policy.views import FloatColumn, IntColumn

MASK: Final = (1 << 64) - 1
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Constants of SplitMix64 (Steele, Lea, Flood 2014), which turns a counter into bits."""
STANDS, FOUND = 1, 2


@dataclass(frozen=True, slots=True)
class AcceptedDrafts:
    """``profile``: survival by position, which bounds the longest draft; ``share``: of decode steps, how many have a guess."""

    profile: SurvivalProfile
    share: float = 1.0

    @property
    def longest(self) -> int:
        """Positions that are known."""
        return len(self.profile.survival)

    def chances(self) -> FloatColumn:
        """Of a token at each position, given that all before it stand: shape (longest,)."""
        survival = np.array(self.profile.survival, dtype=np.float64)
        before = np.concatenate(([1.0], survival[:-1]))
        return np.asarray(np.divide(survival, before, out=np.zeros_like(survival), where=before > 0))


class AcceptanceDraws:
    """The draws of one simulation. Nothing is kept: the same question has the same answer."""

    def __init__(self, accepted: AcceptedDrafts, seed: int) -> None:
        self.longest = accepted.longest
        self._chances = accepted.chances()
        self._told: list[float] = self._chances.tolist()
        self._share = accepted.share
        self._seeds = {kind: _mixed(seed * 4 + kind) for kind in (STANDS, FOUND)}

    def found(self, row: int, emitted: int) -> bool:
        """Whether there is a guess for request ``row`` after so many output tokens."""
        return self._share >= 1.0 or self._uniform(FOUND, row, emitted) < self._share

    def stands(self, row: int, emitted: int, position: int) -> bool:
        """Whether token ``position`` (from 0) of a draft after ``emitted`` output tokens stands, all before it doing so."""
        return self._uniform(STANDS, row, emitted + position) < self._told[position]

    def accepted(self, rows: IntColumn, emitted: IntColumn, counts: IntColumn) -> IntColumn:
        """How many tokens stand of drafts of ``counts`` tokens after ``emitted`` ones. Shapes (drafts,)."""
        positions = np.arange(int(counts.max(initial=0)))
        keys = _keys(self._seeds[STANDS], rows[:, None], emitted[:, None] + positions)
        uniform = (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
        good = (uniform < self._chances[: len(positions)]) & (positions < counts[:, None])
        return np.asarray(np.logical_and.accumulate(good, axis=1).sum(axis=1), dtype=np.int64)

    def _uniform(self, kind: int, row: int, place: int) -> float:
        return (_mixed(_mixed(self._seeds[kind] + row) + place) >> 11) * 2.0**-53


def _mixed(value: int) -> int:
    value = (value + STEP) & MASK
    value = ((value ^ (value >> 30)) * FIRST) & MASK
    value = ((value ^ (value >> 27)) * SECOND) & MASK
    return value ^ (value >> 31)


def _keys(seed: int, rows: IntColumn, places: IntColumn) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """``_mixed`` of whole columns, shape of ``places``."""

    def mixed(value: np.ndarray[tuple[int, int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
        value = value + np.uint64(STEP)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(FIRST)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(SECOND)
        return np.asarray(value ^ (value >> np.uint64(31)))

    with np.errstate(over="ignore"):
        return mixed(mixed(rows.astype(np.uint64) + np.uint64(seed)) + places.astype(np.uint64))
