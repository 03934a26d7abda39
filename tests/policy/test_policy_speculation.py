"""The controller on views: the best draft lengths by brute force, deadlines, hysteresis, probes, and when the batch grows."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.decisions import StepResult, StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.speculating import FixedDrafts, SpeculatingPolicy
from setpoint.policy.speculation import ON_GAIN, PROBE_SHARE, SpeculationController
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.verify_time import DraftTime, VerifyTime
from setpoint.policy.views import NO_COLUMNS, Columns, DraftView, Foretold, KvView, StepView

BASE_S, TOKEN_S = 10e-3, 1e-3


def running(count: int, *, gap_s: float = inf, left_s: float = inf, prefill: int = 0) -> Columns:
    whole = np.zeros(count, dtype=np.int64)
    return Columns(
        ids=np.arange(count, dtype=np.int64),
        arrived_s=np.zeros(count),
        deadline_s=np.full(count, left_s),
        context_tokens=whole + 100,
        prefill_tokens=whole + prefill,
        emitted_tokens=whole + 1,
        tokens_to_deadline=whole + 1,
        request_class=whole,
        cap_tokens=whole + 100,
        gap_s=np.full(count, gap_s),
        tenant=whole,
    )


def view(
    count: int,
    *,
    most: int = 4,
    sureness: int = 3,
    behind: int = 0,
    later: int = 0,
    gap_s: float = inf,
    left_s: float = inf,
    prefill: int = 0,
) -> StepView:
    column = np.zeros(count, dtype=np.int64)
    drafts = DraftView(column + most, column + sureness, column + behind, later_tokens=column + later)
    columns = running(count, gap_s=gap_s, left_s=left_s, prefill=prefill)
    return StepView(now_s=0.0, waiting=NO_COLUMNS, running=columns, kv=KvView(100, 100, 32), drafts=drafts)


def machine(base_s: float = BASE_S, token_s: float = TOKEN_S) -> StepTimeModel:
    return StepTimeModel((base_s, token_s, 0.0, 0.0, 0.0))


def controller(most: int = 4, *, base_s: float = BASE_S, token_s: float = TOKEN_S) -> SpeculationController:
    return SpeculationController(machine(base_s, token_s), most_tokens=most)


def result(
    step: StepView, drafted: dict[int, int], accepted: dict[int, int], seconds: float, draft_s: float = 0.0
) -> StepResult:
    count = len(step.running)
    tokens = count + sum(drafted.values())
    work = StepWork(tokens, count, 100 * count + tokens, 100 * tokens)
    new = {i: 1 + accepted.get(i, 0) for i in range(count)}
    return StepResult(0.0, seconds, work, new, accepted=accepted, drafted=drafted, draft_s=draft_s)


def play(chooser: SpeculationController, step: StepView, share: float, steps: int) -> list[dict[int, int]]:
    """``steps`` steps of a machine that is as the model says, ``share`` of each draft's tokens accepted."""
    chosen = []
    for _ in range(steps):
        tokens = dict(chooser.decide(step).tokens)
        accepted = {i: int(share * count) for i, count in tokens.items()}
        total = len(step.running) + sum(tokens.values())
        chooser.observe(result(step, tokens, accepted, BASE_S + TOKEN_S * total))
        chosen.append(tokens)
    return chosen


@given(
    count=st.integers(1, 3),
    most=st.integers(1, 3),
    base_s=st.floats(1e-3, 0.1),
    token_s=st.floats(1e-5, 0.05),
    taught=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 3)), max_size=20),
)
@settings(deadline=None)
def test_no_other_lengths_would_be_better(
    count: int, most: int, base_s: float, token_s: float, taught: list[tuple[int, int, int]]
) -> None:
    """All combinations of draft lengths, each judged by the same survivals and the same machine."""
    chooser = controller(most, base_s=base_s, token_s=token_s)
    step = view(count, most=most)
    for request, drafted, accepted in taught:
        chooser.survivals.predict(step.running.ids, step.drafts.sureness)  # type: ignore[union-attr]
        chooser.survivals.observe(request, min(drafted, most), min(drafted, accepted))
    survival = chooser.survivals.predict(step.running.ids, step.drafts.sureness)  # type: ignore[union-attr]
    chosen = chooser.decide(step)

    def rate(lengths: tuple[int, ...]) -> float:
        tokens = count + sum(survival[row, :length].sum() for row, length in enumerate(lengths))
        return float(tokens / (base_s + token_s * (count + sum(lengths))))

    best = max(rate(lengths) for lengths in product(range(most + 1), repeat=count))
    plain = rate((0,) * count)
    if chosen.tokens:
        ours = rate(tuple(chosen.tokens.get(row, 0) for row in range(count)))
        assert ours == pytest.approx(best)
        assert chosen.gain == pytest.approx(ours / plain)
    else:
        assert best <= plain * ON_GAIN * (1 + 1e-9)


