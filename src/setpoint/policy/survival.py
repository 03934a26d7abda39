"""How long drafts survive verification, as data and as learned: P(at least j of a draft's tokens are accepted), j = 1, 2, ...

``SurvivalProfile`` is what a workload showed or a user assumes; its closed forms are those of Leviathan et al. (2023).
``Survivals`` learns chances (accepted at j, given that all before j were) from verified drafts, by request and class of
sureness. A request's own counts at a position are shrunk to those of everybody in the class, scaled by how often the request
fails against how often everybody does, over all positions: so a request whose short drafts stand is believed to have long
ones that stand, before any was tried. Those of everybody are shrunk likewise, to the class's mean and that to ``PRIOR``.

When it is wrong: text changes its kind inside an answer; ``REQUEST_MEMORY`` drafts later the request's own numbers follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from setpoint.policy.views import FloatColumn, IntColumn

PRIOR: Final = (0.3, 0.45, 0.7, 0.85)
"""Chance that a draft token is accepted before anything was seen, by the drafter's class of sureness."""
PRIOR_TRIES: Final = 4.0
CLASS_TRIES: Final = 3.0
REQUEST_MEMORY: Final = 30.0
CLASS_MEMORY: Final = 400.0
BOUNDS: Final = (0.01, 0.99)

Table = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SurvivalProfile:
    """``survival[j - 1]``: share of drafts of at least j tokens of which the first j are accepted; it never rises with j.

    Raises ``ValueError`` for shares outside [0, 1] or rising ones.
    """

    survival: tuple[float, ...]

    def __post_init__(self) -> None:
        bounds = (1.0, *self.survival)
        if any(not 0.0 <= later <= earlier for earlier, later in zip(bounds, self.survival, strict=False)):
            raise ValueError(f"survival must fall from at most 1 to at least 0, found {self.survival}")

    def expected_tokens(self, draft_tokens: int) -> float:
        """Tokens emitted by a verify step of ``draft_tokens``, the model's own included: ``1 + sum of survival``."""
        if draft_tokens > len(self.survival):
            raise ValueError(f"the profile knows {len(self.survival)} positions, asked for {draft_tokens}")
        return 1.0 + sum(self.survival[:draft_tokens])

    def speed_up(self, draft_tokens: int, *, step_s: float, verify_s: float, draft_s: float) -> float:
        """Tokens a second over those without drafts: ``expected tokens x step_s / (verify_s + draft_s)``."""
        return self.expected_tokens(draft_tokens) * step_s / (verify_s + draft_s)


def constant_acceptance(acceptance: float, draft_tokens: int) -> SurvivalProfile:
    """Every token accepted with the same chance, whatever came before: ``survival[j] = acceptance^j``."""
    return SurvivalProfile(tuple(acceptance**position for position in range(1, draft_tokens + 1)))


def profile_of_shares(shares: Sequence[float], draft_tokens: int) -> SurvivalProfile:
    """As people give acceptance: one share is the chance of each token, several are survivals by position (``ValueError``)."""
    if len(shares) == 1:
        return constant_acceptance(shares[0], draft_tokens)
    return SurvivalProfile(tuple(shares))


def expected_tokens(acceptance: float, draft_tokens: int) -> float:
    """``(1 - a^(k + 1)) / (1 - a)``, k + 1 where a is 1 (Leviathan et al. 2023, equation 1)."""
    if acceptance >= 1.0:
        return draft_tokens + 1.0
    return float((1.0 - acceptance ** (draft_tokens + 1)) / (1.0 - acceptance))


def break_even_acceptance(draft_tokens: int, *, step_s: float, verify_s: float, draft_s: float) -> float | None:
    """The constant acceptance at which a draft of ``draft_tokens`` neither gains nor loses; ``None`` if not even 1 is enough.

    The root in a of ``(1 - a^(k + 1)) / (1 - a) = (verify_s + draft_s) / step_s``; 0 where drafts cost nothing.
    """
    ratio = (verify_s + draft_s) / step_s
    if ratio <= 1.0:
        return 0.0
    if ratio > draft_tokens + 1.0:
        return None
    low, high = 0.0, 1.0
    for _ in range(60):  # expected_tokens rises with acceptance: halving finds the root to 2^-60
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens(middle, draft_tokens) < ratio else (low, middle)
    return high


