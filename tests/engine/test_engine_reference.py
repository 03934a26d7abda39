"""The engine's greedy answers are those of an independent pipeline that never batches, whatever happens around them.

Every batching mode answers 56 prompts while neighbours come, are cancelled, share prefixes and take each other's KV blocks.
The reference is in ``model_reference``; both sides run in F32. Where floating point decides between two tokens
that are as good as equal, the margin is measured on the original graph and has to be below ``NEAR_TIE``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from engine_driving import FewerBlocks, Outcome, drive
from engine_prompts import LONG_ANSWERS, SENTENCES, new_tokens, prompts

from model_reference import NEAR_TIE, Reference, first_difference, without_end
from setpoint.engine.openvino.executor import OpenVinoExecutor
from setpoint.engine.request import FinishReason, GenerationRequest, SamplingParams
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import Admit, Policy, Reason
from setpoint.policy.modes import build_policy
from setpoint.policy.views import RequestLimits, RequestView, SystemView

pytestmark = pytest.mark.model

MOST_FLIPS = 3
MAX_MODEL_LEN = 512
NEIGHBOUR_TOKENS = 200


@dataclass(frozen=True)
class Case:
    """A mode, how tight its budget and its KV cache are, and how many steps the most patient neighbours run."""

    mode: BatchingMode
    max_running: int
    token_budget: int
    blocks: int
    patience: int

    @property
    def config(self) -> ServingConfig:
        return ServingConfig(
            mode=self.mode,
            max_running=self.max_running,
            token_budget=self.token_budget,
            batch_wait_s=0,
            prefill_floor_tokens=48,
        )


CASES = (
    Case(BatchingMode.IMMEDIATE, 1, 100, blocks=16, patience=8),
    Case(BatchingMode.STATIC, 12, 96, blocks=16, patience=20),
    Case(BatchingMode.CONTINUOUS, 12, 64, blocks=16, patience=20),
    Case(BatchingMode.SETPOINT, 16, 80, blocks=16, patience=150),
)


class AdmitsEverything:
    """A policy whose admission is left out: here every prompt is answered, so that every answer can be compared.

    The limit that cannot be met (see ``crowd``) is there for the step plans, which it holds at their floor.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.plan = policy.plan
        self.observe = policy.observe

    def admit(self, request: RequestView, system: SystemView) -> Admit:
        """Yes, after the policy was asked, for it learns from what it is asked."""
        self._policy.admit(request, system)
        return Admit(Reason("admitted_by_test", {}))


@pytest.fixture(scope="module")
def asked(tokenizer: ModelTokenizer) -> list[tuple[int, ...]]:
    return prompts(tokenizer)


@pytest.fixture(scope="module")
def expected(asked: list[tuple[int, ...]], reference: Reference) -> dict[str, list[int]]:
    return {
        f"prompt-{i}": reference.greedy(prompt, new_tokens(i), ignore_eos=i in LONG_ANSWERS) for i, prompt in enumerate(asked)
    }