def test_the_same_survivals_pay_alone_and_not_in_a_crowd() -> None:
    """Acceptance alone never decides: a step of many is paid for by the token."""
    alone = controller(base_s=20e-3, token_s=5e-3).decide(view(1))
    crowd = controller(base_s=20e-3, token_s=20e-3).decide(view(16))
    assert alone.tokens == {0: 4}
    assert not crowd.tokens


def test_when_the_batch_grows_drafts_end_at_once() -> None:
    chooser = controller(base_s=20e-3, token_s=1e-3)
    chooser.verify._model = StepTimeModel((20e-3, 1e-3, 0.0, 0.0, 0.0))
    step = view(1)
    assert chooser.decide(step).tokens
    chooser.verify._rows = {16: {0: (0.0, 9), 8: (2.0, 9), 64: (2.5, 9)}}  # sixteen together: drafts cost seven times as much
    assert not chooser.decide(view(16)).tokens


def test_a_deadline_bounds_the_step() -> None:
    free = controller().decide(view(1))
    assert free.tokens == {0: 4}
    # 14 ms with three draft tokens; a quarter of the slack is kept back.
    bound = controller().decide(view(1, left_s=14e-3 / 0.75 + 1e-6, gap_s=1.0))
    assert bound.tokens == {0: 3}
    assert not controller().decide(view(1, left_s=12e-3, gap_s=1.0)).tokens


def test_reading_first_counts_against_the_deadline() -> None:
    chooser = controller()
    chooser.learn_drafting(1, 1, 0, 1e-4)
    chooser.learn_drafting(1, 1, 100, 1e-1)
    assert chooser.decide(view(1, left_s=40e-3, gap_s=1.0)).tokens
    assert not chooser.decide(view(1, behind=100, left_s=40e-3, gap_s=1.0)).tokens


def test_a_change_of_shape_counts_against_the_deadline() -> None:
    """Seen: 10.4 ms of a step with drafts and 4 ms for its new shape, where 14 ms were allowed."""
    model = machine(10e-3, 1e-4)
    model._coefficients = (*model.coefficients, 4e-3)
    expected: dict[int, dict[int, int]] = {1: {}, 5: {0: 4}}
    for last_tokens, lengths in expected.items():
        chooser = SpeculationController(model, most_tokens=4)
        chooser.verify._last_tokens = last_tokens
        assert dict(chooser.decide(view(1, left_s=14e-3 / 0.75, gap_s=1.0)).tokens) == lengths


READ_S = 5e-5


def reader() -> SpeculationController:
    """One whose drafter reads a token in ``READ_S``."""
    chooser = controller()
    for _ in range(9):
        chooser.learn_drafting(1, 0, 128, 128 * READ_S)
    return chooser


def one_unread() -> StepView:
    """The first of two can be guessed for, the text of the second is not read."""
    step = view(2)
    assert step.drafts is not None
    unread = replace(step.drafts, behind_tokens=np.array([0, 128]), later_tokens=np.array([0, 400]))
    return replace(step, drafts=unread)


def test_a_long_text_is_read_on_and_no_token_is_expected_of_it() -> None:
    """Seen: a prompt of 2,000 tokens took 16 rounds, each chosen for tokens that could not come, and none was learned from."""
    chooser = controller()
    step = view(1, behind=128, later=1800)
    for _ in range(3):
        chosen = chooser.decide(step)
        assert (dict(chosen.tokens), chosen.gain, chosen.reads) == ({}, 1.0, (0,))
        chooser.observe(result(step, {}, {}, BASE_S + TOKEN_S, draft_s=128 * READ_S))
    (read_s,) = chooser.drafting.predict_s(np.array([1]), np.array([0]), np.array([128]))
    assert read_s == pytest.approx(128 * READ_S, rel=0.05)
    assert chooser.decide(step).reads == (0,), "a tenth of a second, for three times as many tokens a second"
    endless = view(1, behind=128, later=10**6)
    endless = replace(endless, running=replace(endless.running, cap_tokens=np.array([10**5])))
    assert not chooser.decide(endless).reads, "a minute"


