"""Which replica a request goes to."""

from __future__ import annotations

from enum import StrEnum

from setpoint.simulate.replica import Replica


class Routing(StrEnum):
    """In turn, or to the one with the fewest requests under way (the first of them; ties in turn)."""

    ROUND_ROBIN = "round-robin"
    LEAST_OUTSTANDING = "least-outstanding"


class Router:
    """Chooses among ``replicas``; brings those it has to look at up to the moment of the choice."""

    def __init__(self, routing: Routing, replicas: list[Replica]) -> None:
        self._routing = routing
        self._replicas = replicas
        self._turn = -1

    def choose(self, now_s: float) -> tuple[int, Replica]:
        """The replica for a request that arrives at ``now_s``, and its number."""
        replicas = self._replicas
        self._turn = (self._turn + 1) % len(replicas)
        chosen = self._turn
        if self._routing is Routing.LEAST_OUTSTANDING and len(replicas) > 1:
            for replica in replicas:
                replica.advance(now_s)
            in_turn = (*range(self._turn, len(replicas)), *range(self._turn))
            chosen = min(in_turn, key=lambda number: replicas[number].outstanding(now_s))
        else:
            replicas[chosen].advance(now_s)
        return chosen, replicas[chosen]
