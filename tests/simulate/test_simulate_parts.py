"""The parts of the simulator by themselves: gaps, rows, digests, time, what policies are taught."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.deadlines import next_deadline_s, next_deadlines_s
from setpoint.policy.decisions import StepWork
from setpoint.policy.views import RequestLimits
from setpoint.record import Phase
from setpoint.requirement import (
    Arrival,
    ConstantSeconds,
    ConstantTokens,
    MixPart,
    RequestProfile,
    Sessions,
    UniformTokens,
)
from setpoint.simulate import offered
from setpoint.simulate.calibrated import TooFewSteps, calibrate
from setpoint.simulate.gaps import GapAccount, GapCounts, SuffixMost
from setpoint.simulate.naming import TraceBlocks
from setpoint.simulate.offered import TurnPace, load_of_profile, load_of_trace, sustained_for
from setpoint.simulate.rows import ID, Rows
from setpoint.simulate.sequences import Kind, Progress, SimulatedSequence
from setpoint.simulate.taught import taught_model
from setpoint.simulate.timing import LineTimer, Noise, Overheads, Timing
from setpoint.workload.arrivals import MAX_ARRIVALS
from setpoint.workload.plan import plan_load
from setpoint.workload.prompt import Prompt
from setpoint.workload.traces.clipping import Limits
from setpoint.workload.traces.trace import Trace

GAPS = st.lists(st.tuples(st.floats(0, 2), st.integers(0, 5)), min_size=1, max_size=60)


@given(GAPS, st.floats(1, 99.9))
def test_percentiles_of_counted_gaps_are_those_of_all_gaps(gaps: list[tuple[float, int]], percent: float) -> None:
    counts = GapCounts()
    values, weights = (np.array(column) for column in zip(*gaps, strict=True))
    counts.add(values, weights)
    every = np.sort(np.repeat(values, weights))
    assert counts.total == len(every)
    if len(every):
        truth = every[min(max(int(np.ceil(len(every) * percent / 100 - 1e-9)), 1), len(every)) - 1]
        assert counts.percentile(percent) == pytest.approx(truth, rel=1e-3, abs=2e-6)
    else:
        assert counts.percentile(percent) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.data())
def test_the_largest_of_a_suffix(values: list[float], data: st.DataObject) -> None:
    most = SuffixMost()
    for step, value in enumerate(values):
        most.add(step, value)
    after = data.draw(st.integers(-1, len(values) - 1))
    assert most.after(after) == max(values[after + 1 :], default=0.0)


@given(st.lists(st.lists(st.floats(0.001, 0.1), min_size=1, max_size=5), min_size=1, max_size=10))
def test_steps_by_stretches_or_one_by_one_are_the_same_account(stretches: list[list[float]]) -> None:
    whole, single = (GapAccount(2, (0.05,), ((0.0, 0.5),)) for _ in range(2))
    step, now_s = 0, 0.0
    for stretch in stretches:
        ends = now_s + np.cumsum(stretch)
        whole.steps(np.array(stretch), ends, [2, 1], 3, step + len(stretch) - 1)
        for gap_s, end_s in zip(stretch, ends.tolist(), strict=True):
            single.step(gap_s, end_s, [2, 1], 3, step)
            step += 1
        now_s = float(ends[-1])
    for account in (whole, single):
        account.flush()
    assert whole.late == single.late
    assert whole.tokens == single.tokens
    for mine, its in zip(whole.counts, single.counts, strict=True):
        assert (mine.counts == its.counts).all()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=300))
def test_rows_stand_in_order_whoever_comes_and_goes(moves: list[tuple[bool, int]]) -> None:
    rows, present = Rows(), set[int]()
    for joins, number in moves:
        if joins and number not in present:
            place = rows.add(sequence(number), prefill_tokens=number, computed=0, emitted=0)
            present.add(number)
            assert place == rows.place(number) == sorted(present).index(number)
        elif not joins and present:
            leaving = sorted(present)[number % len(present)]
            rows.remove(rows.place(leaving))
            present.discard(leaving)
        assert rows.whole(ID).tolist() == sorted(present)
        columns = rows.columns(last_token_s=0.0, limits=False)
        assert columns.prefill_tokens.tolist() == sorted(present)


def sequence(number: int) -> SimulatedSequence:
    """A request that nobody looks at closely."""
    return SimulatedSequence(
        number,
        Kind().as_request(),
        Progress(),
        row=number,
        phase=0,
        arrived_s=0.0,
        sent_s=0.0,
        prompt_tokens=8,
        target_tokens=4,
        cap_tokens=4,
    )


MAYBE = st.one_of(st.none(), st.floats(0.01, 5))


@given(
    st.builds(RequestLimits, MAYBE, MAYBE, MAYBE, MAYBE), st.booleans(), st.integers(1, 50), st.floats(0, 9), st.floats(0, 9)
)
def test_deadlines_of_many_are_those_of_each(
    limits: RequestLimits, streaming: bool, emitted: int, first_s: float, more_s: float
) -> None:
    """The rows' columns, as ``Rows.limited`` fills them, against the one rule for a single request."""
    rows, one = Rows(), sequence(3)
    one.request = Kind(streaming, limits).as_request()
    one.first_token_s, one.sent_s = first_s, 0.25
    rows.add(one, prefill_tokens=0, computed=1, emitted=emitted)
    rows.decodes(0)
    rows.limited(0, one)
    found = rows.columns(last_token_s=first_s + more_s, limits=True).deadline_s
    truth = next_deadline_s(
        limits,
        streaming=streaming,
        sent_s=0.25,
        first_token_s=first_s,
        last_token_s=first_s + more_s,
        emitted_tokens=emitted,
    )
    assert found.tolist() == [truth]
    assert next_deadlines_s.__doc__


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=2, max_size=2), st.integers(1, 12), st.sampled_from([3, 4, 5, 7])
)
def test_digests_are_equal_as_far_as_the_blocks_of_a_trace_are(numbers: list[list[int]], size: int, block_tokens: int) -> None:
    prompts = np.array([len(each) * size for each in numbers])
    named = TraceBlocks(lambda row: tuple((number, size) for number in numbers[row]), prompts)
    first, second = named(0, block_tokens), named(1, block_tokens)
    texts = [[token for place, number in enumerate(each) for token in [(number, n) for n in range(size)]] for each in numbers]
    common = next((n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    # A block lies in the text before the first number that differs, or it does not.
    whole = common // size * size // block_tokens
    assert [len(first), len(second)] == [len(text) // block_tokens for text in texts]
    assert first[:whole] == second[:whole]
    assert not set(first[-(-common // block_tokens) :]) & set(second[-(-common // block_tokens) :])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 9))
def test_time_is_the_same_in_whatever_stretches_it_is_asked_for(lengths: list[int], seed: int) -> None:
    noise = Noise(np.linspace(0.5, 2.0, 40), np.linspace(1.0, 3.0, 40), 7)
    together, apart = (Timing(LineTimer(1e-3, 1e-5, 1e-5, 1e-7), Overheads(1e-4, 1e-5, 5e-4), noise, (seed,)) for _ in range(2))
    now_s = other_s = 0.0
    step, context = 0, 100
    for length in lengths:
        work = StepWork(2, 2, context, context)
        ends, frees = together.steps(work, step=step, start_s=now_s, steps=length, decodes=2)
        together.stepped(2)
        now_s = float(frees[-1])
        for place in range(length):
            each = StepWork(2, 2, context + 2 * place, context + 2 * place)
            end_s, other_s = apart.step(each, step=step + place, start_s=other_s)
            apart.stepped(2)
            assert (end_s, other_s) == (ends[place], frees[place])
        step, context = step + length, context + 2 * length


def test_a_policy_is_taught_the_machine_and_then_left_alone() -> None:
    timer = LineTimer(5e-3, 2e-5, 3e-5, 5e-8, 1e-10)
    model = taught_model(timer, ServingConfig(mode=BatchingMode.SETPOINT, max_running=64, token_budget=2048), Overheads())
    for work in (StepWork(32, 32, 32_000, 32_000), StepWork(1024, 20, 20_000, 600_000)):
        line = timer.affine(work.tokens, work.sequences)
        truth = line[0] + line[1] * work.kv_tokens_read + line[2] * work.attention_products
        assert model.predict_s(work) == pytest.approx(truth, rel=0.1)
    before = model.coefficients
    model.observe(StepWork(32, 32, 1, 1), 99.0)
    assert model.coefficients == before


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 3]))
def test_a_simulated_load_is_the_one_that_is_measured(seed: int, groups: int) -> None:
    part = MixPart(name="b", prompt_tokens=ConstantTokens(value=40), output_tokens=UniformTokens(min=2, max=9), weight=2.0)
    shape: dict[str, Any] = {"prompt_tokens": UniformTokens(min=20, max=60), "output_tokens": ConstantTokens(value=5)}
    other = MixPart(name="a", shared_prefix_tokens=16, prefix_groups=groups, **shape)
    profile = RequestProfile(arrival=Arrival(rate_rps=20), mix=(other, part), **shape)
    times: dict[str, Any] = {"seed": seed, "warmup_s": 1.0, "sustained_s": 4.0, "recovery_s": 1.0}
    load = load_of_profile(profile, Kind(), drain_s=1.0, **times)

    def no_prompt(*, tokens: int, **_: object) -> Prompt:
        return Prompt("", tokens, exact=True)

    plan = plan_load(profile, make_prompt=no_prompt, **times)
    assert load.sent_s.tolist() == [each.intended_s for each in plan.requests]
    assert load.prompt_tokens.tolist() == [each.prompt_tokens for each in plan.requests]
    assert load.output_tokens.tolist() == [each.max_tokens for each in plan.requests]
    assert [load.phases[place].phase for place in load.phase.tolist()] == [each.phase for each in plan.requests]


def test_a_number_of_requests_is_kept() -> None:
    profile = RequestProfile(
        prompt_tokens=ConstantTokens(value=8), output_tokens=ConstantTokens(value=8), arrival=Arrival(rate_rps=7.0)
    )
    length_s = sustained_for(profile, 123, seed=5, warmup_s=2.0)
    load = load_of_profile(profile, Kind(), seed=5, warmup_s=2.0, sustained_s=length_s, recovery_s=0.0, drain_s=1.0)
    assert sum(load.phases[place].phase is Phase.SUSTAINED for place in load.phase.tolist()) == 123


def measured_steps(draft_s: float = 0.0) -> tuple[pa.Table, pa.Table]:
    """1500 steps of a machine that is a line, 1.5 ms apart, and a request; before every second step drafts are made."""
    dice = np.random.default_rng(3)
    size = 1500
    decodes = dice.integers(1, 16, size)
    prefill = np.where(dice.random(size) < 0.3, dice.integers(16, 200, size), 0)
    reads = decodes * dice.integers(50, 400, size) + prefill
    took_s = 0.01 + 2e-4 * (decodes + prefill) + 5e-4 * decodes + 1e-6 * reads
    took_s = took_s * dice.lognormal(0, 0.05, size)
    making_s = np.where(np.arange(size) % 2 == 1, draft_s, 0.0)
    ends = np.cumsum(making_s + took_s + 1.5e-3)
    rows = {
        "start_s": ends - took_s,
        "end_s": ends,
        "prefill_tokens": prefill,
        "decode_tokens": decodes,
        "sequences": decodes,
        "kv_tokens_read": reads,
        "attention_products": reads,
        "running": decodes,
        "draft_s": making_s,
    }
    requests = pa.table({"request_id": ["a"], "intended_s": [0.0], "first_token_s": [ends[0] + 2e-3], "ended_s": [ends[5]]})
    return pa.table(rows), requests


def test_a_machine_is_found_again_in_its_own_steps() -> None:
    steps, requests = measured_steps()
    machine = calibrate(steps, requests)
    for work in (StepWork(8, 8, 2000, 2000), StepWork(108, 8, 2100, 2100)):
        base_s, read_s, product_s = machine.timer.affine(work.tokens, work.sequences)
        truth = 0.01 + 2e-4 * work.tokens + 5e-4 * work.sequences + 1e-6 * work.kv_tokens_read
        assert base_s + (read_s + product_s) * work.kv_tokens_read == pytest.approx(truth, rel=0.06)
    assert machine.overheads.between_s + 8 * machine.overheads.between_sequence_s == pytest.approx(1.5e-3, rel=0.02)
    assert machine.timer.relative_error == pytest.approx(0.05, rel=0.3)
    with pytest.raises(TooFewSteps, match="at least"):
        calibrate(steps.slice(0, 10), requests)


def test_what_making_drafts_takes_is_no_time_between_steps() -> None:
    """Seen: drafting was counted twice in forecasts, between the steps of every configuration and in what drafts."""
    steps, requests = measured_steps(draft_s=6e-3)
    between = calibrate(steps, requests).overheads
    assert between.between_s + 8 * between.between_sequence_s == pytest.approx(1.5e-3, rel=0.02)


def test_steps_of_earlier_versions_tell_nothing_of_drafts() -> None:
    steps, requests = measured_steps()
    known = calibrate(steps, requests).overheads
    without = steps.drop_columns(["draft_s"])
    assert calibrate(without, requests).overheads == known
    assert calibrate(without.append_column("draft_s", pa.nulls(len(steps), pa.float64())), requests).overheads == known


def test_so_many_requests_are_kept_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = RequestProfile(
        prompt_tokens=ConstantTokens(value=8), output_tokens=ConstantTokens(value=8), arrival=Arrival(rate_rps=7.0)
    )
    with pytest.raises(ValueError, match=f"at most {MAX_ARRIVALS} requests"):
        sustained_for(profile, MAX_ARRIVALS + 1, seed=0, warmup_s=0.0)
    monkeypatch.setattr(offered, "MAX_ARRIVALS", 120)
    monkeypatch.setattr(offered, "SPARE_ARRIVALS", 0.5)
    with pytest.raises(ValueError, match="so many requests do not come"):
        sustained_for(profile, 120, seed=0, warmup_s=0.0)


@pytest.mark.parametrize(
    ("times_s", "kept"),
    [([0.1, 0.2, 0.3, 0.4], 2), ([0.1, 0.2, 0.2, 0.4], 3), ([0.1, 0.2, float(np.nextafter(0.2, 1.0)), 0.4], 2)],
)
def test_the_end_of_a_phase_lies_behind_the_last_request(
    times_s: list[float], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the next one comes at the same moment, or at the very next that there is."""
    profile = RequestProfile(
        prompt_tokens=ConstantTokens(value=8), output_tokens=ConstantTokens(value=8), arrival=Arrival(rate_rps=7.0)
    )
    monkeypatch.setattr(offered, "offsets_of", lambda arrival, duration_s, rng: np.array(times_s))
    end_s = sustained_for(profile, 2, seed=0, warmup_s=0.0)
    assert int((np.array(times_s) < end_s).sum()) == kept


def conversations(**changes: Any) -> RequestProfile:
    """Three turns each, of lengths that say which turn it is."""
    sessions = Sessions(turns=ConstantTokens(value=3), added_tokens=ConstantTokens(value=7), **changes)
    shape: dict[str, Any] = {"prompt_tokens": ConstantTokens(value=50), "output_tokens": ConstantTokens(value=5)}
    return RequestProfile(arrival=Arrival(rate_rps=6.0), sessions=sessions, **shape)


@pytest.mark.parametrize(("think_s", "share"), [(0.0, 1.0), (4.0, 1.0), (4.0, 0.25)])
def test_turns_come_after_the_answers_before_them(think_s: float, share: float) -> None:
    profile = conversations(think_time=ConstantSeconds(value_s=think_s))
    times: dict[str, Any] = {"seed": 3, "warmup_s": 0.0, "sustained_s": 60.0, "recovery_s": 0.0, "drain_s": 1.0}
    load = load_of_profile(profile, Kind(), pace=TurnPace(2.0, share), **times)
    turns = [load.sent_s[load.prompt_tokens == 50 + turn * 12] for turn in range(3)]
    assert len(turns[1]) > 50
    for before, after in pairwise(turns):
        assert after == pytest.approx(before[: len(after)] + 2.0 + share * think_s)


def test_conversations_of_which_none_begins_are_an_empty_load() -> None:
    profile = conversations().at_rate(1e-6)
    times: dict[str, Any] = {"seed": 0, "warmup_s": 0.0, "sustained_s": 1.0, "recovery_s": 0.0, "drain_s": 1.0}
    load = load_of_profile(profile, Kind(), **times)
    load.check()
    assert len(load) == 0
    assert [phase.phase for phase in load.phases] == [Phase.SUSTAINED]


def test_a_cool_down_comes_last_at_the_same_rate() -> None:
    profile = RequestProfile(
        prompt_tokens=ConstantTokens(value=8), output_tokens=ConstantTokens(value=8), arrival=Arrival(rate_rps=50.0)
    )
    times: dict[str, Any] = {"seed": 1, "warmup_s": 1.0, "sustained_s": 4.0, "recovery_s": 0.0, "drain_s": 1.0}
    plain, longer = load_of_profile(profile, Kind(), **times), load_of_profile(profile, Kind(), cool_down_s=4.0, **times)
    assert [phase.phase for phase in longer.phases] == [Phase.WARMUP, Phase.SUSTAINED, Phase.RECOVERY]
    assert longer.sent_s[: len(plain)].tolist() == plain.sent_s.tolist()
    assert len(longer) - len(plain) == pytest.approx(200, rel=0.3)


def test_after_a_ramp_it_goes_on_as_it_ended() -> None:
    profile = RequestProfile(
        prompt_tokens=ConstantTokens(value=8),
        output_tokens=ConstantTokens(value=8),
        arrival=Arrival(process="ramp", rate_rps=10.0, to_rps=90.0),
    )
    times: dict[str, Any] = {"seed": 1, "warmup_s": 0.0, "sustained_s": 4.0, "recovery_s": 0.0, "drain_s": 1.0}
    load = load_of_profile(profile, Kind(), cool_down_s=4.0, **times)
    assert np.count_nonzero(load.phase == 1) == pytest.approx(360, rel=0.2)


def test_requests_of_a_trace_that_are_too_long_are_cut_and_counted() -> None:
    prompts, outputs = np.array([100, 900, 900, 10]), np.array([50, 200, 90, 995])
    trace = Trace("t", "azure", prompts, outputs, np.array([0.0, 1.0, 2.0, 3.0]), notes=("a note",))
    times: dict[str, Any] = {"warmup_s": 0.0, "sustained_s": 10.0, "drain_s": 1.0}
    load = load_of_trace(trace, Kind(), most_tokens=1000, **times)
    limits = Limits(None, None, 1000)
    wanted = [limits.cut(*lengths) for lengths in zip(prompts.tolist(), outputs.tolist(), strict=True)]
    assert list(zip(load.prompt_tokens.tolist(), load.output_tokens.tolist(), strict=True)) == wanted
    assert load.notes == ("a note", *limits.notes())
    assert prompts.tolist() == [100, 900, 900, 10]
    assert load_of_trace(trace, Kind(), **times).prompt_tokens.tolist() == prompts.tolist()
