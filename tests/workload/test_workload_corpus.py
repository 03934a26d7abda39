"""The text that prompts are cut from is the same in every process, and cuts are what they are said to be."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from setpoint.workload.corpus import STARTS, Corpus, mixed, the_corpus

KEYS = st.lists(st.integers(0, 2**70), min_size=1, max_size=4)


@given(key=KEYS, pieces=st.integers(0, 300))
def test_a_cut_has_its_pieces_from_the_start_of_a_sentence(key: list[int], pieces: int) -> None:
    corpus = the_corpus()
    start = corpus.start(*key)
    assert 0 <= start < STARTS
    assert start == 0 or corpus.pieces[start - 1] == "."
    assert corpus.cut(start, pieces) == "".join(islice(corpus.pieces_from(start), pieces))


@given(key=KEYS, words=st.integers(1, 300))
def test_a_cut_of_words_has_its_words(key: list[int], words: int) -> None:
    text = the_corpus().cut_words(the_corpus().start(*key), words)
    assert text.startswith(" ")
    assert len(text.split()) == words


def test_the_text_grows_and_stays_the_same() -> None:
    short, long = Corpus(), Corpus()
    long.cut(STARTS - 5, 200_000)
    assert len(long.pieces) >= STARTS + 199_995
    assert short.cut(0, STARTS) == long.cut(0, STARTS)
    assert long.cut_words(STARTS - 1000, 70_000).count(" ") == 70_000
    assert short.cut(STARTS - 10, 40_000) == long.cut(STARTS - 10, 40_000)


def test_the_text_is_that_of_every_version() -> None:
    # A plan is compared with one made elsewhere, so the text must not change by accident.
    assert the_corpus().cut(0, 7) == " Some long coffee watched one far college"


def test_mixing_depends_on_every_number_and_their_order() -> None:
    values = {mixed(1, 2), mixed(2, 1), mixed(1), mixed(1, 2, 0), mixed(0, 1, 2), mixed(1 + 2**64, 3), mixed(1, 3)}
    assert len(values) == 6
    assert mixed(7, 8) == mixed(7, 8)
    assert 0.45 < sum(mixed(number) & 1 for number in range(2000)) / 2000 < 0.55
