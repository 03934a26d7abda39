"""Whether a simulated replica keeps up with its load: how many requests wait to be begun when its queue is shortest."""

from __future__ import annotations

import numpy as np

from setpoint.policy.configuration import BatchingMode
from setpoint.policy.views import FloatColumn
from setpoint.simulate.run import Simulated


def backlog_fraction(done: Simulated, place: int) -> float:
    """The fewest requests that waited at any moment of the second half of phase number ``place``, over those offered in it.

    Where a replica keeps up every queue is nearly empty at some moment, however arrivals clump. Where it does not, the queue
    never gets shorter than what piled up before. Who was refused or shed waits no more. A static batch takes in whoever is
    there when it begins, as many as it holds, be it over several steps, and nobody else until it ends: what counts is who is
    left over then.
    """
    load, ledger, span = done.load, done.ledger, done.load.phases[place]
    offered = int(np.count_nonzero(load.phase == place))
    if not offered:
        return 0.0
    entered_s = load.sent_s + done.overheads.receive_s
    begun_s = np.where(np.isnan(ledger.joined_s), ledger.ended_s, ledger.joined_s)
    left_s = np.sort(np.where(np.isnan(begun_s), np.inf, begun_s))
    together = done.configuration.max_running if done.configuration.mode is BatchingMode.STATIC else 0
    moments = _batch_starts_s(done) if together else left_s
    moments = moments[(moments >= (span.start_s + span.end_s) / 2) & (moments < span.end_s)]
    if not together:
        moments = np.append(moments, span.end_s)
    elif not len(moments):
        return 0.0
    begun = np.searchsorted(left_s, moments, side="left" if together else "right")
    waiting = np.searchsorted(entered_s, moments, side="right") - begun
    return max(0, int(waiting.min()) - together) / offered


def _batch_starts_s(done: Simulated) -> FloatColumn:
    """When static batches began: whenever a request joined while none was running."""
    joined = ~np.isnan(done.ledger.joined_s)
    begun_s = np.sort(done.ledger.joined_s[joined])
    last_s = done.ledger.last_s[joined]
    ended_s = np.sort(np.where(np.isnan(last_s), np.inf, last_s))
    alone = np.searchsorted(begun_s, begun_s, side="left") == np.searchsorted(ended_s, begun_s, side="right")
    return np.asarray(np.unique(begun_s[alone]), dtype=np.float64)
