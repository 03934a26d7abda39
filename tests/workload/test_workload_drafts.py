"""Sessions, mixes and shared prefixes in a plan: who follows whom, how often each kind comes, and what prompts share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_tokenizers import encode_words

from setpoint.record import Phase
from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    Burst,
    ConstantSeconds,
    ConstantTokens,
    LognormalSeconds,
    MixPart,
    RequestProfile,
    Sessions,
    UniformSeconds,
    UniformTokens,
)
from setpoint.workload import (
    EstimatedPrompts,
    LoadPlan,
    Prompt,
    TextPrompts,
    TokenIdPrompts,
    draw_seconds,
    largest_context_tokens,
    plan_load,
)
from setpoint.workload.fitting import common_length

TALK = Sessions(turns=UniformTokens(min=2, max=6), think_time=UniformSeconds(min_s=0.5, max_s=2.0))


def blank(**arguments: Any) -> Prompt:
    """A prompt that tells what was asked for."""
    return Prompt(f"{arguments['seed']}:{arguments['shared_prefix_tokens']}", int(arguments["tokens"]), exact=True)


def profile(**changes: Any) -> RequestProfile:
    fields: dict[str, Any] = {
        "prompt_tokens": UniformTokens(min=40, max=80),
        "output_tokens": UniformTokens(min=4, max=8),
        "arrival": Arrival(rate_rps=20.0),
    }
    return RequestProfile(**(fields | changes))


def plan(shape: RequestProfile, **changes: Any) -> LoadPlan:
    arguments: dict[str, Any] = {"seed": 1, "warmup_s": 10.0, "sustained_s": 50.0, "recovery_s": 0.0, "make_prompt": blank}
    return plan_load(shape, **(arguments | changes))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**40), warmup_s=st.floats(0, 5), think_s=st.floats(0, 3))
def test_turns_follow_each_other(seed: int, warmup_s: float, think_s: float) -> None:
    sessions = Sessions(turns=UniformTokens(min=1, max=5), think_time=ConstantSeconds(value_s=think_s))
    burst = Burst(rate_rps=60.0, duration_s=2.0)
    load = plan(profile(sessions=sessions, burst=burst), seed=seed, warmup_s=warmup_s, sustained_s=6.0, recovery_s=2.0)
    assert [request.index for request in load.requests] == list(range(len(load.requests)))
    assert all(one.intended_s <= two.intended_s for one, two in zip(load.requests, load.requests[1:], strict=False))
    for request in load.requests:
        assert request.session is not None
        assert (request.follows is None) == (request.turn == 0)
        span = [span for span in load.phases if span.start_s <= request.intended_s < span.end_s]
        assert [span.phase for span in span] == [request.phase]
        if request.follows is not None:
            before = load.requests[request.follows]
            assert before.index < request.index
            assert (before.session, before.turn + 1, request.think_s) == (request.session, request.turn, think_s)
            assert request.intended_s == pytest.approx(before.intended_s + think_s)
            assert before.intended_s < load.duration_s


def test_the_rate_is_that_of_requests_not_of_sessions() -> None:
    load = plan(profile(sessions=TALK), warmup_s=20.0, sustained_s=400.0)
    # Sessions cut at the end of the run lose up to 10 s of turns out of 400.
    assert load.offered[Phase.SUSTAINED] / 400 == pytest.approx(20.0, rel=0.06)
    starts = [request for request in load.requests if request.turn == 0]
    assert len(starts) / 420 == pytest.approx(5.0, rel=0.06)
    turns = Counter(request.session for request in load.requests if request.phase is Phase.SUSTAINED)
    assert max(turns.values()) == 6


def test_added_tokens_are_those_of_later_turns() -> None:
    sessions = TALK.model_copy(update={"added_tokens": ConstantTokens(value=7)})
    load = plan(profile(sessions=sessions, shared_prefix_tokens=16))
    assert {request.prompt_tokens for request in load.requests if request.turn} == {7}
    assert {str(request.prompt).split(":")[1] for request in load.requests if request.turn} == {"0"}
    assert {str(request.prompt).split(":")[1] for request in load.requests if not request.turn} == {"16"}


def test_the_largest_context_is_that_of_a_whole_conversation() -> None:
    sessions = Sessions(turns=ConstantTokens(value=3), added_tokens=ConstantTokens(value=7))
    load = plan(profile(prompt_tokens=ConstantTokens(value=50), output_tokens=ConstantTokens(value=5), sessions=sessions))
    assert largest_context_tokens(load.requests) == 50 + 5 + 2 * (7 + 5)
    assert largest_context_tokens([]) == 0


def test_prompts_of_sessions_differ() -> None:
    load = plan(profile(sessions=TALK), make_prompt=TextPrompts(encode_words))
    assert len({request.prompt for request in load.requests}) == len(load.requests)


def test_kinds_of_a_mix_come_as_often_as_their_weights_say() -> None:
    parts = (
        MixPart(name="chat", weight=3, prompt_tokens=ConstantTokens(value=30), output_tokens=ConstantTokens(value=3)),
        MixPart(name="rag", weight=1, prompt_tokens=ConstantTokens(value=900), output_tokens=ConstantTokens(value=9)),
    )
    load = plan(profile(mix=parts), sustained_s=400.0)
    counts = Counter((request.profile, request.prompt_tokens, request.max_tokens) for request in load.requests)
    assert set(counts) == {("chat", 30, 3), ("rag", 900, 9)}
    assert counts["chat", 30, 3] / len(load.requests) == pytest.approx(0.75, abs=0.02)
    assert load.offered[Phase.SUSTAINED] / 400 == pytest.approx(20.0, rel=0.05)


def test_another_kind_in_the_mix_leaves_the_lengths_of_the_first_as_they_are() -> None:
    first = MixPart(name="a", prompt_tokens=UniformTokens(min=40, max=80), output_tokens=UniformTokens(min=4, max=8))
    second = first.model_copy(update={"name": "b", "weight": 0.2})
    alone = [request.prompt_tokens for request in plan(profile(mix=(first,))).requests]
    beside = [r.prompt_tokens for r in plan(profile(mix=(first, second)), warmup_s=0.0).requests if r.profile == "a"]
    assert beside[:50] == [r.prompt_tokens for r in plan(profile(mix=(first,)), warmup_s=0.0).requests][:50]
    assert alone


def test_a_mix_of_sessions_and_single_requests_keeps_the_rate() -> None:
    lengths: dict[str, Any] = {"prompt_tokens": ConstantTokens(value=30), "output_tokens": ConstantTokens(value=3)}
    parts = (MixPart(name="talk", weight=1, sessions=TALK, **lengths), MixPart(name="one", weight=3, **lengths))
    load = plan(profile(mix=parts), sustained_s=400.0)
    assert load.offered[Phase.SUSTAINED] / 400 == pytest.approx(20.0, rel=0.06)
    starts = Counter(request.profile for request in load.requests if request.turn == 0)
    assert starts["talk"] / starts.total() == pytest.approx(0.25, abs=0.03)


def test_prefix_groups_are_as_many_as_were_asked_for() -> None:
    shape = profile(shared_prefix_tokens=24, prefix_groups=5)
    load = plan(shape, make_prompt=TokenIdPrompts(encode_words))
    prefixes = Counter(tuple(request.prompt[:24]) for request in load.requests)
    assert len(prefixes) == 5
    assert min(prefixes.values()) > 0.1 * len(load.requests)
    one = plan(profile(shared_prefix_tokens=24), make_prompt=TokenIdPrompts(encode_words))
    assert {tuple(request.prompt[:24]) for request in one.requests} <= set(prefixes)


@pytest.mark.parametrize(("hit_rate", "groups"), [(0.5, 1), (0.8, 3)])
def test_a_cache_finds_the_hit_rate_that_was_asked_for(hit_rate: float, groups: int) -> None:
    shape = profile(prompt_tokens=UniformTokens(min=60, max=600), prefix_hit_rate=hit_rate, prefix_groups=groups)
    load = plan(shape, make_prompt=TokenIdPrompts(encode_words))
    assert cache_hits(load, 16) == pytest.approx(hit_rate, abs=0.04)


def cache_hits(load: LoadPlan, block: int) -> float:
    """What a prefix cache of whole blocks that forgets nothing finds, once it is warm."""
    seen: set[int] = set()
    found = total = 0
    for request in load.requests:
        ids, chain, hit = request.prompt, 0, True
        assert isinstance(ids, tuple)
        for start in range(0, len(ids) - block + 1, block):
            chain = hash((chain, ids[start : start + block]))
            hit = hit and chain in seen
            found += block * hit if request.phase is Phase.SUSTAINED else 0
            seen.add(chain)
        total += len(ids) if request.phase is Phase.SUSTAINED else 0
    return found / total


def test_text_prompts_share_at_the_hit_rate_too() -> None:
    shape = profile(prompt_tokens=UniformTokens(min=100, max=200), prefix_hit_rate=0.5)
    load = plan(shape, sustained_s=3.0, warmup_s=0.0, make_prompt=TextPrompts(encode_words))
    ids = [encode_words(str(request.prompt)) for request in load.requests]
    for one, other, first, second in zip(ids, ids[1:], load.requests, load.requests[1:], strict=False):
        shared = min(round(tokens * 0.5 / 16) * 16 for tokens in (first.prompt_tokens, second.prompt_tokens))
        assert shared - 2 <= common_length(one, other) <= shared + 2


@pytest.mark.parametrize("process", [ArrivalProcess.RAMP, ArrivalProcess.ON_OFF])
def test_phases_around_a_changing_rate_are_calm(process: ArrivalProcess) -> None:
    fields = {"to_rps": 30.0} if process is ArrivalProcess.RAMP else {"on_s": 1.0, "off_s": 1.0}
    arrival = Arrival(process=process, rate_rps=10.0, **fields)
    shape = profile(arrival=arrival, burst=Burst(rate_rps=60.0, duration_s=20.0))
    load = plan(shape, warmup_s=100.0, sustained_s=100.0, recovery_s=100.0)
    assert load.offered[Phase.WARMUP] / 100 == pytest.approx(arrival.calm_rps, rel=0.2)
    assert load.offered[Phase.RECOVERY] / 100 == pytest.approx(arrival.calm_rps, rel=0.2)
    assert load.offered[Phase.SUSTAINED] / 100 == pytest.approx(arrival.mean_rps, rel=0.15)
    assert load.offered[Phase.BURST] / 20 == pytest.approx(60.0, rel=0.15)


def test_a_plan_of_too_many_tokens_is_refused() -> None:
    shape = profile(prompt_tokens=ConstantTokens(value=100_000))
    with pytest.raises(ValueError, match="at most 50000000 can be planned: shorten the run, or the prompts"):
        plan(shape, make_prompt=EstimatedPrompts())


@given(seed=st.integers(0, 2**32), size=st.integers(0, 200))
def test_think_times_keep_their_bounds(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = draw_seconds(LognormalSeconds(median_s=5, p95_s=30, min_s=1, max_s=60), size, rng)
    assert drawn.shape == (size,)
    assert ((drawn >= 1) & (drawn <= 60)).all()


def test_think_times_have_the_stated_median_and_p95() -> None:
    drawn = draw_seconds(LognormalSeconds(median_s=5, p95_s=30, max_s=600), 100_000, np.random.default_rng(1))
    assert np.percentile(drawn, [50, 95]) == pytest.approx([5, 30], rel=0.03)