def test_one_text_is_read_beside_the_drafts_of_others() -> None:
    alone = controller().decide(view(1)).tokens
    chosen = controller().decide(one_unread())
    assert (dict(chosen.tokens), chosen.reads) == (dict(alone), (1,))
    assert len(controller().decide(view(3, behind=128, later=400)).reads) == 1
    plan = policy().plan(one_unread())
    assert plan.draft_reads == (1,)
    assert plan.reason.operands["drafts"] == sum(plan.draft_tokens.values())
    only = policy().plan(view(2, behind=128, later=400))
    assert (dict(only.draft_tokens), only.draft_reads) == ({}, (0,))
    assert "drafts" not in only.reason.operands


def test_reading_on_counts_against_the_deadline() -> None:
    """11 ms without drafts and 6.4 ms for a part of the text."""
    for left_s, reads in ((22e-3, ()), (24e-3, (0,))):
        chosen = reader().decide(view(1, behind=128, later=400, left_s=left_s, gap_s=1.0))
        assert (dict(chosen.tokens), chosen.reads) == ({}, reads)


def uneven(later: int) -> StepView:
    """Both answers are long. The text of the first is too long to be read; of the second's, ``later`` tokens come after this
    step; with 0 all is known."""
    step = view(2)
    assert step.drafts is not None
    behind, unread = np.array([128, 128 if later else 0]), np.array([10**6, later])
    columns = replace(step.running, cap_tokens=step.running.cap_tokens + 10**5)
    return replace(step, running=columns, drafts=replace(step.drafts, behind_tokens=behind, later_tokens=unread))


def test_a_long_text_keeps_nobody_else_from_being_read_or_probed() -> None:
    assert reader().decide(uneven(400)).reads == (1,)
    chooser = controller()
    play(chooser, view(2), 0.0, 60)
    for _ in range(9):
        chooser.learn_drafting(1, 0, 128, 128 * READ_S)
    chooser._credit_s = 0.1
    chosen = chooser.decide(uneven(0))
    assert (dict(chosen.tokens), chosen.code) == ({1: 3}, "probe")
    chooser._credit_s = 0.1
    assert chooser.decide(uneven(128)).reads == (1,)


def test_in_a_crowd_as_many_are_judged_as_it_takes() -> None:
    chooser = controller(base_s=20e-3, token_s=1e-4)
    assert len(chooser.decide(view(32, behind=128, later=400)).reads) == 1, "one alone gains 7%"


def test_no_text_is_read_for_an_answer_that_ends_before() -> None:
    """1,928 tokens take 16 steps, and 256 tokens 2; a token of each answer is there already."""
    tired = controller()
    play(tired, view(1), 0.0, 60)
    for chooser, later, cap_tokens in ((controller(), 1800, 17), (tired, 128, 3)):
        for more, reads in ((0, ()), (1, (0,))):
            step = view(1, behind=128, later=later)
            columns = replace(step.running, cap_tokens=np.array([cap_tokens + more]))
            chooser._credit_s = 0.1
            assert chooser.decide(replace(step, running=columns)).reads == reads


def test_a_change_of_shape_counts_in_a_step_that_reads() -> None:
    """11 ms, 6.4 ms for a part of the text and 4 ms for the new shape, where 19.5 ms are allowed."""
    expected: dict[int, tuple[int, ...]] = {1: (0,), 5: ()}
    for last_tokens, reads in expected.items():
        chooser = reader()
        model = chooser.verify._model
        model._coefficients = (*model.coefficients, 4e-3)
        chooser.verify._last_tokens = last_tokens
        assert chooser.decide(view(1, behind=128, later=400, left_s=26e-3, gap_s=1.0)).reads == reads


def test_a_probe_of_an_unread_text_is_paid_for_as_a_whole() -> None:
    chooser = controller()
    play(chooser, view(1), 0.0, 60)
    for _ in range(9):
        chooser.learn_drafting(1, 0, 128, 128 * READ_S)
    step = view(1, behind=128, later=128)
    chooser._credit_s = 10e-3
    assert not chooser.decide(step).reads, "12.8 ms of reading"
    for draft_s, credit_s in ((128 * READ_S, 0.1 - 128 * READ_S), (0.0, 0.1)):
        chooser._credit_s = 0.1
        assert chooser.decide(step).reads == (0,)
        chooser.observe(result(step, {}, {}, BASE_S, draft_s=draft_s))
        assert chooser._credit_s == pytest.approx(credit_s + PROBE_SHARE * BASE_S, rel=0.01)


def test_a_fixed_length_is_read_for_too() -> None:
    fixed, step = FixedDrafts(3), one_unread()
    chosen = fixed.decide(step)
    assert (dict(chosen.tokens), chosen.reads) == ({0: 3}, (1,))
    told = DraftTime()
    told.observe(3, 3, int(step.drafts.behind_tokens.sum()), 5e-3)  # type: ignore[union-attr]
    fixed.observe(result(step, {0: 3}, {0: 1}, BASE_S, draft_s=5e-3))
    assert fixed.drafting.coefficients_s == told.coefficients_s


