"""Admission by forecast: a request may wait only if it will make its limits behind everybody who is ahead of it.

Rule (DESIGN.md section 4): admit iff the forecast first token (``policy/forecast.py``: uncached tokens ahead, places, KV)
and, for an answer due as a whole, the forecast end come within the limit less the learned margin, and a step with one more
answer stays within everybody's ITL. Requests without limits are bounded by the queue alone, of which they may fill half
beside those that have a deadline, as batch requests may. An idle engine admits whatever it can serve.

So that overload does not filter by length, the wait a request may find is judged with the work of a long one of late
(``RESERVE_QUANTILE``), at most a learned share of its limit (``policy/length_share.py``): a short prompt does not slip in where
a long one could not. Where a long one would be late with nobody ahead of it, no room helps it and none is kept.

While an answer is under way, the number of others moves from what it is now towards its mean of late: half of either is
taken, with the prompts that come in while so many answers end.

When it is wrong: more urgent arrivals are not foreseen, and the margin needs some tens of misses to learn so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

import numpy as np

from setpoint.policy.backlog import (
    MOST_AHEAD,
    StepLimits,
    decoding_of,
    machine_of,
    pace_s,
    prompts_of,
    tightest_gap_s,
    under_way,
)
from setpoint.policy.deadlines import gap_limit_s, next_deadline_s
from setpoint.policy.forecast import Decoding, Machine, Prompt, play
from setpoint.policy.lengths import LONG, TYPICAL, OutputLengths
from setpoint.policy.margin import LearnedMargin
from setpoint.policy.order import Serving, most_urgent, next_aged, urgency_keys
from setpoint.policy.slack import MARGIN, least_step_s
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.tenant_room import Others
from setpoint.policy.tenants import TenantCounters
from setpoint.policy.unbound import beyond_room, limited_count
from setpoint.policy.views import Columns, RequestLimits, RequestView, SystemView, joined_columns, taken

RESERVE_QUANTILE = 0.9
RESERVE_SAMPLES = 128
ITL_MARGIN = 0.15
MEAN_RATE = 0.02


@dataclass(frozen=True, slots=True)
class OthersWait:
    """Seconds to the first token of another tenant's prompt with this request let in, what it may be, and until it could be."""

    first_s: float
    most_s: float
    frees_s: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What awaits a request: seconds from now to its first token and its end (``inf`` unknown), and the longest step.

    reserve_first_s, reserve_end_s: what a long request would need beyond this one; 0 where ``room_helps`` not: one with nobody
    ahead would not make these limits either. gap_s: a step with this answer more and the least prefill. allowed_gap_s: what
    everybody's limits allow. work_s: machine seconds the request adds. others_wait: of other tenants, with it let in.
    """

    first_s: float
    end_s: float
    reserve_first_s: float
    reserve_end_s: float
    room_helps: bool
    gap_s: float
    allowed_gap_s: float
    gap_frees_s: float
    work_s: float
    others_wait: OthersWait | None


class Outlooks:
    """Forecasts for requests that ask for admission; remembers how much work requests of late brought."""

    def __init__(
        self,
        limits: StepLimits,
        model: StepTimeModel,
        lengths: OutputLengths,
        tenants: TenantCounters,
        step_margin: LearnedMargin,
    ) -> None:
        self._limits = limits
        self._model = model
        self._lengths = lengths
        self._tenants = tenants
        self._step_margin = step_margin
        self._sizes: deque[tuple[int, int]] = deque(maxlen=RESERVE_SAMPLES)
        self._sum_tokens = self._sum_output = 0
        self._reserve = (0, 0)
        self._fresh = 0
        self._mean_decodes = 0.0

    def resize(self, limits: StepLimits) -> None:
        """Other bounds of a step."""
        self._limits = limits

    def of(
        self,
        request: RequestView,
        system: SystemView,
        promised: list[Prompt],
        *,
        coming: int = 0,
        others: Others | None = None,
        aged: bool = False,
    ) -> Outlook:
        """Play the queue ahead of ``request`` and the ``promised`` prompts forward to its first token, that of its last answer.

        coming: answers that were let in and no column shows yet. others: tenants to whom its own leaves room. aged: as in
        ``Serving``.
        """
        running, waiting = system.running_columns, system.waiting_columns
        own = own_row(request)
        output = self._lengths.expected(request.request_class, request.max_output_tokens, TYPICAL)
        long_output = self._lengths.expected(request.request_class, request.max_output_tokens, LONG)
        gap_s = tightest_gap_s(running, own, waiting, least_s=least_step_s(self._model))
        allowed_s = min(gap_s, pace_s(running, self._lengths, system.now_s, self._model))
        every = joined_columns(waiting, own)
        margin = self._step_margin.share
        machine = machine_of(self._model, self._limits, running, every, allowed_s=allowed_s, margin=margin)
        decoding = decoding_of(running, self._lengths, system.kv, max_running=self._limits.max_running)
        ahead = self._ahead(every, system, machine, Serving(0, aged), answers=max(1, request.answers))
        need = Prompt(request.uncached_tokens, output, request.uncached_tokens + output)
        with_it = [Prompt(1, output, output)] * max(0, request.answers - 1)  # Their prompt is cached by then.
        played = play(machine, decoding, [*ahead, *promised, need, *with_it])
        first_s = played.first_s[-1]
        decodes = played.decodes + coming
        beside = max(1.0, (decodes + min(float(decodes), self._mean_decodes)) / 2)
        step_s = machine.step_s(beside, self._background(machine, beside))
        if request.limits != RequestLimits():  # what has no limits says nothing about the size of those that do
            self._remember_size(request.uncached_tokens, long_output)
        reserve_tokens, reserve_output = self._reserve
        budget = machine.budget(decodes)
        token_s = machine.step_s(decodes, budget) / budget
        more_s = max(0, reserve_tokens - request.uncached_tokens) * token_s
        more_output_s = max(0, reserve_output - long_output) * step_s
        first_alone_s = max(reserve_tokens, request.uncached_tokens) * token_s
        end_alone_s = first_alone_s + max(reserve_output, long_output) * step_s
        helps = _within(request, first_s=first_alone_s, end_s=end_alone_s)
        kept_gap_s = gap_s * (1 - ITL_MARGIN - (margin - MARGIN))
        return Outlook(
            first_s=first_s,
            end_s=first_s + (long_output - 1) * step_s,
            reserve_first_s=more_s if helps else 0.0,
            reserve_end_s=more_s + more_output_s if helps else 0.0,
            room_helps=helps,
            gap_s=machine.step_s(decodes, machine.floor_tokens),
            allowed_gap_s=kept_gap_s,
            gap_frees_s=_frees_s(machine, decoding, kept_gap_s, coming + max(1, request.answers)),
            work_s=request.uncached_tokens * machine.token_s + max(1, request.answers) * output * machine.sequence_s,
            others_wait=None if others is None else _others_wait(others, machine, decoding, decodes, gap_s),
        )

    def _ahead(self, every: Columns, system: SystemView, machine: Machine, serving: Serving, *, answers: int) -> list[Prompt]:
        """The prompts before the last of ``every``: those that wait, and itself, with so many ``answers``."""
        running, waiting = system.running_columns, system.waiting_columns
        if not len(running) and not len(waiting):
            tokens = system.waiting_uncached_tokens + system.running_prefill_tokens
            return [Prompt(tokens, 1.0, joined=True)] if tokens else []
        ahead = prompts_of(running, under_way(running), self._lengths, joined=True)
        if len(waiting):
            first = next_aged(every, serving, now_s=system.now_s)
            keys = urgency_keys(every, now_s=system.now_s, token_s=machine.token_s, tenants=self._tenants, first=first)
            order = most_urgent(keys)
            before = order[: int(np.flatnonzero(order == len(waiting))[0])]
            beside = len(running) + limited_count(waiting) + answers
            before = before[~beyond_room(taken(every, before), machine, beside=beside)]
            ahead += prompts_of(every, before[:MOST_AHEAD], self._lengths, joined=False)
            rest = int(every.prefill_tokens[before[MOST_AHEAD:]].sum())
            if rest:
                ahead.append(Prompt(rest, 1.0, joined=True))
        return ahead

    def stepped(self, sequences: int) -> None:
        """A step had so many requests in it."""
        self._mean_decodes += MEAN_RATE * (sequences - self._mean_decodes)

    def _background(self, machine: Machine, decodes: float) -> float:
        """Prompt tokens that later arrivals will put beside this answer's decodes, per step."""
        if self._fresh < RESERVE_SAMPLES // 4:
            return 0.0
        count = len(self._sizes)
        # In balance, prompts come in at the rate at which answers end: decodes / mean output a step.
        each = decodes * (self._sum_tokens / count) / max(1.0, self._sum_output / count)
        return min(float(machine.budget(int(decodes))), each)

    def _remember_size(self, tokens: int, output: int) -> None:
        if len(self._sizes) == RESERVE_SAMPLES:
            old_tokens, old_output = self._sizes[0]
            self._sum_tokens -= old_tokens
            self._sum_output -= old_output
        self._sizes.append((tokens, output))
        self._sum_tokens += tokens
        self._sum_output += output
        self._fresh += 1
        if self._fresh % 16 == 1:
            sizes = np.array(self._sizes)
            large = np.quantile(sizes, RESERVE_QUANTILE, axis=0, method="lower")
            self._reserve = (int(large[0]), int(large[1]))


