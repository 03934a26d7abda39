"""One engine on its own virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from setpoint.engine.simulated import VirtualClock
from setpoint.simulate.sequences import SimulatedSequence
from setpoint.simulate.stretch_loop import StretchLoop


class Replica:
    """Drives a ``StretchLoop`` as the engine's thread drives its own: what arrived meanwhile is seen between two steps."""

    def __init__(self, loop: StretchLoop, clock: VirtualClock) -> None:
        self.loop = loop
        self.clock = clock

    def advance(self, until_s: float, enough: Callable[[], bool] | None = None) -> None:
        """Step until the loop looks up at ``until_s`` or after it; an idle one waits until then. ``inf``: until all is done.

        enough: asked before every stretch whether to stop earlier.
        """
        loop, clock = self.loop, self.clock
        while clock() < until_s and not (enough is not None and enough()):
            if loop.begin_step():
                clock.advance_to(loop.finish_stretch(until_s))
                loop.take_notices()
                continue
            loop.take_notices()
            wake_s = loop.wake_at_s
            if wake_s is not None and clock() < wake_s < until_s:
                clock.advance_to(wake_s)
            elif until_s == inf:
                return
            else:
                clock.advance_to(until_s)

    def offer(self, sequence: SimulatedSequence) -> None:
        """A request that is there now. Its arrival is the clock's time."""
        sequence.arrived_s = self.clock()
        self.loop.offer(sequence)

    def outstanding(self, now_s: float) -> int:
        """Requests under way at ``now_s``, which the clock has reached: those whose end came in a step after it included."""
        loop = self.loop
        just_ended = loop.ended_last if loop.last_end_s > now_s else 0
        return len(loop.running) + len(loop.waiting) + just_ended
