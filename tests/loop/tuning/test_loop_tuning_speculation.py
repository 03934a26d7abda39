"""Candidates with drafts: where the requirement allows them, and only where it says how often they are right."""

from __future__ import annotations

from tuning_world import NEEDED, SCHEDULE, TRUE, requirement

from setpoint.loop.forecast.drafting import drafting_of
from setpoint.loop.forecast.forecast import forecast
from setpoint.loop.forecast.machine import machine_of_timer
from setpoint.loop.forecast.worlds import central_worlds
from setpoint.loop.tuning.space import space_for
from setpoint.policy.configuration import SpeculationMode

ALLOWED = NEEDED + "speculation: {drafters: [prompt-lookup], acceptance: [0.9, 0.8, 0.7]}\n"
UNSTATED = NEEDED + "speculation: {drafters: [prompt-lookup]}\n"


def test_drafts_are_candidates_where_the_requirement_says_how_often_they_are_right() -> None:
    plain, allowed = space_for(requirement()), space_for(requirement(ALLOWED))
    added = {name: config for name, config in allowed.items() if name not in plain}
    assert set(plain) < set(allowed)
    assert "setpoint-16-lookup" in added
    assert all(config.speculation is SpeculationMode.PROMPT_LOOKUP for config in added.values())
    assert all(config.max_draft_tokens == 3 for config in added.values()), "nothing is known beyond the third token"
    assert space_for(requirement(UNSTATED)) == plain


def test_a_forecast_knows_what_guesses_are_worth() -> None:
    """Alone on a machine whose steps cost hardly more with three tokens more, nine in ten of them right."""
    needed = requirement(ALLOWED.replace("5/s", "1/s"))
    space = space_for(needed)
    machine = machine_of_timer(TRUE, "a line", 0.05)
    plain, guessing = (
        forecast(needed, space[name], machine, schedule=SCHEDULE, worlds=central_worlds(0)).predicted.sustained.e2e_s.p50
        for name in ("setpoint-16", "setpoint-16-lookup")
    )
    assert plain is not None
    assert guessing is not None
    assert guessing < 0.6 * plain


def test_nothing_guesses_where_nothing_is_configured() -> None:
    needed = requirement(ALLOWED)
    assert drafting_of(needed, space_for(needed)["setpoint-16"]) is None
