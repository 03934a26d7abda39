"""A machine as one measured run of the embedded engine showed it: step times, the time around them, and how both vary.

From the run's tables (``record.columns.STEP_COLUMNS``, ``REQUEST_COLUMNS`` and so on), nothing else:

- the step: the formula of ``policy/step_time.py`` by non-negative least absolute relative error over all steps, times the
  median error of steps of as many tokens (powers of two; pulled to 1 as by ``TIER_PRIOR`` steps without error);
- between two steps of a busy loop, drafting left out: a base and a part for each request in the step;
- from the send to the engine: the median of those that found it idle, else the delay that comes nearest to how long requests
  waited to be seen (the ``CENTRAL`` shortest waits);
- from the end of a step to the client: the median over first tokens;
- noise: each step's error and that of the time after it, drawn in runs, and of steps with a prompt theirs (``timing.Noise``).

When it is wrong: on shared cores the noise of another hour is another; a load unlike the run's meets shapes of steps that were
not in it, and the model extrapolates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import StepTimeModel, non_negative_least_squares
from setpoint.policy.views import FloatColumn
from setpoint.simulate.timing import Noise, Overheads

ROUNDS = 10
LEAST_ERROR = 0.03
RIDGE = 1e-6
TIER_PRIOR = 8.0
BUSY_GAP_S = 0.25
LEAST_STEPS = 50
LEAST_IDLE = 5
CENTRAL = 0.9
MOST_FACTOR = 30.0
RECEIVE_GRID_S = np.arange(0.0, 0.05, 0.0005)


class TooFewSteps(ValueError):
    """A run cannot calibrate anything: it has hardly any steps."""


@dataclass(frozen=True)
class MeasuredTimer:
    """A line in tokens, sequences, KV read and products, with a factor for each power of two of tokens. See the module."""

    coefficients: tuple[float, float, float, float, float]
    tiers: dict[int, float]
    relative_error: float
    source: str = "measured"
    guess: bool = False

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer``."""
        base_s, token_s, sequence_s, read_s, product_s = self.coefficients
        factor = self.tiers.get(tokens.bit_length(), 1.0)
        return factor * (base_s + token_s * tokens + sequence_s * sequences), factor * read_s, factor * product_s


@dataclass(frozen=True)
class CalibratedMachine:
    """What ``simulate.run.SimulatedSystem`` needs of a machine; ``works`` and ``seconds`` are the steps it comes from."""

    timer: MeasuredTimer
    overheads: Overheads
    noise: Noise
    works: tuple[StepWork, ...]
    seconds: FloatColumn

    def model(self) -> StepTimeModel:
        """What the policies of an engine have learned that made these steps; it goes on learning."""
        return learned_model(self.works, self.seconds)


def learned_model(works: Sequence[StepWork], seconds: FloatColumn) -> StepTimeModel:
    """What an engine that made these steps knows of the machine; it goes on learning. ``seconds`` has shape (steps,)."""
    model = StepTimeModel()
    for work, took_s in zip(works, seconds.tolist(), strict=True):
        model.observe(work, took_s)
    return model


def calibrate(steps: pa.Table, requests: pa.Table, decisions: pa.Table | None = None) -> CalibratedMachine:
    """The machine that the run was measured on. Raises ``TooFewSteps``."""
    if steps.num_rows < LEAST_STEPS:
        raise TooFewSteps(f"the run has {steps.num_rows} steps; at least {LEAST_STEPS} are needed to learn a machine from")
    column = {name: _numbers(steps[name]) for name in steps.column_names if name not in ("candidate", "reason")}
    tokens = column["prefill_tokens"] + column["decode_tokens"]
    took_s = np.maximum(column["end_s"] - column["start_s"], 1e-9)
    changed = np.concatenate(([True], tokens[1:] != tokens[:-1]))
    parts = (np.ones(len(tokens)), tokens, column["sequences"], column["kv_tokens_read"], column["attention_products"], changed)
    design = np.stack(parts, axis=1).astype(np.float64)
    fitted = _fit(design, took_s)
    base, change_s = tuple(fitted[:5].tolist()), float(fitted[5])
    tiers, factor = _tiers(tokens, took_s, design[:, :5] @ fitted[:5], change_s * changed)
    predicted = factor * (design[:, :5] @ fitted[:5]) + change_s * changed
    errors = np.minimum(took_s / predicted, MOST_FACTOR)
    between, between_factors = _between(column)
    first_s, sent_s = _numbers(requests["first_token_s"]), _numbers(requests["intended_s"])
    deliver_s = _deliver_s(column["end_s"], first_s, _numbers(requests["ended_s"]))
    overheads = Overheads(
        between_s=between[0],
        between_sequence_s=between[1],
        change_s=change_s,
        receive_s=_receive_s(column, requests, sent_s, decisions),
        deliver_s=deliver_s,
        refuse_s=deliver_s,
    )
    works = tuple(
        StepWork(int(t), int(s), int(k), int(p))
        for t, s, k, p in zip(tokens, column["sequences"], column["kv_tokens_read"], column["attention_products"], strict=True)
    )
    timer = MeasuredTimer(base, tiers, float(np.std(np.log(errors))))
    prompts = column["prefill_tokens"] > 0
    noise = Noise(np.where(prompts, _filled(errors, ~prompts), errors), between_factors, prompts=errors[prompts])
    return CalibratedMachine(timer, overheads, noise, works, took_s)


