"""The queue played forward: against a plain step-by-step play, by example, bounded, monotone."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.forecast import MOST_PHASES, Decoding, Machine, Prompt, play

MACHINE = Machine(0.01, 1e-3, 2e-3, inf, 16, 100)
IDLE = Decoding((), (), 8, 1e9)

machines = st.builds(
    Machine,
    st.floats(1e-3, 0.05),
    st.floats(1e-4, 2e-3),
    st.floats(1e-4, 2e-3),
    st.one_of(st.just(inf), st.floats(0.02, 0.2)),
    st.integers(1, 32),
    st.integers(33, 512),
)
prompts = st.lists(st.builds(Prompt, st.integers(1, 600), st.integers(1, 60), st.just(50.0)), max_size=8)
decodings = st.lists(st.integers(1, 80), max_size=6).map(
    lambda left: Decoding([float(n) for n in left], [60.0] * len(left), 8 - len(left), 400.0)
)


def step_by_step(machine: Machine, decoding: Decoding, queue: list[Prompt]) -> list[float]:
    """The same rules, a step at a time and without shortcuts."""
    ends = sorted(zip(decoding.tokens_left, decoding.kv_held, strict=True))
    places, kv, now_s, step = decoding.places, decoding.kv_free, 0.0, 0
    left = [prompt.tokens for prompt in queue]
    joined = [False] * len(queue)
    first = [inf] * len(queue)
    for _ in range(200_000):
        for end in [end for end in ends if end[0] <= step]:
            ends.remove(end)
            places, kv = places + 1, kv + end[1]
        if not any(left):
            break
        decodes, budget, taken = len(ends), machine.budget(len(ends)), 0
        done = []
        for index, prompt in enumerate(queue):
            if not left[index]:
                continue
            if taken == budget:
                break
            if not joined[index]:
                if places <= 0 or (prompt.kv_tokens > kv and ends):
                    break
                joined[index], places, kv = True, places - 1, kv - prompt.kv_tokens
            share = min(left[index], budget - taken)
            left[index] -= share
            taken += share
            if not left[index]:
                done.append(index)
        if not taken and not ends:
            break
        now_s += machine.step_s(decodes, taken)
        step += 1
        for index in done:
            first[index] = now_s
            ends.append((step + queue[index].output_tokens - 1, queue[index].kv_tokens))
    return first


@given(machines, decodings, prompts)
def test_taking_equal_steps_in_one_go_changes_nothing(machine: Machine, decoding: Decoding, queue: list[Prompt]) -> None:
    assert play(machine, decoding, queue).first_s == pytest.approx(step_by_step(machine, decoding, queue), rel=1e-9)


@given(machines, decodings, prompts, st.integers(1, 500))
def test_who_is_behind_more_work_does_not_come_earlier_when_nothing_else_changes(
    machine: Machine, decoding: Decoding, queue: list[Prompt], tokens: int
) -> None:
    last = Prompt(20, 5)
    roomy = replace(decoding, places=100, kv_free=1e9, tokens_left=(), kv_held=())
    behind = play(machine, roomy, [Prompt(tokens, 1e9), last]).first_s[-1]
    assert behind >= play(machine, roomy, [last]).first_s[-1]


def test_by_example() -> None:
    assert play(MACHINE, IDLE, [Prompt(150, 1)]).first_s == pytest.approx([2 * 0.01 + 0.15])
    # Two in one step, the third in the next, beside the two answers that have begun.
    queue = [Prompt(40, 9), Prompt(60, 9), Prompt(50, 9)]
    assert play(MACHINE, IDLE, queue).first_s == pytest.approx([0.11, 0.11, 0.11 + 0.01 + 0.05 + 0.004])
    # A place is free only after the answer under way has ended: 3 steps of 12 ms.
    full = Decoding((3.0,), (10.0,), 0, 1e9)
    assert play(MACHINE, full, [Prompt(10, 1)]).first_s == pytest.approx([0.036 + 0.02])
    # So with the cache.
    crowded = Decoding((3.0,), (10.0,), 5, 5.0)
    assert play(MACHINE, crowded, [Prompt(10, 1, 12.0)]).first_s == pytest.approx([0.036 + 0.02])


def test_the_doomed_are_left_out_and_those_behind_move_up() -> None:
    queue = [Prompt(100, 5, due_s=0.05), Prompt(50, 5, due_s=0.07)]
    played = play(MACHINE, IDLE, queue)
    assert played.doomed == [0]
    assert played.first_s == pytest.approx([inf, 0.06])


def test_a_slack_sized_budget_with_a_floor() -> None:
    tight = replace(MACHINE, allowed_s=0.05)
    assert tight.budget(0) == 40
    assert tight.budget(10) == 20
    assert tight.budget(19) == 16


def test_a_long_queue_costs_a_bounded_number_of_phases() -> None:
    queue = [Prompt(90, 1000) for _ in range(10 * MOST_PHASES)]
    first = play(MACHINE, replace(IDLE, places=10**6), queue).first_s
    assert first == sorted(first)
    assert first[-1] < inf


def test_nobody_can_ever_join_is_not_a_loop() -> None:
    assert play(MACHINE, Decoding((), (), 0, 0.0), [Prompt(5, 5)]).first_s == [inf]
