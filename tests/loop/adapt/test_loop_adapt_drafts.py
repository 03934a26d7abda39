"""Plans of a server that drafts: how good its guesses are, what they cost, and forecasts with and without them."""

from __future__ import annotations

import asyncio
from typing import cast

import numpy as np
import pytest

from setpoint.engine.reconfiguring import Reconfigurable
from setpoint.engine.service import GuessTotals
from setpoint.loop.adapt.audit import Audit
from setpoint.loop.adapt.choices import live_key, named, other_drafting
from setpoint.loop.adapt.drafts import LEAST_LOOKED, RECENT, LiveDrafts
from setpoint.loop.adapt.driver import Adapter
from setpoint.loop.adapt.profile import Profile
from setpoint.loop.adapt.rails import Rails
from setpoint.loop.adapt.reading import STEP_COLUMNS
from setpoint.loop.adapt.replan import (
    LEAST_DRAFTED_REQUESTS,
    REQUESTS,
    Answer,
    Question,
    drafted_requests,
    machine_of,
    replan,
)
from setpoint.policy.changing import needs_restart
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.decisions import StepWork
from setpoint.policy.survival import constant_acceptance
from setpoint.policy.views import FloatColumn
from setpoint.requirement import parse_requirement
from setpoint.simulate.acceptance import AcceptedDrafts
from setpoint.simulate.drafter import Drafting, pass_s
from setpoint.simulate.timing import LineTimer

STEP_S, TOKEN_S, BETWEEN_S = 20e-3, 50e-6, 1e-4
LOOKUP = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=8, speculation=SpeculationMode.PROMPT_LOOKUP, draft_tokens=4)
MODEL = LOOKUP.model_copy(update={"speculation": SpeculationMode.DRAFT, "draft_model": "small"})
GOOD = AcceptedDrafts(constant_acceptance(0.95, 4))
REQUIREMENT = parse_requirement(
    "name: a\nmodel: m\nprofile: {prompt_tokens: 8, output_tokens: 8, arrival: {rate: 1/s}}\nslo: {tpot: {p95: 12ms}}\n", "a"
)


def profile_of(output: int = 24) -> Profile:
    """Forty requests alike, two a second."""
    whole = np.ones(40, dtype=np.int64)
    return Profile(2.0, 1.0, 40, 64 * whole, 0 * whole, output * whole, output * whole, 0 * whole, np.ones(40, dtype=np.bool_))


def steps_of(draft_s: float = 0.0) -> dict[str, FloatColumn]:
    """Six hundred steps of up to eight requests, half of them with drafts of four, some with a prompt."""
    now_s = 0.0
    rows: list[tuple[float, ...]] = []
    for number in range(600):
        sequences, drafted = 1 + number // 4 % 8, 4 * (number // 32 % 2)
        prefill = 64 if number % 10 == 9 and not drafted else 0
        decode, context = sequences * (1 + drafted), 100 + 10 * (number % 13)
        making_s = draft_s if drafted else 0.0
        start_s = now_s + BETWEEN_S + making_s
        now_s = start_s + STEP_S + TOKEN_S * (prefill + decode)
        read, products = sequences * context + prefill, decode * context + prefill**2
        rows.append((start_s, now_s, prefill, decode, sequences + (prefill > 0), read, products, sequences, making_s))
    columns = np.array(rows, dtype=np.float64).T
    return dict(zip(STEP_COLUMNS, columns, strict=True))


def question(present: ServingConfig, drafting: Drafting | None) -> Question:
    fewer = present.model_copy(update={"max_running": 4})
    other: tuple[ServingConfig, ...] = () if drafting is None else (other_drafting(present, LOOKUP.speculation),)
    return Question(REQUIREMENT, profile_of(), present, (fewer,), steps_of(), (), drafting=drafting, unscreened=other)


def test_what_drafts_is_forecast_with_drafts_and_to_turn_them_off_is_among_the_choices() -> None:
    """A step takes 20 ms and 12 ms a token are allowed; four guesses that nearly all come true make it 5."""
    answer = replan(question(LOOKUP, Drafting(GOOD)), used=lambda: 0.0)
    assert answer.present is not None
    assert answer.present.good > 0.9
    forecasts = {each.config: each for each in answer.forecasts}
    fewer, off = LOOKUP.model_copy(update={"max_running": 4}), other_drafting(LOOKUP, LOOKUP.speculation)
    assert set(forecasts) == {fewer, off}
    assert forecasts[fewer].good > 0.9, "what else changes, drafts stay as they are"
    assert forecasts[off].gain < -0.8


def test_to_turn_drafts_on_again_is_a_choice_too() -> None:
    off = other_drafting(LOOKUP, LOOKUP.speculation)
    answer = replan(question(off, Drafting(GOOD)), used=lambda: 0.0)
    best = answer.forecasts[0]
    assert best.config == LOOKUP
    assert best.gain > 0.8
    assert best.sure


def test_until_something_is_known_of_guesses_all_are_compared_without() -> None:
    answer = replan(question(LOOKUP, None), used=lambda: 0.0)
    assert answer.present is not None
    assert answer.present.good < 0.1
    assert [each.config.speculation for each in answer.forecasts] == [LOOKUP.speculation]