def own_row(request: RequestView) -> Columns:
    """The request as columns of one row, as if it waited already."""
    due_s = next_deadline_s(
        request.limits,
        streaming=request.streaming,
        sent_s=request.sent_s,
        first_token_s=None,
        last_token_s=None,
        emitted_tokens=0,
    )

    def whole(value: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([value], dtype=np.int64)

    return Columns(
        ids=whole(request.request_id),
        arrived_s=np.array([request.arrived_s]),
        deadline_s=np.array([due_s]),
        context_tokens=whole(request.prompt_tokens - request.uncached_tokens),
        prefill_tokens=whole(request.uncached_tokens),
        emitted_tokens=whole(0),
        tokens_to_deadline=whole(1 if request.streaming else request.max_output_tokens),
        request_class=whole(request.request_class),
        cap_tokens=whole(request.max_output_tokens),
        gap_s=np.array([gap_limit_s(request.limits, streaming=request.streaming)]),
        tenant=whole(request.tenant),
    )


def _within(request: RequestView, *, first_s: float, end_s: float) -> bool:
    """Whether such a first token and end make the limits of ``request``."""
    limits = request.limits
    in_time = not request.streaming or limits.ttft_s is None or first_s <= limits.ttft_s
    return in_time and (limits.e2e_s is None or end_s <= limits.e2e_s)


def _others_wait(others: Others, machine: Machine, decoding: Decoding, decodes: int, gap_s: float) -> OthersWait:
    """What ``others`` would wait beside ``decodes`` answers, and when so few are left that they need not wait so long.

    gap_s: the longest step that everybody's gaps allow.
    """
    most_s = others.most_s(machine, longest_s=gap_s)
    if most_s == inf:
        return OthersWait(0.0, inf, 0.0)
    fits = decodes
    while fits > 1 and others.beside_s(machine, fits) > most_s:
        fits -= 1
    ends = sorted(decoding.tokens_left)
    frees_s = ends[min(decodes - fits, len(ends)) - 1] * machine.step_s(decodes, 0) if decodes > fits and ends else 0.0
    # One answer at a time is always let in: nobody is kept out for good by who else might come.
    first_s = others.beside_s(machine, decodes) if decodes > 1 else 0.0
    return OthersWait(first_s, most_s, frees_s)


def _frees_s(machine: Machine, decoding: Decoding, allowed_s: float, more: int) -> float:
    """Seconds until so many answers have ended that ``more`` of them keep the step within ``allowed_s``."""
    if allowed_s == inf or not decoding.tokens_left:
        return 0.0
    spare_s = allowed_s - machine.step_s(0, machine.floor_tokens)
    most = int(max(0.0, spare_s / max(machine.sequence_s, 1e-9)))
    too_many = len(decoding.tokens_left) + more - max(1, most)
    if too_many <= 0:
        return 0.0
    ends = sorted(decoding.tokens_left)[min(too_many, len(decoding.tokens_left)) - 1]
    return ends * allowed_s
