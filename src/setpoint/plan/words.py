"""Numbers of a plan as people read them."""

from __future__ import annotations

from setpoint.plan.economy import Option
from setpoint.plan.topology import Topology
from setpoint.report.format import UNKNOWN, number

SOURCES = {
    "measured": "measured on this hardware and engine",
    "transferred": "transferred from other hardware",
    "physics": "physics alone",
}
STEPS_GUESS = "the error of its steps is itself a guess"
DRAFTING_GUESS = "the error of what drafting takes is itself a guess"
GUESS = f"too little was measured of hardware like it under this engine, so {STEPS_GUESS}"


def usd_per_hour(value: float | None) -> str:
    """``$4.70/h``."""
    return UNKNOWN if value is None else f"${value:,.2f}/h"


def usd_per_million(value: float | None) -> str:
    """USD a million of requests or tokens: ``$125``."""
    return UNKNOWN if value is None else f"${1e6 * value:,.2f}" if value < 1e-4 else f"${1e6 * value:,.0f}"


def percent_change(change: float) -> str:
    """``22 %`` of an absolute change."""
    return f"{abs(change) * 100:.0f} %"


def devices(topology: Topology) -> str:
    """``4 h100-sxm`` in words."""
    return " + ".join(f"{pool.gpus} {pool.shape.hardware}" for pool in topology.pools)


def spare(distance: float) -> str:
    """How far the knee is: ``+35 %`` of the offered load."""
    return f"{distance * 100:+.0f} %"


def probability(value: float) -> str:
    """``96 %``; never 100 % or 0 %, which no calculation of this kind can say."""
    return "over 99 %" if value > 0.99 else "under 1 %" if value < 0.01 else f"{value * 100:.0f} %"


def unsure(guess: bool) -> str:
    """How a plan that holds as predicted and is not sure stands; ``guess``: its error of steps is one."""
    return "on an error that is a guess" if guess else "inside its error bar"


def error(relative_error: float, guess: bool) -> str:
    """``23%``, or ``45%, a guess``."""
    return f"{relative_error:.0%}, a guess" if guess else f"{relative_error:.0%}"


def guessed(option: Option) -> str:
    """Why nothing is sure of an option whose error is a guess."""
    if option.only_drafting:
        return f"too little was measured of its draft model on hardware like it, so {DRAFTING_GUESS}"
    return GUESS


def guess_briefly(option: Option) -> str:
    """That the error of an option is a guess, where it is clear what follows; empty where it is none."""
    if not option.guess:
        return ""
    return DRAFTING_GUESS if option.only_drafting else STEPS_GUESS


def batch(value: float) -> str:
    """Requests in a batch."""
    return number(value)