def test_a_draft_model_that_is_slow_does_not_pay() -> None:
    answer = replan(question(MODEL, Drafting(GOOD, LineTimer(15e-3))), used=lambda: 0.0)
    assert answer.present is not None
    assert answer.present.good < 0.1, "a pass of 15 ms for each guess, 80 ms a step"


def test_what_making_drafts_takes_is_not_taken_for_the_time_between_steps() -> None:
    plain, drafting = machine_of(steps_of(), ()), machine_of(steps_of(5e-3), ())
    for machine in (plain, drafting):
        assert machine.overheads.between_s + 8 * machine.overheads.between_sequence_s < 1e-3
        assert machine.timer.affine(8, 8)[0] == pytest.approx(STEP_S, rel=0.1)


def test_a_load_that_is_met_with_drafts_has_fewer_requests_where_answers_are_long() -> None:
    found = [drafted_requests(profile_of(output)) for output in (1, 64, 5000)]
    assert found[0] == REQUESTS
    assert LEAST_DRAFTED_REQUESTS < found[1] < REQUESTS
    assert found[2] == LEAST_DRAFTED_REQUESTS


def test_survival_and_the_share_of_looks_with_a_guess_are_those_of_the_engine() -> None:
    live = LiveDrafts(LOOKUP)
    assert live.drafting() is None
    assert live.described() is None
    live.guessed(GuessTotals(1000, 400, (400, 300, 150), (300, 150, 15)))
    drafting = live.drafting()
    assert drafting is not None
    assert drafting.passes is None
    assert drafting.accepted.share == 0.4
    assert len(drafting.accepted.profile.survival) == LOOKUP.longest_draft_tokens
    assert drafting.accepted.profile.survival[:3] == pytest.approx((0.75, 0.375, 0.0375), abs=0.01)
    assert live.described() is not None


def test_old_guesses_are_forgotten_for_new_ones_and_totals_that_stand_still_change_nothing() -> None:
    live = LiveDrafts(LOOKUP)
    live.guessed(GuessTotals(1000, 1000, (1000,), (0,)))
    before = live.drafting()
    live.guessed(GuessTotals(1000, 1000, (1000,), (0,)))
    assert live.drafting() == before
    live.guessed(GuessTotals(1000 + 2 * RECENT, 1000, (1000 + 2 * RECENT,), (2 * RECENT,)))
    after = live.drafting()
    assert before is not None
    assert after is not None
    assert before.accepted.profile.survival[0] < 0.01
    assert after.accepted.profile.survival[0] > 0.99
    assert after.accepted.share == 0.0, "nobody had a guess any more"


def test_a_few_looks_say_nothing() -> None:
    live = LiveDrafts(LOOKUP)
    live.guessed(GuessTotals(LEAST_LOOKED - 1, 40, (40,), (30,)))
    assert live.drafting() is None
    live.guessed(GuessTotals(LEAST_LOOKED + 1, 40, (40,), (30,)))
    assert live.drafting() is not None


def test_passes_of_a_draft_model_cost_what_the_controller_knows_and_reading_has_a_price_of_its_own() -> None:
    """Seen: a text of 500 tokens was read at the price of 500 guesses, and drafts that paid were planned to end."""
    live = LiveDrafts(MODEL)
    live.guessed(GuessTotals(1000, 1000, (500,), (400,)))
    live.took(None)
    assert live.drafting() is None, "what it costs is not known"
    live.took((1e-3, 1e-4, 5e-6))
    drafting = live.drafting()
    assert drafting is not None
    assert drafting.passes is not None
    for several, read in ((1, 0), (8, 0), (8, 8), (1, 128)):
        work = StepWork(several + read, several, 500, 500)
        assert pass_s(drafting.passes, work) == pytest.approx(1e-3 + several * 1e-4 + read * 5e-6)
    live.took(None)
    assert live.drafting() == drafting, "while it cannot be told anew, what was known stands"


class Priced:
    """Stands for an engine with a draft model whose prices are known."""

    config = MODEL

    async def drafting_s(self) -> tuple[float, ...]:
        return 1e-3, 1e-4, 5e-6


class NoPlans:
    """A planner that nobody asks."""

    async def answer(self, question: Question) -> Answer:
        raise AssertionError("nobody asks")

    def close(self) -> None:
        """Nothing to close."""


def test_the_loop_asks_the_engine_what_its_draft_model_takes() -> None:
    adapter = Adapter(cast(Reconfigurable, Priced()), REQUIREMENT, Rails(), NoPlans(), Audit())
    assert adapter._drafting(MODEL) == (None, ())
    asyncio.run(adapter._see_drafts(GuessTotals(1000, 1000, (500,), (400,))))
    drafting, other = adapter._drafting(MODEL)
    assert drafting is not None
    assert drafting.passes == LineTimer(1e-3, token_s=5e-6, sequence_s=1e-4 - 5e-6)
    assert other == (other_drafting(MODEL, SpeculationMode.DRAFT),)


@pytest.mark.parametrize("started", [LOOKUP, MODEL])
def test_drafts_the_other_way_need_no_restart_and_have_a_name_of_their_own(started: ServingConfig) -> None:
    off = other_drafting(started, started.speculation)
    assert off.speculation is SpeculationMode.OFF
    assert other_drafting(off, started.speculation) == started
    assert needs_restart(started, off) == needs_restart(started, started) == ()
    assert named(off) != named(started)
    assert live_key(off) != live_key(started)
