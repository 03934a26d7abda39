"""Speculation changes nothing but time: greedy answers with drafts are those of a pipeline that never batches nor guesses."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from engine_driving import FewerBlocks, Outcome, drive
from engine_prompts import prompts

from model_reference import NEAR_TIE, Reference, first_difference, without_end
from setpoint.engine.openvino.executor import OpenVinoExecutor
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.speculation.prompt_lookup import PromptLookup
from setpoint.engine.speculation.draft import Drafter
from setpoint.engine.speculation.speculator import Speculator
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.modes import build_policy

pytestmark = pytest.mark.model

NEW_TOKENS = 32
DRAFT_TOKENS = 7
MOST_FLIPS = 3
MAX_MODEL_LEN = 512


@pytest.fixture(scope="module")
def asked(tokenizer: ModelTokenizer) -> list[tuple[int, ...]]:
    return prompts(tokenizer)


@pytest.fixture(scope="module")
def expected(asked: list[tuple[int, ...]], reference: Reference) -> list[list[int]]:
    return [reference.greedy(prompt, NEW_TOKENS) for prompt in asked]


def answers(
    executor: OpenVinoExecutor, tokenizer: ModelTokenizer, drafter: Drafter, requests: list[GenerationRequest]
) -> tuple[Outcome, StepLoop]:
    """Requests answered with a draft wherever one can be had; some cancelled; the cache small enough to preempt."""
    config = ServingConfig(
        mode=BatchingMode.CONTINUOUS,
        max_running=10,
        token_budget=64,
        speculation=SpeculationMode.PROMPT_LOOKUP,
        draft_tokens=DRAFT_TOKENS,
    )
    speculator = Speculator(drafter, time.monotonic, most_tokens=DRAFT_TOKENS, most_running=100)
    loop = StepLoop(
        build_policy(config),
        FewerBlocks(executor, 24),
        time.monotonic,
        max_model_len=MAX_MODEL_LEN,
        stop_token_ids=tokenizer.eos_ids,
        speculator=speculator,
    )
    cancel_after = {request.name: 5 for request in requests if request.name.startswith("neighbour")}
    return drive(loop, requests, cancel_after), loop


def crowd(asked: list[tuple[int, ...]]) -> list[GenerationRequest]:
    """All prompts, and after every fifth a neighbour that is sampled, adjusted or cancelled."""
    requests = []
    for index, prompt in enumerate(asked):
        sampling = SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0)
        requests.append(GenerationRequest(prompt, sampling, f"prompt-{index}"))
        if index % 5 == 4:
            sampling = SamplingParams(max_tokens=40, temperature=0.8, seed=index, repetition_penalty=1.1 if index % 2 else 1.0)
            requests.append(GenerationRequest(asked[-index], sampling, f"neighbour-{index}"))
    return requests


def check_answers(
    asked: list[tuple[int, ...]],
    expected: list[list[int]],
    outcome: Outcome,
    reference: Reference,
    tokenizer: ModelTokenizer,
    record_property: Callable[[str, object], None],
) -> None:
    """Equal to the reference, but where floating point decides between two tokens as good as equal."""
    flips = 0
    for index, prompt in enumerate(asked):
        answer = without_end(outcome.tokens[f"prompt-{index}"], tokenizer.eos_ids)
        difference = first_difference(answer, expected[index], min(tokenizer.eos_ids))
        if difference is not None:
            position, ours, theirs = difference
            margin = reference.margin([*prompt, *answer[:position]], ours, theirs)
            assert margin < NEAR_TIE, f"prompt {index} parts at token {position}: {ours}, not {theirs}; margin {margin:.2g}"
            flips += 1
    record_property("near_ties", flips)
    assert flips <= MOST_FLIPS


def test_greedy_answers_with_prompt_lookup_equal_the_reference(
    asked: list[tuple[int, ...]],
    expected: list[list[int]],
    executor: OpenVinoExecutor,
    reference: Reference,
    tokenizer: ModelTokenizer,
    record_property: Callable[[str, object], None],
) -> None:
    assert len(asked) >= 50
    outcome, loop = answers(executor, tokenizer, PromptLookup(most_tokens=DRAFT_TOKENS), crowd(asked))
    check_answers(asked, expected, outcome, reference, tokenizer, record_property)
    assert loop.speculator is not None
    counters = loop.speculator.counters
    assert counters.drafts > 50
    assert counters.draft_tokens > counters.accepted_tokens > 100, "drafts of both fates"
    assert loop.counters.preemptions > 0