def _filled(errors: FloatColumn, known: npt.NDArray[np.bool_]) -> FloatColumn:
    """For each step the error of the last known one before it (of the first, before any)."""
    place = np.maximum.accumulate(np.where(known, np.arange(len(errors)), -1))
    first = int(np.argmax(known))
    return np.asarray(errors[np.where(place < 0, first, place)], dtype=np.float64)


def _fit(design: FloatColumn, took_s: FloatColumn) -> FloatColumn:
    """Non-negative coefficients of least absolute relative error, by re-weighted least squares. Shapes (n, k), (n,), (k,)."""
    relative = design / took_s[:, None]
    size = np.sqrt((relative**2).mean(axis=0))
    size[size == 0] = 1.0
    scaled, weights = relative / size, np.ones(len(took_s))
    fitted = np.zeros(design.shape[1])
    for _ in range(ROUNDS):
        gram = (scaled * weights[:, None]).T @ scaled / weights.sum() + RIDGE * np.eye(design.shape[1])
        fitted = non_negative_least_squares(gram, scaled.T @ weights / weights.sum())
        weights = 1.0 / np.maximum(np.abs(scaled @ fitted - 1.0), LEAST_ERROR)
    return np.asarray(fitted / size, dtype=np.float64)


def _tiers(
    tokens: FloatColumn, took_s: FloatColumn, line_s: FloatColumn, change_s: FloatColumn
) -> tuple[dict[int, float], FloatColumn]:
    """The factor of each power of two of tokens, and that of each step."""
    place = np.frexp(tokens)[1]
    tiers: dict[int, float] = {}
    factor = np.ones(len(tokens))
    for tier in np.unique(place).tolist():
        here = place == tier
        ratio = float(np.median(np.maximum(took_s - change_s, 0.0)[here] / line_s[here]))
        share = here.sum() / (here.sum() + TIER_PRIOR)
        tiers[int(tier)] = 1.0 + float(share) * (ratio - 1.0)
        factor[here] = tiers[int(tier)]
    return tiers, factor


def _between(column: dict[str, FloatColumn]) -> tuple[tuple[float, float], FloatColumn]:
    """Base and part a request of the time after a step, and how each step's differed from it (1 where the loop was idle).

    Drafting before the next step is not in it: a simulation of what drafts adds its own.
    """
    gaps_s = column["start_s"][1:] - column["end_s"][:-1]
    if "draft_s" in column:
        gaps_s = gaps_s - np.nan_to_num(column["draft_s"][1:])  # null in the tables of earlier versions
    busy = (column["running"][:-1] > 0) & (gaps_s > 0) & (gaps_s < BUSY_GAP_S)
    factors = np.ones(len(column["end_s"]))
    if busy.sum() < LEAST_STEPS // 2:
        return (float(np.median(gaps_s[busy])) if busy.any() else 0.0, 0.0), factors
    design = np.stack((np.ones(int(busy.sum())), column["sequences"][:-1][busy]), axis=1)
    base_s, each_s = _fit(design, gaps_s[busy]).tolist()
    factors[:-1][busy] = np.minimum(gaps_s[busy] / (design @ np.array([base_s, each_s])), MOST_FACTOR)
    return (base_s, each_s), factors


def _deliver_s(ends_s: FloatColumn, first_s: FloatColumn, ended_s: FloatColumn) -> float:
    """The median from the end of a step to the arrival of a first token, or where nobody streams of a whole answer."""
    arrived_s = first_s[~np.isnan(first_s)]
    if len(arrived_s) < LEAST_STEPS // 5:
        arrived_s = ended_s[~np.isnan(ended_s)]
    place = np.searchsorted(ends_s, arrived_s) - 1
    known = place >= 0
    return float(np.median(arrived_s[known] - ends_s[place[known]])) if known.any() else 0.0


def _receive_s(column: dict[str, FloatColumn], requests: pa.Table, sent_s: FloatColumn, decisions: pa.Table | None) -> float:
    """From the intended send to where the engine may see a request (see the module)."""
    starts_s, ends_s = column["start_s"], column["end_s"]
    if decisions is None:
        return 0.0
    admitted = decisions.filter(pc.is_in(decisions["kind"], pa.array(["admit", "reject"])))
    seen = dict(zip(admitted["request_id"].to_pylist(), admitted["time_s"].to_pylist(), strict=True))
    pairs = [
        (at_s, seen[name])
        for name, at_s in zip(requests["request_id"].to_pylist(), sent_s.tolist(), strict=True)
        if name in seen
    ]
    if not pairs:
        return 0.0
    sent, at = np.array(pairs).T
    before = np.searchsorted(starts_s, sent) - 1
    idle = (before < 0) | ((ends_s[before] < sent) & (column["running"][before] == 0))
    if idle.sum() >= LEAST_IDLE:
        return float(np.median((at - sent)[idle]))
    waits_s, most = np.sort(at - sent), len(starts_s) - 1
    apart = []
    for delay_s in RECEIVE_GRID_S:
        told_s = np.sort(starts_s[np.minimum(np.searchsorted(starts_s, sent + delay_s), most)] - sent)
        apart.append(float(np.abs(told_s - waits_s)[: max(1, int(CENTRAL * len(at)))].sum()))
    return float(RECEIVE_GRID_S[int(np.argmin(apart))])


def _numbers(column: pa.ChunkedArray) -> FloatColumn:
    return np.asarray(pc.fill_null(pc.cast(column, pa.float64()), np.nan).to_numpy(), dtype=np.float64)
