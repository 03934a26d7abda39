"""Speculation in simulations: draws, the gain against the closed form, that it never costs much, that all are served."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.modes import build_policy
from setpoint.policy.speculating import SpeculatingPolicy
from setpoint.policy.speculation import SpeculationController
from setpoint.policy.survival import SurvivalProfile, constant_acceptance
from setpoint.record import Phase
from setpoint.simulate.acceptance import AcceptanceDraws, AcceptedDrafts
from setpoint.simulate.drafter import Drafting
from setpoint.simulate.ledger import Ending
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.run import Simulated, SimulatedSystem, simulate
from setpoint.simulate.sequences import Kind
from setpoint.simulate.speculating import teach_drafts
from setpoint.simulate.timing import LineTimer, Overheads

VERIFY = LineTimer(10e-3, token_s=50e-6, sequence_s=20e-6, kv_token_s=1e-8)
DEAR = LineTimer(2e-3, token_s=1.5e-3, sequence_s=20e-6, kv_token_s=1e-8)
PASSES = LineTimer(1e-3, token_s=5e-6)
CONFIG = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=2048, max_waiting=1 << 20)


def load_of(requests: int, *, output: int = 200, gap_s: float = 0.0) -> Load:
    sent_s = np.arange(requests, dtype=np.float64) * gap_s
    whole = np.ones(requests, dtype=np.int64)
    phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, float(sent_s[-1]) + 1.0),)
    return Load(sent_s, 32 * whole, output * whole, output * whole, phases, 0 * whole, (Kind(),))


def run(
    load: Load,
    survival: tuple[float, ...] | None,
    *,
    model: bool = True,
    length: int | None = None,
    timer: LineTimer = VERIFY,
    seed: int = 0,
    share: float = 1.0,
) -> Simulated:
    """``load`` on one replica; ``survival``: ``None`` is no speculation; ``length``: always drafts of that."""
    system = SimulatedSystem(timer, 4000, 16, CONFIG)
    if survival is not None:
        mode = SpeculationMode.DRAFT if model else SpeculationMode.PROMPT_LOOKUP
        config = CONFIG.model_copy(update={"speculation": mode, "draft_tokens": length})
        accepted = AcceptedDrafts(SurvivalProfile(survival), share)
        system = replace(system, configuration=config, drafting=Drafting(accepted, PASSES if model else None))
    return simulate(load, system, seed=seed)


def speed(done: Simulated) -> float:
    return float(done.ledger.tokens.sum()) / done.end_s


def test_a_draw_is_the_same_however_it_is_asked_for() -> None:
    draws = AcceptanceDraws(AcceptedDrafts(SurvivalProfile((0.8, 0.6, 0.3))), seed=7)
    rows, emitted = np.arange(500), np.arange(500) * 3
    counts = np.full(500, 3)
    found = draws.accepted(rows, emitted, counts)
    for row in range(500):
        stands = [draws.stands(row, 3 * row, position) for position in range(3)]
        assert found[row] == (stands.index(False) if False in stands else 3)


def test_shares_of_drafts_that_survive_are_the_profiles() -> None:
    survival = (0.8, 0.6, 0.3)
    draws = AcceptanceDraws(AcceptedDrafts(SurvivalProfile(survival), 0.4), seed=1)
    many = 40_000
    found = draws.accepted(np.arange(many), np.full(many, 5), np.full(many, 3))
    for position, share in enumerate(survival, start=1):
        assert (found >= position).mean() == pytest.approx(share, abs=5 * (0.25 / many) ** 0.5)  # fixed seed: no chance in it
    assert np.mean([draws.found(row, 9) for row in range(5000)]) == pytest.approx(0.4, abs=0.03)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([0.3, 0.7, 0.9]), st.sampled_from([None, 2, 5]))
def test_the_same_seed_gives_the_same_bytes(seed: int, chance: float, length: int | None) -> None:
    load = load_of(5, output=40, gap_s=0.01)
    survival = constant_acceptance(chance, 6).survival
    one, two = (run(load, survival, length=length, seed=seed) for _ in range(2))
    for name in ("first_s", "last_s", "ended_s", "tokens", "gap_s"):
        assert getattr(one.ledger, name).tobytes() == getattr(two.ledger, name).tobytes()
    assert one.drafts == two.drafts


@pytest.mark.parametrize("model", [True, False])
@pytest.mark.parametrize("length", [1, 4])
def test_a_lone_request_gains_what_the_closed_form_says(model: bool, length: int) -> None:
    load, survival = load_of(1, output=6000), constant_acceptance(0.7, 4).survival
    plain, drafted = run(load, None), run(load, survival, model=model, length=length)
    step_s, draft_s = 10e-3 + 50e-6 + 20e-6, length * (1e-3 + 5e-6) if model else 0.0
    expected = SurvivalProfile(survival).speed_up(length, step_s=step_s, verify_s=step_s + length * 50e-6, draft_s=draft_s)
    assert speed(drafted) / speed(plain) == pytest.approx(expected, rel=0.04)
    assert drafted.drafts.acceptance_length == pytest.approx(1 + sum(survival[:length]), rel=0.04)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5).map(sorted), st.integers(1, 6), st.integers(0, 99))
def test_a_lone_request_is_never_slower_for_more_acceptance(chances: list[float], length: int, seed: int) -> None:
    load = load_of(1, output=60)
    ends = [run(load, constant_acceptance(c, 6).survival, length=length, seed=seed, model=False).end_s for c in chances]
    # With as many steps, which of them were shorter decides how much context the others read: that is worth microseconds.
    assert all(later <= earlier + 1e-5 for earlier, later in pairwise(ends))


@pytest.mark.parametrize("model", [True, False])
@pytest.mark.parametrize("requests", [1, 8, 40])
def test_the_controller_never_costs_much(model: bool, requests: int) -> None:
    load = load_of(requests)
    for timer in (VERIFY, DEAR):
        plain = speed(run(load, None, timer=timer))
        for chance in (0.0, 0.3, 0.8):
            drafted = speed(run(load, constant_acceptance(chance, 15).survival, model=model, timer=timer))
            assert drafted > 0.97 * plain, f"acceptance {chance}, {timer}"
            if chance == 0.0:
                assert drafted <= plain * 1.001, "nothing is gained by guesses that never come true"


def test_the_controller_gains_alone_and_always_drafting_loses_in_a_crowd() -> None:
    survival = constant_acceptance(0.8, 15).survival
    alone, crowd = load_of(1, output=600), load_of(60)
    assert speed(run(alone, survival)) > 1.8 * speed(run(alone, None))
    assert speed(run(crowd, survival, length=4, timer=DEAR)) < 0.8 * speed(run(crowd, None, timer=DEAR))


def test_a_long_prompt_is_read_by_the_draft_model_and_then_pays() -> None:
    long = replace(load_of(1, output=600), prompt_tokens=np.array([2000]))
    plain = speed(run(long, None))
    assert speed(run(long, constant_acceptance(0.8, 15).survival)) > 1.5 * plain
    assert speed(run(long, constant_acceptance(0.0, 15).survival)) > 0.97 * plain


def test_the_controller_is_shown_what_rounds_drafts_and_reading_take() -> None:
    config = CONFIG.model_copy(update={"speculation": SpeculationMode.DRAFT})
    policy = build_policy(config)
    teach_drafts(policy, Drafting(AcceptedDrafts(SurvivalProfile((0.5,))), PASSES), config, VERIFY, Overheads())
    assert isinstance(policy, SpeculatingPolicy)
    assert isinstance(policy.chooser, SpeculationController)
    assert policy.chooser.drafting.coefficients_s == pytest.approx((1e-3, 5e-6, 5e-6), rel=0.05)


def test_where_few_steps_find_a_guess_less_is_gained() -> None:
    load, survival = load_of(1, output=2000), constant_acceptance(0.8, 8).survival
    speeds = [speed(run(load, survival, model=False, share=share)) for share in (0.0, 0.3, 1.0)]
    assert speeds[0] == pytest.approx(speed(run(load, None)))
    assert speeds[0] < speeds[1] < speeds[2]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.sampled_from([None, 0, 3, 9]), st.booleans(), st.sampled_from([0.0, 0.6, 1.0]))
def test_everybody_gets_every_token(requests: int, length: int | None, model: bool, chance: float) -> None:
    load = load_of(requests, output=37, gap_s=0.004)
    done = run(load, constant_acceptance(chance, 9).survival, length=length, model=model)
    assert (done.ledger.ending == Ending.SERVED).all()
    assert (done.ledger.tokens == 37).all()
    assert done.gaps.counts[0].total == 36 * requests, "every token but the first of each is behind one gap"
    assert done.drafts.accepted_tokens <= done.drafts.draft_tokens


def test_speculation_without_acceptance_is_refused() -> None:
    config = CONFIG.model_copy(update={"speculation": SpeculationMode.PROMPT_LOOKUP})
    with pytest.raises(ValueError, match="nobody said"):
        simulate(load_of(1), SimulatedSystem(VERIFY, 400, 16, config))