def test_drafts_that_fail_end_and_are_probed_within_their_share() -> None:
    chooser = controller()
    step = view(1)
    play(chooser, step, 0.0, 60)
    chosen = play(chooser, step, 0.0, 3000)
    drafted = [sum(each.values()) for each in chosen]
    probes = [count for count in drafted if count]
    assert probes, "a change of the text would never be found out"
    spent_s = TOKEN_S * sum(probes)
    assert spent_s <= PROBE_SHARE * len(chosen) * (BASE_S + TOKEN_S) * 1.05 + 4 * TOKEN_S


def test_a_text_that_becomes_predictable_is_found_out() -> None:
    chooser = controller()
    step = view(1)
    play(chooser, step, 0.0, 500)
    assert not any(play(chooser, step, 0.0, 3)[-1].values())
    chosen = play(chooser, step, 1.0, 1500)
    assert chosen[-1] == {0: 4}


def test_free_guesses_teach_without_being_verified() -> None:
    """No probe is needed: what is held against the text turns guessing on, and keeps it off."""
    chooser = controller()
    step = view(1)
    assert step.drafts is not None
    for stood in (False, True):
        for _ in range(120):
            foretold = tuple(Foretold(0, 3, position, stood) for position in range(4 if stood else 1))
            last = chooser.decide(replace(step, drafts=replace(step.drafts, foretells=True, foretold=foretold)))
        assert bool(last.tokens) == stood
    assert chooser.decide(step).code == "pays"


def test_no_probe_where_even_perfect_drafts_lose() -> None:
    chooser = controller(base_s=1e-3, token_s=20e-3)
    assert not any(sum(each.values()) for each in play(chooser, view(8), 0.0, 500))


def test_nothing_to_draft_is_no_decision() -> None:
    assert controller().decide(view(2, most=0)).code == "none_possible"


def policy(**changes: object) -> SpeculatingPolicy:
    config = ServingConfig(mode=BatchingMode.CONTINUOUS, speculation=SpeculationMode.PROMPT_LOOKUP, **changes)
    built = build_policy(config, machine())
    assert isinstance(built, SpeculatingPolicy)
    return built


def test_a_step_with_prompts_has_no_drafts() -> None:
    assert policy().plan(view(2)).draft_tokens
    assert not policy().plan(view(2, prefill=8)).draft_tokens


def joining(step: StepView, *, prompt: int = 40, number: int = 100, free_blocks: int = 100) -> StepView:
    """``step`` with a request that waits."""
    waiting = running(1, prefill=prompt)
    waiting = replace(waiting, ids=waiting.ids + number)
    return replace(step, waiting=waiting, kv=KvView(100, free_blocks, 32))


def test_where_somebody_joins_nothing_is_decided() -> None:
    """Seen: drafts were decided and left out of the step; its reason told of them, and a probe had been paid for."""
    each = policy()
    chooser = each.chooser
    assert isinstance(chooser, SpeculationController)
    freely = view(2)
    told = (Foretold(0, 3, 0, True),)
    freely = replace(freely, drafts=replace(freely.drafts, foretells=True, foretold=told))  # type: ignore[type-var]
    plan = each.plan(joining(freely))
    assert plan.order == (100,)
    assert not plan.draft_tokens
    assert "drafts" not in plan.reason.operands
    assert plan.valid_for_steps == 1
    assert not chooser._on
    assert chooser.survivals.tries(freely.running.ids).tolist() == [1.0, 0.0], "what came is heard of all the same"


def test_who_waits_and_cannot_join_keeps_nobody_from_drafting() -> None:
    assert policy(max_running=2).plan(joining(view(2))).draft_tokens, "no place"
    assert policy().plan(joining(view(2), free_blocks=3)).draft_tokens, "two blocks, and one for each who runs"
    assert not policy().plan(joining(view(2), free_blocks=4)).draft_tokens
    each = policy()
    assert not each.plan(joining(view(2))).draft_tokens
    assert each.plan(joining(view(2))).draft_tokens, "it was foreseen to join, and waits still"
    assert not each.plan(joining(view(2), number=101)).draft_tokens
    ran = view(2)
    ran = replace(ran, running=replace(ran.running, ids=np.array([0, 101])))
    assert each.plan(ran).draft_tokens
    assert not each.plan(joining(view(2), number=101)).draft_tokens, "it has run, and waits anew"


