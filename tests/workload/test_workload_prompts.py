"""Prompts have the number of tokens that is asked for, share the prefix, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_tokenizers import Counting, encode_bytes, encode_chat, encode_pieces, encode_template, encode_words

from setpoint.workload import EstimatedPrompts, PromptBlock, PromptError, PromptMaker, TextPrompts, TokenIdPrompts
from setpoint.workload.fitting import common_length, fit_text
from setpoint.workload.prompts import Encode
from setpoint.workload.words import ADJECTIVES, NOUNS, PREPOSITIONS, VERBS, topic_pieces

TOKENIZERS = pytest.mark.parametrize("encode", [encode_words, encode_chat, encode_bytes, encode_pieces, encode_template])
MAKERS = pytest.mark.parametrize(
    "make",
    [
        TextPrompts(encode_words),
        TextPrompts(encode_chat),
        TextPrompts(encode_pieces),
        TokenIdPrompts(encode_words),
        EstimatedPrompts(),
    ],
)


def text_of(make: PromptMaker, tokens: int, shared: int, serial: int, seed: int = 1) -> str:
    content = make(tokens=tokens, shared_prefix_tokens=shared, seed=seed, serial=serial).content
    assert isinstance(content, str)
    return content


@TOKENIZERS
@pytest.mark.parametrize("tokens", [20, 41, 128, 700])
def test_text_has_exactly_the_tokens_asked_for(encode: Encode, tokens: int) -> None:
    make = TextPrompts(encode)
    for serial in range(5):
        prompt = make(tokens=tokens, shared_prefix_tokens=0, seed=1, serial=serial)
        assert isinstance(prompt.content, str)
        assert len(encode(prompt.content)) == prompt.tokens == tokens
        assert prompt.exact


@settings(max_examples=30)
@given(tokens=st.integers(60, 300), shared=st.integers(0, 50), seed=st.integers(0, 2**40), serial=st.integers(0, 10**9))
def test_count_is_true_for_any_length_and_prefix(tokens: int, shared: int, seed: int, serial: int) -> None:
    prompt = TextPrompts(encode_words)(tokens=tokens, shared_prefix_tokens=shared, seed=seed, serial=serial)
    assert isinstance(prompt.content, str)
    assert len(encode_words(prompt.content)) == prompt.tokens == tokens


@TOKENIZERS
@pytest.mark.parametrize("shared", [16, 64, 351])
def test_shared_prefix_is_shared_and_no_more(encode: Encode, shared: int) -> None:
    make = TextPrompts(encode)
    prompts = [encode(text_of(make, shared + 60, shared, serial)) for serial in range(20)]
    lengths = [common_length(one, other) for index, one in enumerate(prompts) for other in prompts[:index]]
    # Two topics may begin with the same letters, which are tokens of their own where every byte is one.
    slack = 8 if encode is encode_bytes else 1
    assert shared <= min(lengths)
    assert max(lengths) <= shared + slack


@MAKERS
def test_same_arguments_give_the_same_prompt_in_any_order(make: PromptMaker) -> None:
    def prompt_of(serial: int) -> object:
        return make(tokens=90, shared_prefix_tokens=20, seed=3, serial=serial)

    forward = [prompt_of(serial) for serial in range(6)]
    assert [prompt_of(serial) for serial in reversed(range(6))] == forward[::-1]
    assert len(set(map(str, forward))) == 6
    assert make(tokens=90, shared_prefix_tokens=20, seed=4, serial=0) not in forward


def test_token_ids_are_exact_and_share_the_prefix() -> None:
    make = TokenIdPrompts(encode_words)
    contents = [make(tokens=100, shared_prefix_tokens=40, seed=1, serial=serial).content for serial in range(10)]
    assert {len(content) for content in contents} == {100}
    assert {content[:40] for content in contents} == {contents[0][:40]}
    assert len({content[40] for content in contents}) == 10


def test_estimate_is_marked_and_near() -> None:
    prompt = EstimatedPrompts()(tokens=400, shared_prefix_tokens=100, seed=1, serial=0)
    assert not prompt.exact
    assert prompt.tokens == 400
    assert isinstance(prompt.content, str)
    assert len(encode_words(prompt.content)) == pytest.approx(400, rel=0.15)


def test_estimate_needs_a_sensible_ratio() -> None:
    with pytest.raises(ValueError, match="tokens_per_word is 0; allowed"):
        EstimatedPrompts(tokens_per_word=0)


def test_no_room_for_a_word_of_its_own_is_an_error() -> None:
    with pytest.raises(PromptError, match="a prompt of 3 tokens has no room"):
        TextPrompts(encode_chat)(tokens=3, shared_prefix_tokens=0, seed=0, serial=0)
    with pytest.raises(PromptError, match="cannot begin with a shared prefix of 10"):
        TokenIdPrompts(encode_words)(tokens=10, shared_prefix_tokens=10, seed=0, serial=0)
    with pytest.raises(PromptError, match="no tokenizer of text"):
        TokenIdPrompts(lambda text: [])(tokens=10, shared_prefix_tokens=0, seed=0, serial=0)


def test_a_prefix_shorter_than_the_template_adds_no_text() -> None:
    make = TextPrompts(encode_chat)
    assert text_of(make, 40, 1, serial=5) == text_of(make, 40, 0, serial=5)


def test_fitting_tells_the_truth_where_the_length_does_not_exist() -> None:
    text, count = fit_text(iter([" word"] * 100), 7, lambda text: 2 * len(text.split()), guess=7)
    assert count == 2 * len(text.split()) == 6


@given(st.integers(0, 10**12))
def test_topics_of_neighbours_differ(serial: int) -> None:
    assert topic_pieces(serial)[0] != topic_pieces(serial + 1)[0]
    assert topic_pieces(serial) != topic_pieces(serial + len(NOUNS))


def test_topics_count_requests() -> None:
    assert len({topic_pieces(serial) for serial in range(5 * len(NOUNS))}) == 5 * len(NOUNS)


def test_words_are_plain_and_listed_once() -> None:
    for words in (NOUNS, ADJECTIVES, VERBS, PREPOSITIONS):
        assert len(set(words)) == len(words)
        assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_text_reads_as_sentences() -> None:
    text = text_of(TextPrompts(encode_words), 120, 30, serial=0)
    assert not text.startswith(" ")
    assert "  " not in text
    assert " ." not in text
    assert text.count(".") >= 5


@pytest.mark.parametrize("shared", [0, 40])
def test_whole_words_are_counted_without_asking(shared: int) -> None:
    encode = Counting()
    make = TextPrompts(encode)
    for serial in range(300):
        make(tokens=100 + serial, shared_prefix_tokens=shared, seed=1, serial=serial)
    # The vocabulary is looked at once, and every noun that a prompt begins with.
    assert encode.calls < 20 + 300
    before = encode.calls
    for serial in range(3000):
        prompt = make(tokens=100, shared_prefix_tokens=shared, seed=1, serial=serial)
        assert serial % 100 or len(encode_pieces(str(prompt.content))) == prompt.tokens == 100
    assert encode.calls - before < 200


@settings(max_examples=30)
@given(
    encode=st.sampled_from([encode_pieces, encode_template]),
    tokens=st.integers(60, 400),
    shared=st.integers(0, 50),
    seed=st.integers(0, 2**40),
    serial=st.integers(0, 10**12),
)
def test_counted_words_are_true_counts(encode: Encode, tokens: int, shared: int, seed: int, serial: int) -> None:
    prompt = TextPrompts(encode)(tokens=tokens, shared_prefix_tokens=shared, seed=seed, serial=serial)
    assert len(encode(str(prompt.content))) == prompt.tokens == tokens


def test_longer_prefixes_begin_like_shorter_ones() -> None:
    for encode in (encode_pieces, encode_words):
        make = TextPrompts(encode)
        ids = [encode(text_of(make, 300, shared, serial=shared)) for shared in (32, 64, 128, 256)]
        for shared, one, two in zip((32, 64, 128), ids, ids[1:], strict=False):
            assert abs(common_length(one, two) - shared) <= 1


BLOCKS = (PromptBlock(7, 64), PromptBlock(8, 64), PromptBlock(9, 64))


@pytest.mark.parametrize("encode", [encode_words, encode_pieces, encode_bytes])
@pytest.mark.parametrize("tokens", [64, 100, 128, 192, 250])
def test_blocks_are_shared_as_far_as_they_fit(encode: Encode, tokens: int) -> None:
    for make in (TextPrompts(encode), TokenIdPrompts(encode)):
        prompts = [make(tokens=tokens, shared_prefix_tokens=0, seed=1, serial=serial, blocks=BLOCKS) for serial in range(2)]
        ids = [tuple(encode(prompt.content)) if isinstance(prompt.content, str) else prompt.content for prompt in prompts]
        assert [len(one) for one in ids] == [prompt.tokens for prompt in prompts]
        assert abs(len(ids[0]) - tokens) <= 1
        slack = 8 if encode is encode_bytes else 1
        assert min(tokens, 192) - 1 <= common_length(*ids) <= min(tokens, 192) + slack
        other = make(tokens=tokens, shared_prefix_tokens=0, seed=1, serial=0, blocks=(BLOCKS[0], PromptBlock(5, 64)))
        other_ids = tuple(encode(other.content)) if isinstance(other.content, str) else other.content
        assert min(tokens, 64) - 1 <= common_length(ids[0], other_ids) <= 64 + slack


def test_a_prompt_of_text_is_the_text() -> None:
    assert TextPrompts(encode_words).of_text("Hello there.").tokens == 3
    assert TokenIdPrompts(encode_words).of_text("Hello there.").content == tuple(encode_words("Hello there."))


@given(serials=st.lists(st.integers(0, 10**6), min_size=2, max_size=30, unique=True), tokens=st.integers(4, 40))
def test_token_ids_of_different_requests_differ(serials: list[int], tokens: int) -> None:
    make = TokenIdPrompts(encode_bytes)
    contents = {make(tokens=tokens, shared_prefix_tokens=0, seed=1, serial=serial).content for serial in serials}
    assert len(contents) == len(serials)
