"""What each limit costs (its shadow price), and what changes with the load: read off the load curves of the best options.

A limit is taken looser or tighter, every option says how many replicas it then needs, and the cheapest of all is compared with
the cheapest now. ``at_scale`` compares USD a request where replicas need not be whole, which shows a price even where one
replica is enough for both.
When it is wrong: a policy that uses the limit itself (``setpoint``) would decide differently under another; the curves were
simulated under the present one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from setpoint.plan.economy import Option, most_replicas, replicas_needed, usd_at_scale
from setpoint.plan.limits import FRACTIONS, Limit

LOOSER = (1.5, 2.0, 3.0)
TIGHTER = (0.75, 0.5)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a plan may use at most."""

    max_gpus: int | None = None
    max_usd_per_h: float | None = None


@dataclass(frozen=True, slots=True)
class Cheapest:
    """The cheapest way to carry a load within limits."""

    option: Option
    replicas: int
    usd_per_h: float


@dataclass(frozen=True, slots=True)
class ShadowPrice:
    """What moving one limit from ``limit`` to ``moved_to`` changes. Costs are USD an hour; ``None``: nothing holds.

    change: relative change of the cost at this load; at_scale: of USD a request where replicas need not be whole.
    """

    limit: Limit
    moved_to: float
    usd_per_h: float | None
    moved_usd_per_h: float | None
    change: float | None
    at_scale: float | None
    moved_name: str | None


def cheapest(
    options: Sequence[Option], load_rps: float, bounds: Bounds, factors: Sequence[float] | None = None
) -> Cheapest | None:
    """The cheapest option with its replicas, prices unknown left out; ``None`` if nothing holds."""
    found: list[Cheapest] = []
    for option in options:
        most = most_replicas(option.shape, bounds.max_gpus, bounds.max_usd_per_h)
        replicas = replicas_needed(option.curve, load_rps, most=most, factors=factors)
        usd_per_h = option.topology(replicas).usd_per_h if replicas is not None else None
        if replicas is not None and usd_per_h is not None:
            found.append(Cheapest(option, replicas, usd_per_h))
    return min(found, key=lambda each: each.usd_per_h, default=None)


def shadow_prices(options: Sequence[Option], limits: Sequence[Limit], load_rps: float, bounds: Bounds) -> list[ShadowPrice]:
    """For each declared limit on a latency or a spread: what each factor of ``LOOSER`` and ``TIGHTER`` changes."""
    now = cheapest(options, load_rps, bounds)
    scale = _least_at_scale(options)
    prices: list[ShadowPrice] = []
    for index, limit in enumerate(limits):
        if limit.metric in FRACTIONS or limit.implied:
            continue
        for factor in (*TIGHTER[::-1], *LOOSER):
            factors = [factor if place == index else 1.0 for place in range(len(limits))]
            moved, moved_scale = cheapest(options, load_rps, bounds, factors), _least_at_scale(options, factors)
            prices.append(
                ShadowPrice(
                    limit=limit,
                    moved_to=limit.limit * factor,
                    usd_per_h=now.usd_per_h if now else None,
                    moved_usd_per_h=moved.usd_per_h if moved else None,
                    change=moved.usd_per_h / now.usd_per_h - 1.0 if moved and now and now.usd_per_h else None,
                    at_scale=moved_scale / scale - 1.0 if scale and moved_scale else None,
                    moved_name=moved.option.topology(moved.replicas).name if moved else None,
                )
            )
    return prices


def _least_at_scale(options: Sequence[Option], factors: Sequence[float] | None = None) -> float | None:
    found = [usd for option in options if (usd := usd_at_scale(option, factors)) is not None]
    return min(found, default=None)
