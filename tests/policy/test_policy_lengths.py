"""Learned lengths: the cap, within reason, until something is known, quantiles after that, conditional on what has come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_views import Row, columns

from setpoint.policy.lengths import MOST_GROUPS, PRIOR_TOKENS, PRIORS, PRIORS_UNTIL, SAMPLES, OutputLengths
from setpoint.policy.views import BATCH, INTERACTIVE


def learned(lengths: list[int], cap: int = 100) -> OutputLengths:
    model = OutputLengths()
    for length in lengths:
        model.ended(INTERACTIVE, cap_tokens=cap, emitted_tokens=length)
    return model


def test_the_cap_until_something_is_known() -> None:
    assert OutputLengths().expected(INTERACTIVE, 70) == 70
    assert OutputLengths().remaining(columns([Row(1, emitted=30, cap=100)])).tolist() == [70.0]
    assert learned([10] * 200).expected(BATCH, 70) == 70, "another class is not learned from"
    assert learned([10] * 200).expected(INTERACTIVE, 400) == 400, "nor callers with quite another cap"


def test_a_cap_that_nobody_means_is_not_believed() -> None:
    assert OutputLengths().expected(INTERACTIVE, 8192) == PRIOR_TOKENS
    rows = columns([Row(1, emitted=0, cap=8192), Row(2, emitted=500, cap=8192), Row(3, emitted=600, cap=8192)])
    assert OutputLengths().remaining(rows).tolist() == [512.0, 12.0, 7592.0]
    assert learned([40] * PRIORS_UNTIL, cap=8000).expected(INTERACTIVE, 8000, 0.9) == 40
    assert PRIOR_TOKENS <= learned([40], cap=8000).expected(INTERACTIVE, 8000, 0.9) <= 2 * PRIOR_TOKENS
    assert learned([40], cap=512).expected(INTERACTIVE, 512, 0.9) == 512


def test_quantiles_of_what_ended() -> None:
    model = learned(list(range(1, 101)) * 2)
    assert model.expected(INTERACTIVE, 100) == pytest.approx(50, abs=3)
    assert model.expected(INTERACTIVE, 100, 0.9) == pytest.approx(91, abs=3)
    # Given 80 tokens, the rest is one of 1..20.
    assert model.remaining(columns([Row(1, emitted=80, cap=100)]))[0] == pytest.approx(11, abs=3)


def test_the_first_short_answers_do_not_set_the_tone() -> None:
    assert learned([2, 3]).expected(INTERACTIVE, 100, 0.9) == 100


@given(st.lists(st.integers(1, 100), max_size=SAMPLES + 50), st.integers(0, 99), st.floats(0, 0.99))
def test_what_is_left_is_between_one_and_what_the_cap_leaves(lengths: list[int], emitted: int, quantile: float) -> None:
    left = learned(lengths).remaining(columns([Row(1, emitted=emitted, cap=100)]), quantile)
    assert 1 <= left[0] <= 100 - emitted


@given(st.lists(st.integers(1, 100), min_size=1, max_size=80), st.integers(0, 99), st.floats(0, 0.9))
def test_a_higher_quantile_is_no_shorter(lengths: list[int], emitted: int, quantile: float) -> None:
    model, row = learned(lengths), columns([Row(1, emitted=emitted, cap=100)])
    assert model.remaining(row, quantile)[0] <= model.remaining(row, quantile + 0.09)[0]


def test_the_number_of_groups_is_bounded() -> None:
    model = OutputLengths()
    for kind in range(2 * MOST_GROUPS):
        model.ended(kind, cap_tokens=10, emitted_tokens=5)
    assert model.expected(2 * MOST_GROUPS - 1, 10) == 10
    assert np.isfinite(model.remaining(columns([Row(1, request_class=3, cap=9)]))).all()


rows = st.lists(
    st.tuples(st.sampled_from([INTERACTIVE, BATCH]), st.sampled_from([1, 3, 90, 100, 4096]), st.floats(0, 1)),
    min_size=1,
    max_size=12,
)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=60), rows, st.sampled_from([0.1, 0.5, 0.9]))
def test_all_at_once_is_the_formula_row_by_row(
    ended: list[tuple[bool, int]], asked: list[tuple[int, int, float]], q: float
) -> None:
    """Many rows of several groups are answered together, and again from memory: always what the head of the module says."""
    model = OutputLengths()
    for batch, length in ended:
        model.ended(BATCH if batch else INTERACTIVE, cap_tokens=100, emitted_tokens=length)
    made = columns(
        [Row(i, request_class=kind, cap=cap, emitted=int(part * (cap - 1))) for i, (kind, cap, part) in enumerate(asked)]
    )
    for _ in range(2):
        for index, left in enumerate(model.remaining(made, q).tolist()):
            cap, emitted = int(made.cap_tokens[index]), int(made.emitted_tokens[index])
            known = [length / 100 for batch, length in ended if batch == (made.request_class[index] == BATCH)]
            if not known or cap.bit_length() != (100).bit_length():
                most = max(1, cap - emitted)
                assert left == (min(most, PRIOR_TOKENS - emitted) if emitted < PRIOR_TOKENS else most)
                continue
            shares = sorted([1.0] * (PRIORS if len(known) < PRIORS_UNTIL else 0) + known)
            passed = sum(share <= emitted / cap for share in shares)
            expected = shares[min(passed + int(q * (len(shares) - passed)), len(shares) - 1)] * cap - emitted
            assert left == pytest.approx(min(max(1, cap - emitted), max(1.0, expected)))


def test_what_is_learned_counts_at_once() -> None:
    model, row = learned([]), columns([Row(1, cap=100)])
    assert model.remaining(row).tolist() == [100.0]
    for _ in range(20):
        model.ended(INTERACTIVE, cap_tokens=100, emitted_tokens=10)
    assert model.remaining(row).tolist() == [10.0], "the same columns, asked for again"
