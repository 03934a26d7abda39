"""Prompt lookup on texts of small numbers: what is found, how sure it is, and how it goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.prompt_lookup import LONGEST_MATCH, MOST_READ, LookupIndex, PromptLookup, continuation

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
    """The text grows token by token, as an answer does. The longest match is not promised, one of two tokens is.

    A place without a match is that of the guess before, and only for two guesses.
    """
    misses = 0
    index = LookupIndex()
    for end in range(1, len(tokens) + 1):
        text = tokens[:end]
        length = index.find(text)
        best = longest_match(text)
        assert (length >= 2) == (best >= 2)
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
