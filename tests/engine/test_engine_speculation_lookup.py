"""Prompt lookup on texts of small numbers: what is found, how sure it is, and how it goes on."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.prompt_lookup import (
    KEPT_FROM,
    LONGEST_MATCH,
    MOST_LOST,
    MOST_MISSES,
    MOST_READ,
    LookupIndex,
    PromptLookup,
    _agreement,
    continuation,
)

texts = st.lists(st.integers(0, 3), min_size=1, max_size=80)


def longest_match(tokens: list[int]) -> int:
    """By comparing everything with everything."""
    best = 0
    for place in range(len(tokens) - 1):
        length = 0
        while length < min(LONGEST_MATCH, place + 1) and tokens[place - length] == tokens[len(tokens) - 1 - length]:
            length += 1
        best = max(best, length)
    return best


@given(texts)
def test_a_match_is_true_and_found_where_there_is_one(tokens: list[int]) -> None:
    """The text grows token by token, as an answer does. The longest match is not promised; where two tokens match one that
    agrees is, and where four do one of two.

    A place without a match is that of the guess before, and only for two guesses.
    """
    misses = 0
    index = LookupIndex()
    for end in range(1, len(tokens) + 1):
        text = tokens[:end]
        length = index.find(text)
        best = longest_match(text)
        assert length <= best
        assert length >= 1 or best < 2
        assert length >= min(best, KEPT_FROM) - 2
        misses = misses + 1 if not length and index.place >= 0 else 0
        assert misses <= 2
        if index.place >= 0:
            assert index.place < end - 1
            shown = text[index.place + 1 - length : index.place + 1]
            assert shown == text[end - length :]
        else:
            assert not length


@given(texts, st.integers(1, 12))
def test_a_guess_is_what_followed_the_match(tokens: list[int], count: int) -> None:
    index = LookupIndex()
    index.find(tokens)
    if index.place < 0:
        return
    guess = continuation(tokens, index.place, count)
    assert len(guess) == count
    grown = tokens.copy()
    for position, token in enumerate(guess):  # every guess stands where the text itself would go on
        assert token == grown[index.place + 1 + position]
        grown.append(token)


def drafter_and(tokens: list[int], most: int = 6) -> tuple[PromptLookup, Sequence]:
    request = GenerationRequest(tuple(tokens), SamplingParams(max_tokens=50, temperature=0.0))
    return PromptLookup(most_tokens=most), Sequence(1, request, arrived_s=0.0, max_tokens=50)


def test_a_period_is_continued_past_the_end() -> None:
    drafter, sequence = drafter_and([7, 8, 9, 7, 8, 9, 7, 8])
    outlook = drafter.outlook(sequence)
    assert outlook.most_tokens == 6
    (draft,) = drafter.propose([(sequence, 6)])
    assert draft is not None
    assert draft.tokens == (9, 7, 8, 9, 7, 8)
    assert draft.proposal is None


def test_a_longer_match_is_surer() -> None:
    sureness = []
    for same in (1, 2, 5, 12):
        common = list(range(100, 100 + same))
        drafter, sequence = drafter_and([1, *common, 2, 3, *common])
        sureness.append(drafter.outlook(sequence).sureness)
    assert sureness == [0, 1, 2, 3]


def test_a_form_goes_on_behind_a_word_that_differs() -> None:
    form = [50, 51, 52, 53, 54]
    drafter, sequence = drafter_and([*form, 1, 60, 61, 62, 63, 9, *form])
    assert drafter.outlook(sequence).sureness == 2
    sequence.tokens.append(2)  # where the form had 1 before; the model said so
    assert drafter.outlook(sequence).sureness == 0
    (draft,) = drafter.propose([(sequence, 4)])
    assert draft is not None
    assert draft.tokens == (60, 61, 62, 63)


def test_a_text_without_repetition_has_no_guess() -> None:
    drafter, sequence = drafter_and(list(range(20)))
    assert drafter.outlook(sequence).most_tokens == 0
    assert drafter.propose([(sequence, 3)]) == [None]
    drafter.forget(sequence)
    drafter.forget(sequence)
    assert not drafter._indices


def test_a_long_prompt_is_read_a_part_at_a_time() -> None:
    """Seen: an index of a whole book was made between two steps, and everybody waited for it."""
    book = list(range(3 * MOST_READ))
    assert LookupIndex().find([*book, 5, 6]) == 2, "the beginning is read at once"
    late = book[-9:-7]
    index = LookupIndex()
    found = [index.find([*book, *late * repeats]) for repeats in range(1, 4)]
    assert found[0] == 0
    assert found[-1] >= 2, "the rest with the next guesses"


class LatestOnly(LookupIndex):
    """The rule before: the place of the last guess or the latest one, whichever agrees over more tokens."""

    def find(self, tokens: list[int]) -> int:
        last = len(tokens) - 1
        self._take_in(tokens, last)
        kept = self.place + len(tokens) - self._length if self.place >= 0 else -1
        self._length = len(tokens)
        length, place = self._latest(tokens)
        own = _agreement(tokens, kept, last) if kept >= 0 else 0
        if own and (own, kept) > (length, place):
            length, place = own, kept
        if length >= KEPT_FROM:
            self._misses = 0
        elif length < 2 and kept >= 0 and self._misses < MOST_MISSES:
            self._misses += 1
            self.place = kept
            return int(tokens[kept] == tokens[last])
        self.place = place
        return length


def played(index: LookupIndex, text: list[int], known: int, most: int = 8) -> int:
    """How many tokens stand of a draft of ``most`` in every step, behind the first ``known`` tokens of ``text``."""
    accepted = 0
    while known < len(text):
        begun = text[:known]
        index.find(begun)
        guess = continuation(begun, index.place, most) if index.place >= 0 else ()
        right = 0
        while right < len(guess) and known + right < len(text) and guess[right] == text[known + right]:
            right += 1
        accepted += right
        known += right + 1
    return accepted


OPENS, CLOSES, BEGINS = (50, 51), 52, 53
FIELDS = 6


def forms(records: int) -> list[int]:
    """Records of the same fields, whose values never come again and never have the length that they had a record before."""
    values = itertools.count(1000)
    text: list[int] = []
    for record in range(records):
        text.append(BEGINS)
        for field in range(FIELDS):
            text += [100 + field, *OPENS, *itertools.islice(values, 1 + (3 * record + 2 * field) % 5), CLOSES]
    return text


def test_forms_whose_values_differ_in_length_are_followed_in_step() -> None:
    """By hand: a field's end gives 3 tokens (key and what opens the value) instead of 2, for it led to the key of the field
    that followed its latest place; a record's end 4 instead of 3. In six records that is 113 instead of 78."""
    text, known = forms(8), len(forms(2))
    aligned, latest = played(LookupIndex(), text, known), played(LatestOnly(), text, known)
    assert latest >= 6 * 2 * FIELDS
    assert aligned > 1.3 * latest


