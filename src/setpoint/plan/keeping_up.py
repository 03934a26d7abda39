"""Whether a simulated replica keeps up with its load: how many requests wait to be begun when its queue is shortest."""

from __future__ import annotations

import numpy as np

from setpoint.policy.configuration import BatchingMode
from setpoint.simulate.run import Simulated


def backlog_fraction(done: Simulated, place: int) -> float:
    """The fewest requests that waited at any moment of the second half of phase number ``place``, over those offered in it.

    Where a replica keeps up every queue is nearly empty at some moment, however arrivals clump. Where it does not, the queue
    never gets shorter than what piled up before. Who was refused or shed waits no more. As many as are in a static batch wait
    for each other by design, and are no backlog: its members may be begun over several steps, and nobody else meanwhile.
    """
    load, ledger, span = done.load, done.ledger, done.load.phases[place]
    offered = int(np.count_nonzero(load.phase == place))
    if not offered:
        return 0.0
    entered_s = load.sent_s + done.overheads.receive_s
    begun_s = np.where(np.isnan(ledger.joined_s), ledger.ended_s, ledger.joined_s)
    left_s = np.sort(np.where(np.isnan(begun_s), np.inf, begun_s))
    within = (left_s >= (span.start_s + span.end_s) / 2) & (left_s < span.end_s)
    moments = np.append(left_s[within], span.end_s)
    waiting = np.searchsorted(entered_s, moments, side="right") - np.searchsorted(left_s, moments, side="right")
    together = done.configuration.max_running if done.configuration.mode is BatchingMode.STATIC else 0
    return max(0, int(waiting.min()) - together) / offered
