"""How far to speculate: ``k* = argmax over k >= 0 of expected tokens(k) / t(k, batch)``, a length for every request.

Formula: DESIGN.md section 4. A draft token at position j of request i is worth its survival S_ij. Tokens are taken from the
likeliest down (survivals fall with j, so every draft is taken from its front), and the number m is chosen that maximises

    (n + S_1 + ... + S_m) / (verify_s(n, m) + draft_s(longest, m) + change_s)

over n running requests: which tokens to draft and how many follow from one maximum, of which a batch-wide k is a special case.
Acceptance alone never decides: with the same survivals the best m falls to 0 as verification becomes dearer with n.

- Hysteresis: off to on takes a predicted gain of ``ON_GAIN``, staying on ``STAY_GAIN``; off is at once.
- What was chosen is worth what such choices turned out to be worth, and brings as many changes of the number of tokens, each
  of which costs time, as they brought (``policy/hindsight.py``).
- What is not drafted is learned from too where guesses are free: they are held against what came.
- Where they are not, probes: while off, if drafts that were all accepted would pay, ``PROBE_SHARE`` of the time may be spent on
  drafts for the request that was tried least, so that a change of the text is found out.
- A draft model has no guess before it has read the text. A long one is read a part a step, for one request at a time, where
  guesses would pay with all that has to be read and the answer lasts until they come; how long reading takes is learned, and
  no token is expected of it.
- Deadlines: no step longer than the slack of those who are read (``policy/slack.py``), its margin kept back.

Defaults are for steps of some milliseconds and answers of some dozens of tokens. When it is wrong: survivals are those of the
recent past, and a request's first drafts are decided by what others showed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isinf
from types import MappingProxyType
from typing import Final

import numpy as np

from setpoint.policy.decisions import StepResult, StepWork
from setpoint.policy.hindsight import Hindsight, ShapeChanges
from setpoint.policy.slack import MARGIN, SURELY, step_slack_s
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.survival import PRIOR, Survivals
from setpoint.policy.verify_time import DraftTime, VerifyTime
from setpoint.policy.views import DraftView, FloatColumn, Foretold, IntColumn, StepView

ON_GAIN: Final = 1.12
STAY_GAIN: Final = 1.05
READ_SPREAD_STEPS: Final = 32.0
PROBE_SHARE: Final = 0.005
PROBE_TOKENS: Final = 3
MOST_CREDIT_S: Final = 1.0
NO_DRAFTS: Final[Mapping[int, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Drafts:
    """``tokens``: draft length by request, empty for none. ``gain``: predicted tokens a second over those without drafts.

    code: ``pays``, ``probe``, ``fixed``, or why there are none: ``none_possible``, ``no_gain``, ``reads``. ``reads``: requests
    whose text the drafter reads on in this step, and has no guess for yet.
    """

    tokens: Mapping[int, int]
    gain: float
    code: str
    reads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """``plain_s``: what the step takes without drafts, its new shape as often as drafts change it; ``lasts_s``: how long it
    then lasts, its new shape included. ``longest_s``: how long it may last."""

    plain_s: float
    lasts_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class Choices:
    """Draft tokens from the likeliest down, as rows and positions; index m - 1 of the columns is "the first m of them".

    ``tokens``: expected tokens of the step. ``seconds``: of the step and its drafting, what is done once spread over the steps
    that it serves. ``step_s``: how long the step itself lasts, its new shape included.
    """

    rows: IntColumn
    tokens: FloatColumn
    seconds: FloatColumn
    step_s: FloatColumn


class SpeculationController:
    """Deterministic; changes only through ``decide``, ``hear`` and ``observe``. ``most_tokens``: longest draft of a request."""

    def __init__(self, model: StepTimeModel, *, most_tokens: int) -> None:
        self.survivals = Survivals(most_tokens, PRIOR)
        self.verify = VerifyTime(model)
        self.drafting = DraftTime()
        self.hindsight = Hindsight()
        self.changes = ShapeChanges()
        self._most_tokens = most_tokens
        self._on = False
        self._credit_s = 0.0
        self._probe_s = 0.0  # credit that was given for the step under way
        self._behind: dict[int, int] = {}
        self._reads: tuple[int, ...] = ()
        self._beside = 0
        self._expected: dict[int, FloatColumn] = {}  # survivals of the draft that was chosen, or would have been

    def decide(self, step: StepView) -> Drafts:
        """The draft length of every running request, for a step in which all of them decode; and whose text is read on."""
        drafts = step.drafts
        self._probe_s, self._reads = 0.0, ()
        if drafts is None or not drafts.most_tokens.any():
            return Drafts(NO_DRAFTS, 1.0, "none_possible")
        self.hear(step)
        ids = step.running.ids
        self._behind = dict(zip(ids.tolist(), drafts.behind_tokens.tolist(), strict=True))
        survival = self.survivals.predict(ids, drafts.sureness)
        within = (np.arange(1, self._most_tokens + 1) <= drafts.most_tokens[:, None]).astype(np.float64)
        bounds = self._bounds(step)
        least_gain = STAY_GAIN if self._on else ON_GAIN
        choices = self._choices(step, drafts, within * survival * drafts.ready[:, None])
        count, gain = _best(choices, len(ids), bounds, self.hindsight.share(len(ids)))
        if count and gain >= least_gain:
            self._on = True
            lengths = _lengths(choices.rows[:count], ids)
            self._expect(ids, survival, lengths)
            lasts_s = float(choices.step_s[count - 1])
            self._reads = self._worth_reading(step, drafts, within * survival, bounds, gain, lasts_s)
            return Drafts(lengths, gain, "pays", self._reads)
        self._on = False
        hoped, _ = _best(choices, len(ids), bounds)
        self._expect(ids, survival, _lengths(choices.rows[:hoped], ids))
        self._reads = self._worth_reading(step, drafts, within * survival, bounds, ON_GAIN, None)
        if self._reads:
            return Drafts(NO_DRAFTS, 1.0, "reads", self._reads)
        if drafts.foretells:  # what a probe would show is known already
            return Drafts(NO_DRAFTS, 1.0, "no_gain")
        return self._probe(step, drafts, within, bounds)

    def hear(self, step: StepView) -> None:
        """Learn from the guesses of ``step`` that were held against what came; also where nothing is to be decided."""
        self.survivals.keep_only(step.running.ids.tolist())
        for told in () if step.drafts is None else step.drafts.foretold:
            self.survivals.foretold(*told)
            self._judge_first(told)

    def observe(self, result: StepResult) -> None:
        """Learn what became of drafts and what they cost. To be called before the step-time model learns from ``result``."""
        seconds = result.end_s - result.start_s
        drafted = sum(result.drafted.values())
        self.verify.observe(result.work, seconds, drafted)
        self.changes.saw(result.work.tokens, drafted=drafted > 0)
        self._credit_s = min(MOST_CREDIT_S, self._credit_s + PROBE_SHARE * seconds)
        probe_s, self._probe_s = self._probe_s, 0.0
        reads = self._reads if result.draft_s > 0 else ()
        if not drafted and not reads:
            self._credit_s += probe_s  # It did not come to the probe.
            return
        for request_id, count in result.drafted.items():
            self.survivals.observe(request_id, count, result.accepted[request_id])
            expected = self._expected.get(request_id)
            if expected is not None:
                expected_tokens, came = float(expected[:count].sum()), result.accepted[request_id]
                self.hindsight.learn(result.work.sequences, expected=expected_tokens, came=came)
        self.drafting.learn(result, self._behind, reads)

    def learn_drafting(self, rounds: int, drafted: int, read: int, seconds: float) -> None:
        """What drafting took in a warm-up (``DraftTime``)."""
        self.drafting.observe(rounds, drafted, read, seconds)

    def learn(self, work: StepWork, seconds: float, drafted: int) -> None:
        """What a step of a warm-up took, of whose tokens ``drafted`` were drafts; no seconds: only its shape is known."""
        self.verify.observe(work, seconds, drafted)

    # Parts

    def _expect(self, ids: IntColumn, survival: FloatColumn, lengths: Mapping[int, int]) -> None:
        self._expected = {each: survival[row] for row, each in enumerate(ids.tolist()) if each in lengths}
        self._beside = len(ids)

    def _judge_first(self, told: Foretold) -> None:
        """The first token of a guess that would have been chosen was held against what came."""
        request_id, _, position, stood = told
        expected = self._expected.get(request_id) if position == 0 and not self._on else None
        if expected is not None:
            self.hindsight.learn(self._beside, expected=float(expected[0]), came=float(stood))

    def _choices(self, step: StepView, drafts: DraftView, survival: FloatColumn) -> Choices:
        """All draft tokens worth anything, the likeliest first. ``survival``: [requests, positions], 0 where impossible.

        What has to be read before is spread over ``READ_SPREAD_STEPS``. How long the step lasts includes what is read in it,
        of those who can be guessed for after that; the others are taken as if they could be.
        """
        positions = survival.shape[1]
        flat = survival.ravel()
        order = np.argsort(-flat, kind="stable")[: int(np.count_nonzero(flat))]
        rows, place = order // positions, order % positions
        extra, none = np.arange(1, len(order) + 1), np.zeros(len(order), dtype=np.int64)
        longest = np.maximum.accumulate(place + 1)
        first = place == 0
        read = np.cumsum(np.where(first, drafts.unread_tokens[rows], 0))
        read_now = np.cumsum(np.where(first & drafts.ready[rows], drafts.behind_tokens[rows], 0))
        sequences = len(step.running)
        step_s = self.verify.predict_s(sequences, int(step.running.context_tokens.sum()), extra)
        step_s = step_s + self.drafting.predict_s(longest, extra, none)
        read_s, read_now_s = (self.drafting.predict_s(none, none, tokens) for tokens in (read, read_now))
        back = max(0.0, self.changes.each - 1.0) * self.verify.each_change_s
        seconds = step_s + self._change_s(sequences + extra) + back + read_s / READ_SPREAD_STEPS
        lasts_s = step_s + read_now_s + self.verify.change_s(sequences + extra)
        return Choices(rows, sequences + np.cumsum(flat[order]), seconds, lasts_s)

    def _bounds(self, step: StepView) -> Bounds:
        """What the step takes without drafts, and what those who are read leave it."""
        sequences = np.array([len(step.running)])
        context = int(step.running.context_tokens.sum())
        step_s = self.verify.predict_s(len(step.running), context, np.array([0]))
        plain_s = float((step_s + self._change_s(sequences))[0])
        lasts_s = float((step_s + self.verify.change_s(sequences))[0])
        single_s = float(self.verify.predict_s(1, 0, np.array([0]))[0])
        slack_s = step_slack_s(step, plain_s, least_s=SURELY * single_s)
        return Bounds(plain_s, lasts_s, slack_s if isinf(slack_s) else slack_s * (1 - MARGIN))

    def _change_s(self, tokens: IntColumn) -> FloatColumn:
        return min(1.0, self.changes.each) * self.verify.change_s(tokens)

    def _worth_reading(
        self, step: StepView, drafts: DraftView, worth: FloatColumn, bounds: Bounds, least_gain: float, drafting_s: float | None
    ) -> tuple[int, ...]:
        """Whose text is read on, one a step, within the step's bound: others are being read meanwhile, and reading brings no
        token.

        worth: survivals, as if all were read. drafting_s: how long the step lasts with its drafts, ``None`` if it has none.
        """
        share = self.hindsight.share(len(step.running))
        row = self._next_to_read(step, drafts, worth, bounds, least_gain, share)
        if row is None:
            return ()
        rounds, lasts_s = (1, bounds.lasts_s) if drafting_s is None else (0, drafting_s)
        lasts_s += self._read_s(drafts, row, rounds)
        return (int(step.running.ids[row]),) if lasts_s <= bounds.longest_s else ()

    def _next_to_read(
        self, step: StepView, drafts: DraftView, worth: FloatColumn, bounds: Bounds, least_gain: float, share: float
    ) -> int | None:
        """Of those for whom guesses would pay with all that has to be read first, the row with the least of it.

        Judged is the one with the least to read, then twice as many, and so on: a long text makes nobody else's dear, and in a
        crowd one alone may gain too little.
        """
        rows = _to_read(step, drafts)
        for power in range((len(rows) - 1).bit_length() + 1 if len(rows) else 0):
            read = drafts.ready.copy()
            read[rows[: 1 << power]] = True
            hoped = self._choices(step, drafts, worth * read[:, None])
            count, gain = _best(hoped, len(step.running), bounds, share)
            wanted = np.unique(hoped.rows[:count])
            wanted = wanted[~drafts.ready[wanted]]
            if len(wanted) and gain >= least_gain:
                return int(wanted[np.argmin(drafts.unread_tokens[wanted])])
        return None

    def _read_s(self, drafts: DraftView, row: int, rounds: int) -> float:
        """Seconds of reading what is read of one request's text in a step, with so many ``rounds`` for it alone."""
        read = drafts.behind_tokens[row : row + 1]
        return float(self.drafting.predict_s(np.array([rounds]), np.array([0]), read)[0])

    def _probe(self, step: StepView, drafts: DraftView, within: FloatColumn, bounds: Bounds) -> Drafts:
        """A draft for the request that was tried least, if it can be afforded and could change anything.

        Where nobody's text is read, the one with the least to read comes first, and only if reading all of it can be afforded.
        """
        nothing = Drafts(NO_DRAFTS, 1.0, "no_gain")
        row, gain = self._to_probe(step, drafts, within * (1.0 - 1e-3 * np.arange(within.shape[1])), bounds)
        if row is None:
            return nothing
        request_id, ready = int(step.running.ids[row]), bool(drafts.ready[row])
        length = int(min(PROBE_TOKENS, drafts.most_tokens[row]))
        extra = np.array([length])
        context = int(step.running.context_tokens.sum())
        probe_s = self.verify.predict_s(len(step.running), context, extra)
        probe_s = probe_s + self.drafting.predict_s(extra, extra, drafts.unread_tokens[row : row + 1])
        # The change of shape is paid twice: into the probe and out of it.
        cost_s = float(probe_s[0]) - bounds.plain_s + 2 * self.verify.each_change_s
        spent_s, lasts_s = cost_s, float((probe_s + self.verify.change_s(len(step.running) + extra))[0])
        if not ready:
            spent_s = self._read_s(drafts, row, 1)
            lasts_s = bounds.lasts_s + spent_s
        if cost_s > self._credit_s or lasts_s > bounds.longest_s:
            return nothing
        self._probe_s = max(0.0, spent_s)
        self._credit_s -= self._probe_s
        if ready:
            return Drafts({request_id: length}, gain, "probe")
        self._reads = (request_id,)
        return Drafts(NO_DRAFTS, 1.0, "reads", self._reads)

    def _to_probe(self, step: StepView, drafts: DraftView, hope: FloatColumn, bounds: Bounds) -> tuple[int | None, float]:
        """The row to be probed next, ``None`` if no probe could change anything, and the gain if all that is ready were right.

        hope: survivals, as if all guesses were right.
        """
        ready = np.flatnonzero(drafts.ready & (drafts.most_tokens > 0))
        if not len(ready):
            return self._next_to_read(step, drafts, hope, bounds, ON_GAIN, 1.0), 1.0
        count, gain = _best(self._choices(step, drafts, hope * drafts.ready[:, None]), len(step.running), bounds)
        if not count or gain < ON_GAIN:
            return None, gain
        return int(ready[np.argmin(self.survivals.tries(step.running.ids[ready]))]), gain