def test_a_probe_that_did_not_come_about_is_not_paid_for() -> None:
    chooser = controller()
    step = view(1)
    play(chooser, step, 0.0, 60)
    for _ in range(3000):
        before_s = chooser._credit_s
        if chooser.decide(step).code == "probe":
            break
        chooser.observe(result(step, {}, {}, BASE_S + TOKEN_S))
    assert chooser._credit_s < before_s
    chooser.observe(result(step, {}, {}, BASE_S + TOKEN_S))
    assert chooser._credit_s == pytest.approx(before_s + PROBE_SHARE * (BASE_S + TOKEN_S))


def test_drafts_stay_within_the_token_budget() -> None:
    assert sum(policy(token_budget=5).plan(view(2)).draft_tokens.values()) == 3
    assert not policy(token_budget=2).plan(view(2)).draft_tokens


def test_a_fixed_length_is_kept_whatever_it_costs() -> None:
    plan = policy(draft_tokens=3).plan(view(2))
    assert plan.draft_tokens == {0: 3, 1: 3}
    assert plan.valid_for_steps == 1
    assert plan.reason.operands["drafts"] == 6
    assert not policy(draft_tokens=0).plan(view(2)).draft_tokens


def test_without_speculation_nothing_is_wrapped() -> None:
    assert not isinstance(build_policy(ServingConfig()), SpeculatingPolicy)


def test_a_tier_that_no_line_follows_is_learned() -> None:
    """4 tokens 16 ms, 5 tokens 24 ms, 16 tokens 25 ms: the best length is just under the step or far above it."""
    model = machine(12e-3, 1e-3)
    verify = VerifyTime(model)
    true_s = {0: 12e-3, 1: 14e-3, 2: 15e-3, 3: 16e-3, 4: 24e-3, 7: 24e-3, 15: 25e-3}
    for _ in range(30):
        for extra, seconds in true_s.items():
            verify.observe(StepWork(1 + extra, 1, 100, 100 * (1 + extra)), seconds, extra)
    found = verify.predict_s(1, 100, np.array(list(true_s)))
    np.testing.assert_allclose(found, list(true_s.values()), rtol=0.03)
    # Two together were never seen: they take the shape of one.
    assert np.all(np.diff(verify.predict_s(2, 200, np.arange(8))) > -1e-3)


def test_drafting_time_is_told_from_rounds_tokens_and_reading() -> None:
    dice = np.random.default_rng(1)
    timing = DraftTime()
    for _ in range(200):
        rounds, each, read = (int(n) for n in dice.integers((1, 1, 0), (8, 9, 100)))
        timing.observe(rounds, rounds * each, read, 3e-3 * rounds + 2e-4 * rounds * each + 5e-5 * read)
    np.testing.assert_allclose(timing.coefficients_s, (3e-3, 2e-4, 5e-5), rtol=0.05)


def test_choices_that_disappoint_are_believed_less_until_they_stand_again() -> None:
    """Seen: of eight requests the likeliest draft was taken, stood half as often as expected, and was taken all the same."""
    chooser = controller(most=1, base_s=20e-3, token_s=2e-3)
    step = view(8, most=1)
    for _ in range(60):
        expected = chooser.survivals.predict(step.running.ids, step.drafts.sureness)  # type: ignore[union-attr]
        tokens = chooser.decide(step).tokens
        if not tokens:
            break
        chooser.hindsight.learn(8, expected=float(expected.sum()), came=0.3 * float(expected.sum()))
    assert not chooser.decide(step).tokens
    freely = replace(step, drafts=replace(step.drafts, foretells=True))  # type: ignore[type-var]
    for _ in range(60):
        told = tuple(Foretold(each, 3, 0, True) for each in range(8))
        chosen = chooser.decide(replace(freely, drafts=replace(freely.drafts, foretold=told)))  # type: ignore[type-var]
        if chosen.tokens:
            break
    assert chosen.tokens, "guesses that would have stood bring drafts back"


def test_drafts_that_come_and_go_pay_for_every_change_of_shape() -> None:
    model = machine(20e-3, 1e-3)
    model._coefficients = (*model.coefficients, 20e-3)  # a change costs as much as a step
    chooser = SpeculationController(model, most_tokens=1)
    chooser.verify._last_tokens = 1
    seldom = chooser.decide(view(1, most=1)).gain
    for _ in range(100):
        chooser.changes.saw(1, drafted=False)
        chooser.changes.saw(2, drafted=True)
    chooser.verify._last_tokens = 1
    assert seldom > 1.2
    assert not chooser.decide(view(1, most=1)).tokens
