"""Logprobs, bias and grammars on the real kernels: the model's own numbers, and no token that must not come."""

from __future__ import annotations

import json

import numpy as np
import pytest
from engine_prompts import BRIDGE, LIGHTHOUSE, MARKET

from model_reference import NEAR_TIE, Reference
from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.constraint import GrammarKind, GrammarSpec, is_allowed, mask_words
from setpoint.engine.openvino.executor import OpenVinoExecutor
from setpoint.engine.openvino.masks import Masks
from setpoint.engine.request import GenerationRequest, InvalidRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.engine.validation import require_servable

pytestmark = pytest.mark.model


def whole(tokens: list[int], first_block: int, sampling: SamplingParams) -> BatchItem:
    sequence = Sequence(first_block, GenerationRequest(tuple(tokens), sampling), arrived_s=0.0, max_tokens=8)
    sequence.blocks = list(range(first_block, first_block + 6))
    return BatchItem(sequence, 0, len(tokens), emits=True)


def test_logprobs_are_the_models_own_whatever_is_done_to_the_logits(
    executor: OpenVinoExecutor, reference: Reference, tokenizer: ModelTokenizer
) -> None:
    texts = [tokenizer.encode(text)[:100] for text in (LIGHTHOUSE, MARKET, BRIDGE, LIGHTHOUSE)]
    samplings = [
        SamplingParams(temperature=0.0, logprobs=5),
        SamplingParams(temperature=1.5, top_k=40, seed=3, logprobs=20, repetition_penalty=1.3),
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=0.0, logprobs=0, logit_bias=((1234, 100.0),)),
    ]
    items = [whole(tokens, 6 * place, sampling) for place, (tokens, sampling) in enumerate(zip(texts, samplings, strict=True))]
    output = executor.collect(executor.submit(make_batch(items)))
    for item, tokens, token in zip(items, texts, output.tokens, strict=True):
        told, asked = item.sequence.logprobs, item.sequence.request.sampling.logprobs
        if asked is None:
            assert told is None
            continue
        row = reference.logits(tokens)[-1].astype(np.float64)
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert told is not None
        assert told.token == token
        assert told.logprob == pytest.approx(expected[token], abs=2 * NEAR_TIE)
        assert len(told.top) == asked
        assert [value for _, value in told.top] == pytest.approx(np.sort(expected)[::-1][:asked], abs=2 * NEAR_TIE)
        assert [value for _, value in told.top] == pytest.approx([expected[other] for other, _ in told.top], abs=2 * NEAR_TIE)
    assert output.tokens[3] == 1234


def test_who_asks_for_nothing_gets_no_logits_copied(executor: OpenVinoExecutor, tokenizer: ModelTokenizer) -> None:
    item = whole(tokenizer.encode("One two three"), 0, SamplingParams(temperature=0.0))
    assert not item.sequence.wants_logits
    executor.collect(executor.submit(make_batch([item])))
    assert len(executor._running.output("row_logits")) == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_a_grammar_is_kept_beside_neighbours_without_one(
    executor: OpenVinoExecutor, tokenizer: ModelTokenizer, temperature: float
) -> None:
    """Twelve letters, digits and an end, among a greedy and a sampled neighbour; then nothing but the end may come."""
    grammar = tokenizer.compile_grammar(GrammarSpec(GrammarKind.REGEX, "[a-f]{3}-[0-9]{3}", "x"))
    prompt = tokenizer.encode("The code is")
    samplings = [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=temperature, seed=4, grammar=grammar),
        SamplingParams(temperature=1.0, seed=5),
        SamplingParams(temperature=temperature, seed=6, grammar=grammar, top_p=0.5),
    ]
    items = [whole(prompt, 6 * place, sampling) for place, sampling in enumerate(samplings)]
    for _ in range(8):
        output = executor.collect(executor.submit(make_batch(items)))
        for item, token in zip(items, output.tokens, strict=True):
            sequence = item.sequence
            sequence.computed = len(sequence.tokens)
            if not (sequence.emitted and sequence.tokens[-1] in tokenizer.eos_ids):
                sequence.emit(token, 0.0)
        items = [BatchItem(item.sequence, len(item.sequence.tokens) - 1, 1, emits=True) for item in items]
    for item in (items[1], items[3]):
        emitted = item.sequence.tokens[len(prompt) :]
        assert emitted[-1] in tokenizer.eos_ids
        text = tokenizer.decode(emitted)
        assert len(text) == 7
        assert set(text[:3]) <= set("abcdef")
        assert text[3] == "-"
        assert text[4:].isdigit()


def test_masks_say_what_grammars_say(tokenizer: ModelTokenizer) -> None:
    vocabulary = len(tokenizer.token_bytes) + 50  # A model's output may be wider than its tokenizer.
    schema = json.dumps({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})
    grammar = tokenizer.compile_grammar(GrammarSpec(GrammarKind.JSON_SCHEMA, schema, "x"))
    free = Sequence(0, GenerationRequest((1,)), arrived_s=0.0, max_tokens=9)
    bound = Sequence(1, GenerationRequest((1,), SamplingParams(grammar=grammar)), arrived_s=0.0, max_tokens=9)
    masks = Masks(vocabulary)
    assert masks.prepare([free]) is None
    slow = grammar.begin()
    for token in tokenizer.encode('{"name": "Ada', add_special_tokens=False):
        added = masks.prepare([free, bound])
        assert added is not None
        assert added.shape == (2, vocabulary)
        assert not added[0].any()
        bits = np.zeros(mask_words(vocabulary), dtype=np.int32)
        slow.allowed(bits)
        assert [value == 0 for value in added[1]] == [is_allowed(bits, each) for each in range(vocabulary)]
        assert added[1, token] == 0
        bound.emit(token, 0.0)
        slow.advance([token])
    bound.emit(min(tokenizer.special_ids), 0.0)  # What no grammar allows.
    added = masks.prepare([free, bound])
    assert added is not None
    assert "grammar" in bound.fault
    assert not added.any()


def test_a_bias_and_a_grammar_are_checked() -> None:
    for sampling, field in (
        (SamplingParams(logit_bias=((50, 1.0),)), "logit_bias"),
        (SamplingParams(logit_bias=((5, float("nan")),)), "logit_bias"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            require_servable(GenerationRequest((1,), sampling), 50)
        assert refused.value.field_name == field
