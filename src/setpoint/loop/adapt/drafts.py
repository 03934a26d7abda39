"""How good the guesses of a running server were of late and what they cost: what plans with drafts are simulated with.

From the engine's own counts (``engine/speculation/guesses.py``), of which about the newest ``RECENT`` are kept: in how many of
the looks there was a guess, and by position the chance that its token stands, all before it having stood. Each chance is shrunk
to that of all positions, and that to what the controller begins with (``policy/survival.py``). A pass of a draft model takes a
time by itself, one for each request and one for each token read before, as whoever decides on drafts has learned them from the
warm-up and the newest steps (``policy/verify_time.py``); what verification takes is among the steps from which the machine is
learned.

When it is wrong: long drafts are verified only where they were thought to be good, so they look better than they are. While
drafts are off nothing is learned of them, and while all steps are alike nothing of what a pass takes: what was known before is
taken for the new traffic too.
"""

from __future__ import annotations

import numpy as np

from setpoint.engine.service import GuessTotals
from setpoint.engine.speculation.draft import DRAFT_MODEL_SURENESS
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.policy.survival import PRIOR, PRIOR_TRIES, SurvivalProfile
from setpoint.policy.views import FloatColumn
from setpoint.simulate.acceptance import AcceptedDrafts
from setpoint.simulate.drafter import LOOKUP_SURENESS, Drafting
from setpoint.simulate.timing import LineTimer

RECENT = 2000
LEAST_LOOKED = 64


class LiveDrafts:
    """``started``: what the server was started with, a drafter included."""

    def __init__(self, started: ServingConfig) -> None:
        self.drafter = started.speculation
        self._has_model = started.speculation is SpeculationMode.DRAFT
        # Looks and those with a guess, then tries and those that stood by position: [2, 1 + positions].
        self._counts: FloatColumn = np.zeros((2, 1 + started.longest_draft_tokens))
        self._before: FloatColumn = np.zeros_like(self._counts)
        self._passes: LineTimer | None = None

    def guessed(self, totals: GuessTotals) -> None:
        """The engine's counts since its start."""
        positions = self._counts.shape[1] - 1
        now = np.zeros_like(self._counts)
        now[:, 0] = totals.looked, totals.found
        for row, counts in enumerate((totals.tried, totals.stood)):
            known = counts[:positions]
            now[row, 1 : 1 + len(known)] = known
        new = np.maximum(now - self._before, 0.0)
        self._before = now
        self._counts = self._counts * np.maximum(0.0, 1.0 - new[0] / RECENT) + new

    def took(self, drafting_s: tuple[float, ...] | None) -> None:
        """What a draft model does: seconds a round, a token drafted and a token read; ``None`` while they cannot be told apart.

        A round is a pass over one token of each request, and the first reads as well.
        """
        if drafting_s is not None:
            round_s, token_s, read_s = drafting_s
            self._passes = LineTimer(round_s, token_s=read_s, sequence_s=token_s - read_s)

    def drafting(self) -> Drafting | None:
        """What guesses in a forecast; ``None`` while too little is known."""
        looked, found = self._counts[:, 0].tolist()
        if looked < LEAST_LOOKED or (self._has_model and self._passes is None):
            return None
        return Drafting(AcceptedDrafts(self._survival(), min(1.0, found / looked)), self._passes)

    def described(self) -> dict[str, object] | None:
        """In a few numbers, for people."""
        drafting = self.drafting()
        if drafting is None:
            return None
        accepted = drafting.accepted
        survival = [round(share, 3) for share in accepted.profile.survival]
        return {"found_share": round(accepted.share, 3), "survival": survival}

    def _survival(self) -> SurvivalProfile:
        tried, stood = self._counts[:, 1:]
        prior = PRIOR[DRAFT_MODEL_SURENESS if self._has_model else LOOKUP_SURENESS]
        level = (stood.sum() + PRIOR_TRIES * prior) / (tried.sum() + PRIOR_TRIES)
        chances: FloatColumn = np.minimum((stood + PRIOR_TRIES * level) / (tried + PRIOR_TRIES), 1.0)
        return SurvivalProfile(tuple(np.cumprod(chances).tolist()))