@pytest.mark.parametrize("alphabet", [3, 4, 40])
def test_a_text_without_structure_gets_what_it_got(alphabet: int) -> None:
    text = random.Random(alphabet).choices(range(alphabet), k=6000)
    assert played(LookupIndex(), text, 20) > 0.85 * played(LatestOnly(), text, 20)


def field_and_value(value: int) -> tuple[PromptLookup, Sequence]:
    """An example of two fields, and the first of them again with a value of so many tokens, not yet closed."""
    drafter, sequence = drafter_and([CLOSES, 7, *OPENS, 1, 2, CLOSES, 8, *OPENS, 3, CLOSES, 7, *OPENS])
    assert drafter.outlook(sequence).sureness == 2
    for token in range(200, 200 + value):
        sequence.tokens.append(token)
        drafter.outlook(sequence)
    return drafter, sequence


@pytest.mark.parametrize("value", [1, 2, 3, 9, MOST_LOST - 1])
def test_behind_a_value_of_any_length_the_next_field_is_guessed(value: int) -> None:
    drafter, sequence = field_and_value(value)
    sequence.tokens.append(CLOSES)
    assert drafter.outlook(sequence).sureness >= 1
    (draft,) = drafter.propose([(sequence, 3)])
    assert draft is not None
    assert draft.tokens == (8, *OPENS)


def test_who_has_long_left_what_it_followed_is_not_led_back() -> None:
    drafter, sequence = field_and_value(MOST_LOST + 1)
    sequence.tokens.append(CLOSES)
    assert drafter.outlook(sequence).sureness == 0
    (draft,) = drafter.propose([(sequence, 3)])
    assert draft is not None
    assert draft.tokens == (7, *OPENS)


def test_a_single_token_in_step_gives_way_to_a_longer_match() -> None:
    """By hand: where the form had 1 and 9 now stand 60 and 9. The 9 agrees with the form, both with what stood elsewhere."""
    form = [50, 51, 52, 53]
    drafter, sequence = drafter_and([*form, 1, 9, 30, 60, 9, 70, 71, *form])
    drafter.outlook(sequence)
    for token in (60, 9):
        sequence.tokens.append(token)
        outlook = drafter.outlook(sequence)
    assert outlook.sureness == 1
    (draft,) = drafter.propose([(sequence, 2)])
    assert draft is not None
    assert draft.tokens == (70, 71)
