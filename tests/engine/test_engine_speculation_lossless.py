"""Speculation changes nothing but time: greedy answers with drafts are those of a pipeline that never batches nor guesses."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from engine_driving import FewerBlocks, Outcome, drive
from engine_prompts import LONG_ANSWERS, new_tokens, prompts

from model_reference import NEAR_TIE, Reference, first_difference, without_end
from setpoint.engine.models import ResolvedModel
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.request import FinishReason, GenerationRequest, SamplingParams
from setpoint.engine.speculation.draft import Drafter
from setpoint.engine.speculation.draft_model import DraftModel
from setpoint.engine.speculation.prompt_lookup import PromptLookup
from setpoint.engine.speculation.speculator import SpeculationCounters, Speculator
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.modes import build_policy

pytestmark = pytest.mark.model

MOST_FLIPS = 3
MAX_MODEL_LEN = 512
BLOCKS = 16
PATIENCE_STEPS = 5


@pytest.fixture(scope="module")
def asked(tokenizer: ModelTokenizer) -> list[tuple[int, ...]]:
    return prompts(tokenizer)


@pytest.fixture(scope="module")
def expected(asked: list[tuple[int, ...]], reference: Reference) -> list[list[int]]:
    return [reference.greedy(prompt, new_tokens(i), ignore_eos=i in LONG_ANSWERS) for i, prompt in enumerate(asked)]


def crowd(asked: list[tuple[int, ...]]) -> list[GenerationRequest]:
    """All prompts, and after every fifth a neighbour that is sampled or penalised, and will be cancelled."""
    requests = []
    for index, prompt in enumerate(asked):
        sampling = SamplingParams(max_tokens=new_tokens(index), temperature=0.0, ignore_eos=index in LONG_ANSWERS)
        requests.append(GenerationRequest(prompt, sampling, f"prompt-{index}"))
        if index % 5 == 4:
            seed, penalty = (index, 1.0) if index % 2 else (None, 1.0 + index % 3 / 10)
            sampling = SamplingParams(max_tokens=60, temperature=0.8, seed=seed, repetition_penalty=penalty, ignore_eos=True)
            requests.append(GenerationRequest(asked[-index], sampling, f"neighbour-{index}"))
    return requests


def answers(
    executor: OpenVinoExecutor,
    tokenizer: ModelTokenizer,
    drafter: Drafter,
    asked: list[tuple[int, ...]],
    *,
    draft_tokens: int,
    budget: int,
) -> tuple[Outcome, StepLoop, SpeculationCounters]:
    """All prompts answered with a draft wherever one can be had, in chunks, in a small cache."""
    config = ServingConfig(
        mode=BatchingMode.CONTINUOUS,
        max_running=12,
        token_budget=budget,
        speculation=SpeculationMode.DRAFT,
        draft_tokens=draft_tokens,
    )
    speculator = Speculator(drafter, time.monotonic, most_tokens=draft_tokens, most_running=100)
    loop = StepLoop(
        build_policy(config),
        FewerBlocks(executor, BLOCKS),
        time.monotonic,
        max_model_len=MAX_MODEL_LEN,
        stop_token_ids=tokenizer.eos_ids,
        speculator=speculator,
    )
    requests = crowd(asked)
    cancel_after = {request.name: PATIENCE_STEPS for request in requests if request.name.startswith("neighbour")}
    outcome = drive(loop, requests, cancel_after)
    assert all(outcome.ends[name] is FinishReason.CANCELLED for name in cancel_after)
    assert loop.pool.used == 0
    assert loop.counters.prefix_hits > 300
    return outcome, loop, speculator.counters


def check_answers(
    asked: list[tuple[int, ...]],
    expected: list[list[int]],
    outcome: Outcome,
    reference: Reference,
    tokenizer: ModelTokenizer,
) -> int:
    """Equal to the reference, but where floating point decides between two tokens as good as equal: how often it did."""
    assert len(asked) >= 50
    flips = 0
    for index, prompt in enumerate(asked):
        answer = outcome.tokens[f"prompt-{index}"]
        if index not in LONG_ANSWERS:
            answer = without_end(answer, tokenizer.eos_ids)
        difference = first_difference(answer, expected[index], min(tokenizer.eos_ids))
        if difference is not None:
            position, ours, theirs = difference
            margin = reference.margin([*prompt, *answer[:position]], ours, theirs)
            assert margin < NEAR_TIE, f"prompt {index} parts at token {position}: {ours}, not {theirs}; margin {margin:.2g}"
            flips += 1
    assert flips <= MOST_FLIPS
    return flips


def test_greedy_answers_with_prompt_lookup_equal_the_reference(
    asked: list[tuple[int, ...]],
    expected: list[list[int]],
    executor: OpenVinoExecutor,
    reference: Reference,
    tokenizer: ModelTokenizer,
    record_property: Callable[[str, object], None],
) -> None:
    lookup = PromptLookup(most_tokens=7)
    outcome, _, counters = answers(executor, tokenizer, lookup, asked, draft_tokens=7, budget=64)
    record_property("near_ties", check_answers(asked, expected, outcome, reference, tokenizer))
    assert counters.drafts > 30
    assert counters.draft_tokens > counters.accepted_tokens > 50, "drafts of both fates"


def test_greedy_answers_with_a_draft_model_equal_the_reference(
    asked: list[tuple[int, ...]],
    expected: list[list[int]],
    executor: OpenVinoExecutor,
    reference: Reference,
    tokenizer: ModelTokenizer,
    demo_model: ResolvedModel,
    record_property: Callable[[str, object], None],
) -> None:
    """The same weights with activations of eight bits guess: mostly right, not always; the cache holds a few texts at once."""
    own = OpenVinoExecutor(demo_model.folder, ExecutorOptions(kv_cache_tokens=512), time.monotonic)
    drafter = DraftModel(own, vocabulary=executor.vocabulary, most_tokens=3)
    outcome, loop, counters = answers(executor, tokenizer, drafter, asked, draft_tokens=3, budget=64)
    assert loop.counters.preemptions > 0
    drafter.check_integrity()
    drafter.close()
    record_property("near_ties", check_answers(asked, expected, outcome, reference, tokenizer))
    assert counters.draft_tokens > counters.accepted_tokens > counters.draft_tokens / 2
