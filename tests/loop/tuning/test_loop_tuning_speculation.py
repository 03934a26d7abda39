"""Candidates with drafts: where the requirement allows them, and only where it says how often they are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tuning_world import NEEDED, SCHEDULE, TRUE, requirement

from setpoint.loop.errors import BadInput
from setpoint.loop.forecast.drafting import drafting_of
from setpoint.loop.forecast.forecast import forecast
from setpoint.loop.forecast.machine import machine_of_timer
from setpoint.loop.forecast.worlds import central_worlds
from setpoint.loop.speculation.candidates import with_acceptance
from setpoint.loop.tuning.space import space_for
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.requirement import Requirement
from setpoint.simulate.acceptance import AcceptedDrafts

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


def accepted(needed: Requirement) -> AcceptedDrafts:
    """What a forecast with prompt lookup takes to come true."""
    found = drafting_of(needed, ServingConfig(speculation=SpeculationMode.PROMPT_LOOKUP))
    assert found is not None
    return found.accepted


def test_the_share_of_steps_that_find_a_guess_reaches_the_forecast(tmp_path: Path) -> None:
    """Seen: short questions, where 38 % of the steps find a guess, were forecast as if all did."""
    assert accepted(requirement(ALLOWED)).share == 1.0
    assert accepted(requirement(ALLOWED.replace("0.7]", "0.7], drafted_share: 38%"))).share == 0.38
    rows = [{"name": name, "survival": [0.8, 0.6], "drafted_share": 0.38, "drafts": 40} for name in ("code", "questions")]
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"acceptances": rows}))
    needed = with_acceptance(requirement(UNSTATED), f"{profile}#questions")
    assert (accepted(needed).profile.survival, accepted(needed).share) == ((0.8, 0.6), 0.38)
    assert "setpoint-16-lookup" in space_for(needed)
    typed = with_acceptance(needed, "70%")
    assert accepted(typed).profile.survival[:2] == pytest.approx((0.7, 0.49))
    assert accepted(typed).share == 0.38, "a chance that is typed says nothing of how many steps find a guess"
    assert accepted(with_acceptance(requirement(UNSTATED), "70%")).share == 1.0
    assert with_acceptance(needed, None) == needed


def test_a_profile_of_one_drafter_says_nothing_of_another(tmp_path: Path) -> None:
    """Seen: what a draft model guessed right was foretold of prompt lookup too."""
    both = requirement(NEEDED + "speculation: {drafters: [prompt-lookup, draft], draft_model: small, acceptance: 50%}\n")
    profile = tmp_path / "profile.json"
    row = {"name": "code", "survival": [0.8, 0.6], "drafted_share": 1.0, "drafts": 40}
    models = {"prompt-lookup": None, "draft": "small"}
    for drafter, model in models.items():
        profile.write_text(json.dumps({"drafter": drafter, "acceptances": [row]}))
        known = with_acceptance(both, str(profile)).speculation
        assert known is not None
        assert (known.drafters, known.draft_model, known.acceptance) == ((drafter,), model, (0.8, 0.6))
    with pytest.raises(BadInput, match="was measured with draft, which says nothing of prompt-lookup"):
        with_acceptance(requirement(UNSTATED), str(profile))
    typed = with_acceptance(both, "70%").speculation
    assert typed is not None
    assert typed.drafters == ("prompt-lookup", "draft"), "a chance that is typed is of whichever"


def test_acceptance_of_speculation_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(BadInput, match="--acceptance: the requirement has no speculation section"):
        with_acceptance(requirement(), "70%")