def _to_read(step: StepView, drafts: DraftView) -> IntColumn:
    """Rows whose text is not read and whose answers last until it could be, those with the least to read first."""
    unread = drafts.unread_tokens
    steps = -(-unread // np.maximum(1, drafts.behind_tokens))
    left = step.running.cap_tokens - step.running.emitted_tokens
    rows = np.flatnonzero(~drafts.ready & (drafts.most_tokens > 0) & (steps < left)).astype(np.int64)
    return np.asarray(rows[np.argsort(unread[rows], kind="stable")], dtype=np.int64)


def _best(choices: Choices, sequences: int, bounds: Bounds, share: float = 1.0) -> tuple[int, float]:
    """How many of the choices to take (0: none is better than none), and their rate over that without drafts.

    ``share``: what the draft tokens are worth, of what is expected of them.
    """
    allowed = choices.step_s <= bounds.longest_s
    if not len(choices.rows) or not allowed.any():
        return 0, 1.0
    tokens = sequences + share * (choices.tokens - sequences)
    rates = np.where(allowed, tokens / choices.seconds, 0.0)
    best = int(np.argmax(rates))
    gain = float(rates[best]) * bounds.plain_s / sequences
    return (best + 1, gain) if gain > 1.0 else (0, 1.0)


def _lengths(rows: IntColumn, ids: IntColumn) -> dict[int, int]:
    counts = np.bincount(rows, minlength=len(ids))
    return {request_id: count for request_id, count in zip(ids.tolist(), counts.tolist(), strict=True) if count}