class Survivals:
    """Learned chances. ``positions``: longest draft. Requests are forgotten by ``keep_only``."""

    def __init__(self, positions: int, prior: Sequence[float] = PRIOR) -> None:
        self.positions = positions
        self._classes = len(prior)
        self._prior = np.array(prior, dtype=np.float64)
        # [0]: tries, [1]: accepted; by class of sureness and position.
        self._all = np.zeros((2, self._classes, positions))
        self._own: dict[int, Table] = {}
        self._sureness: dict[int, int] = {}

    def predict(self, ids: IntColumn, sureness: IntColumn) -> Table:
        """Survival of the next draft of each request, by position: [requests, positions]."""
        tries, accepted = self._all
        level = (accepted.sum(axis=1) + PRIOR_TRIES * self._prior) / (tries.sum(axis=1) + PRIOR_TRIES)
        pooled = (accepted + PRIOR_TRIES * level[:, None]) / (tries + PRIOR_TRIES)
        kinds = np.minimum(sureness, self._classes - 1)
        own = np.zeros((2, len(ids), self.positions))
        for row, (request_id, kind) in enumerate(zip(ids.tolist(), kinds.tolist(), strict=True)):
            known = self._own.get(request_id)
            if known is not None:
                own[:, row] = known[:, kind]
            self._sureness[request_id] = kind
        usual = level[kinds]
        own_level = (own[1].sum(axis=1) + CLASS_TRIES * usual) / (own[0].sum(axis=1) + CLASS_TRIES)
        fails = (1.0 - pooled[kinds]) * ((1.0 - own_level) / (1.0 - usual))[:, None]
        chances = (own[1] + CLASS_TRIES * np.clip(1.0 - fails, *BOUNDS)) / (own[0] + CLASS_TRIES)
        return np.asarray(np.cumprod(chances, axis=1))

    def tries(self, ids: IntColumn) -> FloatColumn:
        """Recent drafts of each request."""
        return np.array([0.0 if i not in self._own else self._own[i][0, :, 0].sum() for i in ids.tolist()])

    def observe(self, request_id: int, drafted: int, accepted: int) -> None:
        """One draft was verified. Its class of sureness is that of the last prediction."""
        kind = self._sureness.get(request_id, 0)
        drafted = min(drafted, self.positions)
        accepted = min(accepted, drafted)
        own = self._own_of(request_id)
        for table, memory in ((own[:, kind], REQUEST_MEMORY), (self._all[:, kind], CLASS_MEMORY)):
            table[:, : min(accepted + 1, drafted)] *= 1.0 - 1.0 / memory
            table[0, : min(accepted + 1, drafted)] += 1.0
            table[1, :accepted] += 1.0

    def foretold(self, request_id: int, sureness: int, position: int, stood: bool) -> None:
        """A guess that was not verified was held against what came: one position of it. Beyond the longest draft: nothing."""
        if position >= self.positions:
            return
        kind = min(sureness, self._classes - 1)
        for table, memory in ((self._own_of(request_id)[:, kind], REQUEST_MEMORY), (self._all[:, kind], CLASS_MEMORY)):
            table[:, position] *= 1.0 - 1.0 / memory
            table[:, position] += (1.0, float(stood))

    def _own_of(self, request_id: int) -> Table:
        own = self._own.get(request_id)
        if own is None:
            own = self._own[request_id] = np.zeros((2, self._classes, self.positions))
        return own

    def keep_only(self, present: Iterable[int]) -> None:
        """Forget every request that is not ``present``."""
        kept = set(present)
        if max(len(self._own), len(self._sureness)) > 2 * len(kept) + 8:
            self._own = {i: table for i, table in self._own.items() if i in kept}
            self._sureness = {i: kind for i, kind in self._sureness.items() if i in kept}