def crowd(asked: list[tuple[int, ...]], patience: int) -> tuple[list[GenerationRequest], dict[str, int]]:
    """All prompts, some with a deadline for every token that cannot be met, and a neighbour after every fourth.

    A neighbour asks one of the prompts (so it shares blocks), wants a long sampled answer, and is cancelled: at once, while
    its prompt is being computed, or while it decodes.
    """
    requests: list[GenerationRequest] = []
    cancel_after: dict[str, int] = {}
    for index, prompt in enumerate(asked):
        limits = RequestLimits(itl_s=1e-3) if index % 2 else RequestLimits()
        sampling = SamplingParams(max_tokens=new_tokens(index), temperature=0.0, ignore_eos=index in LONG_ANSWERS)
        requests.append(GenerationRequest(prompt, sampling, f"prompt-{index}", limits=limits))
        if index % 4 == 3:
            name = f"neighbour-{index}"
            shared = asked[-1 - index]
            sampling = SamplingParams(max_tokens=NEIGHBOUR_TOKENS, temperature=1.0, seed=index, ignore_eos=True)
            requests.append(GenerationRequest(shared, sampling, name))
            cancel_after[name] = (patience, 0, patience, 2, 6)[index // 4 % 5]
    return requests, cancel_after


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mode.value)
def test_greedy_answers_equal_the_reference(
    case: Case,
    asked: list[tuple[int, ...]],
    expected: dict[str, list[int]],
    executor: OpenVinoExecutor,
    reference: Reference,
    tokenizer: ModelTokenizer,
    record_property: Callable[[str, object], None],
) -> None:
    assert len(asked) >= 50
    assert min(map(len, asked)) == 1
    assert max(map(len, asked)) > 350
    loop = StepLoop(
        AdmitsEverything(build_policy(case.config)),
        FewerBlocks(executor, case.blocks),
        time.monotonic,
        max_model_len=MAX_MODEL_LEN,
        stop_token_ids=tokenizer.eos_ids,
    )
    requests, cancel_after = crowd(asked, case.patience)
    outcome = drive(loop, requests, cancel_after)
    check_that_it_was_crowded(case, loop, outcome, cancel_after)
    flips = 0
    for index, prompt in enumerate(asked):
        name = f"prompt-{index}"
        assert outcome.ends[name] in (FinishReason.STOP, FinishReason.LENGTH)
        answer = outcome.tokens[name]
        if index not in LONG_ANSWERS:
            answer = without_end(answer, tokenizer.eos_ids)
        difference = first_difference(answer, expected[name], min(tokenizer.eos_ids))
        if difference is not None:
            position, ours, theirs = difference
            margin = reference.margin([*prompt, *answer[:position]], ours, theirs)
            assert margin < NEAR_TIE, f"{name} parts at token {position}: {ours}, not {theirs}; margin {margin:.2g}"
            flips += 1
    record_property("near_ties", flips)
    assert flips <= MOST_FLIPS


def check_that_it_was_crowded(case: Case, loop: StepLoop, outcome: Outcome, cancel_after: dict[str, int]) -> None:
    """Chunks, shared prefixes, preemptions and cancellations did happen, and no block is left over."""
    steps, _ = loop.steps.columns(0)
    assert any(sequence.cached_tokens for sequence in outcome.sequences.values())
    assert loop.counters.prefix_hits >= 4 * 96
    assert max(s.prompt_tokens for s in outcome.sequences.values()) > 3 * case.token_budget
    ends = [outcome.ends[name] for name in cancel_after]
    assert ends.count(FinishReason.CANCELLED) == len(ends) >= 12
    assert any(outcome.tokens[name] for name in cancel_after)
    assert any(not outcome.tokens[name] for name in cancel_after)
    assert loop.pool.used == 0
    if case.mode is BatchingMode.IMMEDIATE:  # one at a time: nobody is there to be preempted or computed beside
        assert max(int(str(n)) for n in steps["sequences"]) == 1
        return
    assert loop.counters.preemptions > 0
    assert any(s.preemptions and s.request.name not in cancel_after for s in outcome.sequences.values())
    mixed = [p for p, d in zip(steps["prefill_tokens"], steps["decode_tokens"], strict=True) if p and d]
    assert len(mixed) > (0 if case.mode is BatchingMode.STATIC else 20)


@pytest.mark.parametrize(
    "penalties",
    [{"repetition_penalty": 1.3}, {"presence_penalty": 0.7, "frequency_penalty": 0.4}],
    ids=lambda penalties: "+".join(penalties),
)
def test_penalised_answers_equal_the_reference(
    penalties: dict[str, float], executor: OpenVinoExecutor, reference: Reference, tokenizer: ModelTokenizer
) -> None:
    """The library's own penalties, another implementation of the same formulas."""
    asked = [tuple(tokenizer.encode(text)) for text in SENTENCES[:6]]
    policy = build_policy(ServingConfig(mode=BatchingMode.CONTINUOUS))
    loop = StepLoop(policy, FewerBlocks(executor, 64), time.monotonic, max_model_len=MAX_MODEL_LEN)
    sampling = SamplingParams(max_tokens=16, temperature=0.0, ignore_eos=True, **penalties)  # type: ignore[arg-type]
    requests = [GenerationRequest(prompt, sampling, f"prompt-{index}") for index, prompt in enumerate(asked)]
    outcome = drive(loop, requests, {})
    expected = [reference.greedy(prompt, 16, ignore_eos=True, **penalties) for prompt in asked]
    assert [outcome.tokens[request.name] for request in requests] == expected
    plain = [reference.greedy(prompt, 16, ignore_eos=True) for prompt in asked]
    assert sum(one != other for one, other in zip(expected, plain, strict=True)) >= 3, "the penalties changed nothing"
