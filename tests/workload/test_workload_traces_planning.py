"""A trace as a plan: the arrivals it had, prompts of its lengths that share what they shared, and what was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_tokenizers import encode_chat, encode_words
from workload_trace_files import azure, mooncake, own, talk, write

from setpoint.record import Phase
from setpoint.requirement import Arrival, ConstantSeconds
from setpoint.workload import EstimatedPrompts, LoadPlan, PromptMaker, TextPrompts, TokenIdPrompts
from setpoint.workload.fitting import common_length
from setpoint.workload.traces import Trace, TraceError, plan_trace, read_trace
from setpoint.workload.traces.clipping import Limits
from setpoint.workload.traces.trace import Turn

TRACE = Trace(
    name="t.csv",
    format="azure",
    times_s=np.arange(100).astype(np.float64) / 2,
    prompt_tokens=np.arange(100) + 20,
    output_tokens=np.arange(100) % 7 + 1,
    notes=("A note.",),
)
TALKS = Trace(
    name="s.json",
    format="sharegpt",
    prompt_tokens=np.full(5, 4),
    output_tokens=np.full(5, 4),
    conversations=[[Turn(f"Question {talk} of {turn}?", "word " * (turn + 2)) for turn in range(3)] for talk in range(5)],
    exact=False,
)


def ids_of(load: LoadPlan) -> list[tuple[int, ...]]:
    """The prompts of a plan that has token ids."""
    return [prompt for prompt in (request.prompt for request in load.requests) if isinstance(prompt, tuple)]


def words_in_common(one: str, other: str) -> int:
    """How many words two texts begin with together."""
    return common_length(*([hash(word) for word in text.split()] for text in (one, other)))


def plan(trace: Trace = TRACE, **changes: Any) -> LoadPlan:
    arguments: dict[str, Any] = {"seed": 1, "warmup_s": 5.0, "make_prompt": EstimatedPrompts()}
    return plan_trace(trace, **(arguments | changes))


def test_the_whole_trace_is_replayed_as_it_was() -> None:
    load = plan()
    assert [request.intended_s for request in load.requests] == pytest.approx(TRACE.times_s)
    assert [request.prompt_tokens for request in load.requests] == TRACE.prompt_tokens.tolist()
    assert [request.max_tokens for request in load.requests] == TRACE.output_tokens.tolist()
    assert [(span.phase, span.start_s) for span in load.phases] == [(Phase.WARMUP, 0.0), (Phase.SUSTAINED, 5.0)]
    assert load.duration_s == pytest.approx(50.0)
    assert load.offered == {Phase.WARMUP: 10, Phase.SUSTAINED: 90}
    assert load.notes == ("A note.",)


@given(
    start_s=st.floats(0, 30),
    warmup_s=st.floats(0, 3),
    duration_s=st.none() | st.floats(5, 100),
    speed_up=st.floats(0.25, 4),
)
def test_a_window_has_the_requests_that_lie_in_it(
    start_s: float, warmup_s: float, duration_s: float | None, speed_up: float
) -> None:
    load = plan(start_s=start_s, warmup_s=warmup_s, duration_s=duration_s, speed_up=speed_up)
    assert TRACE.times_s is not None
    end_s = start_s + speed_up * (warmup_s + (1e9 if duration_s is None else duration_s))
    inside = TRACE.times_s[(TRACE.times_s >= start_s) & (TRACE.times_s < end_s)]
    assert [request.intended_s for request in load.requests] == pytest.approx((inside - start_s) / speed_up)
    for request in load.requests:
        assert (request.phase is Phase.WARMUP) == (request.intended_s < warmup_s)
        assert request.intended_s < load.duration_s
    wanted_s = warmup_s + (1e9 if duration_s is None else duration_s)
    assert load.duration_s == pytest.approx(min(wanted_s, (50.0 - start_s) / speed_up), rel=1e-6)


def test_what_the_run_should_know_is_said() -> None:
    load = plan(speed_up=2.0, duration_s=1000.0, max_prompt_tokens=50, max_output_tokens=6)
    assert load.notes == (
        "A note.",
        "The trace ends before the run was to: it lasts 25 s instead of 1e+03 s.",
        "The trace is replayed 2 times as fast as it was.",
        "69 prompts were cut to the most tokens that the model takes.",
        "14 answers were cut to the most tokens that the model takes.",
    )
    assert max(request.prompt_tokens for request in load.requests) == 50
    assert max(request.max_tokens for request in load.requests) == 6


@given(
    prompt=st.integers(1, 5000),
    output=st.integers(1, 5000),
    total=st.none() | st.integers(2, 4000),
    most=st.none() | st.integers(1, 3000),
)
def test_lengths_within_limits(prompt: int, output: int, total: int | None, most: int | None) -> None:
    limits = Limits(most, most, total)
    cut_prompt, cut_output = limits.cut(prompt, output)
    assert 1 <= cut_prompt <= min(prompt, most or prompt)
    assert 1 <= cut_output <= min(output, most or output)
    assert total is None or cut_prompt + cut_output <= total
    assert limits.cut_prompts == (cut_prompt < prompt)
    assert limits.cut_outputs == (cut_output < output)
    if prompt + output <= (total or 10_000) and most is None:
        assert (cut_prompt, cut_output) == (prompt, output)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"speed_up": 0.0}, "speed_up is 0.0; allowed: more than 0"),
        ({"start_s": -1.0}, "start_s is -1.0"),
        ({"duration_s": 0.0}, "duration_s is 0.0; allowed: more than 0 s"),
        ({"warmup_s": float("nan")}, "warmup_s is nan"),
        (
            {"start_s": 60.0},
            "t.csv: there is no request in this part of it after the warm-up, which takes it from 60 s to 65 s",
        ),
        ({"start_s": 60.0}, "it is 50 s long"),
        ({"warmup_s": 60.0}, "no request in this part of it after the warm-up"),
        ({"start_s": 0.1, "warmup_s": 0.0, "duration_s": 0.2}, "from 0.1 s to 0.1 s; the next comes at 0.5 s"),
        ({"arrival": Arrival(rate_rps=1)}, "azure has times of its own"),
        ({"trace": TALKS}, "s.json: sharegpt has no times, so the rate must be given"),
        ({"trace": TALKS, "arrival": Arrival(rate_rps=1), "speed_up": 2.0}, "there is no start in it and no speed-up"),
        ({"trace": TALKS, "arrival": Arrival(rate_rps=1e-6), "duration_s": 1.0}, "no request comes within 1 s: run longer"),
    ],
)
def test_what_cannot_be_planned_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError) as caught:
        plan(**changes)
    assert message in str(caught.value)


def test_a_trace_too_large_for_memory_is_refused_with_what_to_do() -> None:
    long = Trace("t.csv", "azure", np.full(600, 100_000), np.full(600, 5), np.arange(600.0))
    with pytest.raises(TraceError, match=r"t.csv: 600 prompts of 60000000 tokens in all, at most 50000000 .* shorten the run"):
        plan(long)
    assert len(plan(long, duration_s=10.0).requests) == 15


# Blocks.

HASHES = [[0, 1, 2], [0, 1, 3, 4], [0, 5], [6], [0, 1, 3, 4]]
LENGTHS = [1400, 2048, 700, 300, 2048]


def mooncake_plan(tmp_path: Path, make_prompt: PromptMaker, **changes: Any) -> LoadPlan:
    rows = [
        {"timestamp": 1000 * index, "input_length": tokens, "output_length": 5, "hash_ids": hashes}
        for index, (hashes, tokens) in enumerate(zip(HASHES, LENGTHS, strict=True))
    ]
    trace = read_trace(mooncake(tmp_path / "m.jsonl", rows))
    return plan(trace, warmup_s=0.0, make_prompt=make_prompt, **changes)


@pytest.mark.parametrize("maker", [TokenIdPrompts, TextPrompts])
def test_equal_hashes_are_equal_tokens_and_nothing_else_is(tmp_path: Path, maker: Any) -> None:
    load = mooncake_plan(tmp_path, maker(encode_words))
    ids = [
        encode_words(request.prompt) if isinstance(request.prompt, str) else list(request.prompt) for request in load.requests
    ]
    assert [len(one) for one in ids] == LENGTHS
    assert [request.prompt_tokens for request in load.requests] == LENGTHS
    for one in range(5):
        for other in range(one):
            shared = 512 * common_length(HASHES[one], HASHES[other])
            assert abs(common_length(ids[one], ids[other]) - min(shared, LENGTHS[one], LENGTHS[other])) <= 1


def test_blocks_follow_from_hash_and_seed_alone(tmp_path: Path) -> None:
    first = mooncake_plan(tmp_path, TokenIdPrompts(encode_words))
    again = mooncake_plan(tmp_path, TokenIdPrompts(encode_words), start_s=1.0)
    assert again.requests[0].prompt == first.requests[1].prompt
    other = mooncake_plan(tmp_path, TokenIdPrompts(encode_words), seed=2)
    assert common_length(ids_of(other)[1], ids_of(first)[1]) < 16


def test_blocks_without_a_tokenizer_share_text(tmp_path: Path) -> None:
    load = mooncake_plan(tmp_path, EstimatedPrompts())
    texts = [str(request.prompt) for request in load.requests]
    assert texts[1] == texts[4]
    assert words_in_common(texts[0], texts[1]) == pytest.approx(1024 / 1.08, rel=0.02)
    assert words_in_common(texts[0], texts[3]) == 0
    assert not load.prompt_tokens_exact


def test_cut_prompts_keep_their_first_blocks(tmp_path: Path) -> None:
    load = mooncake_plan(tmp_path, TokenIdPrompts(encode_words), max_total_tokens=605)
    assert [request.prompt_tokens for request in load.requests] == [600, 600, 600, 300, 600]
    assert common_length(*ids_of(load)[:2]) == 600


def test_prompts_too_short_for_a_template_are_made_longer(tmp_path: Path) -> None:
    trace = read_trace(azure(tmp_path / "a.csv", [(0.0, 2, 5), (1.0, 50, 5), (2.0, 3, 5)]))
    load = plan(trace, warmup_s=0.0, make_prompt=TextPrompts(encode_chat))
    assert [request.prompt_tokens for request in load.requests] == [8, 50, 8]
    assert "2 prompts were too short for this model's chat template and were made longer." in load.notes


def test_what_was_cached_is_shared_again(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"intended_s": [0.0, 1.0, 2.0], "prompt_tokens": [90, 90, 90], "output_tokens": [5, 5, 5]}
    trace = read_trace(own(tmp_path / "r.parquet", {**columns, "cached_tokens": [0, 64, 32]}))
    load = plan(trace, warmup_s=0.0, make_prompt=TokenIdPrompts(encode_words))
    ids = ids_of(load)
    assert common_length(ids[1], ids[2]) == 32
    assert common_length(ids[0], ids[1]) < 4


# Conversations.


def test_conversations_are_single_prompts_of_real_text_in_drawn_order() -> None:
    load = plan(TALKS, arrival=Arrival(rate_rps=2.0), duration_s=20.0, make_prompt=TextPrompts(encode_words))
    assert len(load.requests) == pytest.approx(50, abs=25)
    assert {request.prompt for request in load.requests} == {f"Question {talk} of 0?" for talk in range(5)}
    assert len({request.prompt for request in load.requests[:5]}) == 5
    assert all(request.prompt_tokens == len(encode_words(str(request.prompt))) for request in load.requests)
    assert {request.max_tokens for request in load.requests} == {len(encode_words("word word "))}
    assert load.prompt_tokens_exact
    assert all(request.session is None for request in load.requests)
    assert load == plan(TALKS, arrival=Arrival(rate_rps=2.0), duration_s=20.0, make_prompt=TextPrompts(encode_words))
    assert any("they come more than once" in note for note in load.notes)


def test_conversations_without_a_duration_come_about_once() -> None:
    load = plan(TALKS, arrival=Arrival(rate_rps=0.5), warmup_s=0.0)
    assert load.duration_s == 10.0
    assert not load.prompt_tokens_exact


def test_conversations_are_sessions_where_people_think() -> None:
    load = plan(TALKS, arrival=Arrival(rate_rps=2.0), duration_s=60.0, think_time=ConstantSeconds(value_s=1.5))
    later = [request for request in load.requests if request.follows is not None]
    assert len(later) > len(load.requests) / 2
    for request in later:
        assert request.follows is not None
        before = load.requests[request.follows]
        assert (before.session, before.turn + 1, request.think_s) == (request.session, request.turn, 1.5)
        assert str(request.prompt).endswith(f"of {request.turn}?")
        assert request.intended_s < load.duration_s


def test_conversations_end_where_the_model_does() -> None:
    arguments: dict[str, Any] = {"arrival": Arrival(rate_rps=2.0), "think_time": ConstantSeconds(value_s=0.0)}
    load = plan(TALKS, duration_s=10.0, max_total_tokens=20, make_prompt=TextPrompts(encode_words), **arguments)
    assert max(request.turn for request in load.requests) == 1
    assert any("sessions end early" in note for note in load.notes)
    cut = plan(TALKS, duration_s=10.0, max_prompt_tokens=3, make_prompt=TextPrompts(encode_words), **arguments)
    assert {request.prompt_tokens for request in cut.requests} <= {1, 2, 3}
    assert any("prompts were cut" in note for note in cut.notes)


def test_sharegpt_from_file_to_plan(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", [f"[{', '.join([json.dumps(talk('Who?', 'Me.'))] * 3)}]"])
    load = plan(read_trace(path), arrival=Arrival(rate_rps=3.0), duration_s=10.0, make_prompt=TokenIdPrompts(encode_words))
    assert {request.prompt for request in load.requests} == {tuple(encode_words("Who?"))}
