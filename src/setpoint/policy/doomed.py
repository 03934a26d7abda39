"""Doomed-drop: waiting requests that cannot make their deadline any more end now, not after they have cost others time.

Rule: a request that would be late alone on the machine is dropped at once. Then the queue is played forward in order
(``policy/forecast.py``): a request whose first token would come after the latest useful moment (deadline, less the tokens an
answer due as a whole still owes) is dropped, and those behind it move up.
Classes are served in order, so no request is ever dropped for the sake of one of a lower class. The wait for its turn counts
with ``HOPE`` of its forecast only, the benefit of the doubt, for a request that waits costs nothing yet; its own work counts
in full. A request that has emitted tokens (it was preempted) is being read: it is late, not doomed. Where nothing runs and
all who wait are forecast to be late, the most urgent whose moment has not passed is served all the same: it stands in nobody's
way, and a step-time model that believes the machine too slow for anybody would otherwise never see a step again.

When it is wrong: a forecast made in a slow moment loses a request that could have been served.
"""

from __future__ import annotations

from math import inf

import numpy as np

from setpoint.policy.backlog import MOST_AHEAD, decoding_of, prompts_of, under_way
from setpoint.policy.decisions import Reason
from setpoint.policy.forecast import Machine, play
from setpoint.policy.lengths import OutputLengths
from setpoint.policy.views import FloatColumn, IntColumn, StepView

HOPE = 0.8
SHORT = 0.1


def latest_first_s(step: StepView, machine: Machine, lengths: OutputLengths) -> FloatColumn:
    """Seconds from now by which each waiting request has to have its first token; ``inf`` where nothing dooms it."""
    waiting = step.waiting
    latest = waiting.deadline_s - step.now_s
    if not np.isfinite(latest).any():
        return np.full(len(waiting), inf)
    several = waiting.tokens_to_deadline > 1
    if several.any():
        decodes = int((step.running.prefill_tokens == 0).sum())
        owed = np.where(several, lengths.remaining(waiting, SHORT), 1.0)
        latest -= (owed - 1) * machine.step_s(decodes + 1, 0)
    latest[waiting.emitted_tokens > 0] = inf
    return np.asarray(latest, dtype=np.float64)


def doomed(step: StepView, order: IntColumn, machine: Machine, lengths: OutputLengths, *, max_running: int) -> IntColumn:
    """Indices of waiting requests to shed; ``order``: the waiting by urgency."""
    urgent, latest = order, latest_first_s(step, machine, lengths)
    if not np.isfinite(latest).any():
        return np.zeros(0, dtype=np.int64)
    alone_s = machine.base_s + machine.token_s * step.waiting.prefill_tokens
    lost = order[(alone_s > latest)[order]]
    order = order[(alone_s <= latest)[order]]
    ahead = prompts_of(step.running, under_way(step.running), lengths, joined=True)
    order = order[:MOST_AHEAD]
    queue = prompts_of(step.waiting, order, lengths, joined=False, due_s=latest)
    decoding = decoding_of(step.running, lengths, step.kv, max_running=max_running)
    horizon_s = max(0.0, float(np.max(latest[np.isfinite(latest)])))
    played = play(machine, decoding, [*ahead, *queue], horizon_s=horizon_s, hope=HOPE)
    behind = np.array([index - len(ahead) for index in played.doomed], dtype=np.int64)
    gone = np.concatenate((lost, order[behind]))
    if len(gone) == len(step.waiting) and not len(step.running):
        hopeful = urgent[step.waiting.deadline_s[urgent] > step.now_s][:1]
        return gone[gone != hopeful] if len(hopeful) else gone
    return gone


def doom_reasons(step: StepView, lost: IntColumn, machine: Machine, lengths: OutputLengths) -> dict[int, Reason]:
    """Why each of the waiting requests ``lost`` was dropped, by id: late even alone, or behind those who are ahead of it."""
    if not len(lost):
        return {}
    latest = latest_first_s(step, machine, lengths)
    alone_s = machine.base_s + machine.token_s * step.waiting.prefill_tokens
    waited_s = step.now_s - step.waiting.arrived_s
    reasons = {}
    for place in lost.tolist():
        code = "doomed_alone" if alone_s[place] > latest[place] else "doomed_behind"
        operands = {"left_s": float(latest[place]), "own_s": float(alone_s[place]), "waited_s": float(waited_s[place])}
        reasons[int(step.waiting.ids[place])] = Reason(code, operands | {"waiting": len(step.waiting)})
    return reasons
