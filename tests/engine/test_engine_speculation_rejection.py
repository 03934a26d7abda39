"""Rejection sampling gives the target's distribution whatever the proposal is: in exact sums, and drawn from real logits."""

from __future__ import annotations

import time
from dataclasses import replace
from math import log

import numpy as np
import numpy.typing as npt
import pytest
from engine_driving import FewerBlocks, drive
from hypothesis import example, given, settings
from hypothesis import strategies as st

from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.openvino.executor import OpenVinoExecutor
from setpoint.engine.openvino.sampler import Sampler
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.building import build_speculator
from setpoint.engine.speculation.draft import Draft
from setpoint.engine.speculation.rejection import accept_or_replace, draw, probabilities
from setpoint.engine.speculation.verification import row_starts, verified_sampled
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.modes import build_policy

Floats = npt.NDArray[np.float64]

# The tests below raise a false alarm in at most ALARM of runs, each; they are seeded, so they do not alarm by chance at all.
ALARM = 1e-6
DRAWS = 4000
TOGETHER = 40


def chi_square_limit(degrees: int, alarm: float) -> float:
    """A value that a chi-square variable exceeds with probability below ``alarm`` (Laurent and Massart 2000, lemma 1)."""
    x = -log(alarm)
    return float(degrees + 2 * (degrees * x) ** 0.5 + 2 * x)


def check_counts(counts: Floats, expected: Floats) -> None:
    """Counts of draws against probabilities; classes expected fewer than 10 times are taken together."""
    draws = counts.sum()
    order = np.argsort(-expected)
    kept = int((expected[order] * draws >= 10).sum())
    seen = np.append(counts[order[:kept]], counts[order[kept:]].sum())
    due = np.append(expected[order[:kept]], expected[order[kept:]].sum()) * draws
    if due[-1] < 5:
        seen, due = np.append(seen[:-2], seen[-2:].sum()), np.append(due[:-2], due[-2:].sum())
    assert len(due) >= 3, "too few classes to tell anything"
    statistic = float(((seen - due) ** 2 / due).sum())
    assert statistic < chi_square_limit(len(due) - 1, ALARM), f"chi-square {statistic:.1f} over {len(due)} classes"


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 12), sharp=st.floats(0.1, 8), agreeing=st.floats(0, 1))
@example(seed=1788571, size=2, sharp=5.0, agreeing=0.0)  # p and q differ by less than rounding, at a token that p excludes
@settings(max_examples=200, deadline=None)
def test_accepting_and_replacing_adds_up_to_the_target(seed: int, size: int, sharp: float, agreeing: float) -> None:
    """The exact probabilities of every way that leads to a token, for any p and q, zeros among them."""
    dice = np.random.default_rng(seed)
    target = dice.dirichlet(np.full(size, 1 / sharp))
    proposal = agreeing * target + (1 - agreeing) * dice.dirichlet(np.full(size, 1 / sharp))
    target[dice.integers(size)] = 0.0
    target /= target.sum()
    accepted = np.minimum(target, proposal)
    rest = np.maximum(target - proposal, 0.0)
    given_out = accepted + (1 - accepted.sum()) * (rest / rest.sum() if rest.sum() else 0.0)
    np.testing.assert_allclose(given_out, target, atol=1e-12)
    # The code does what the sums say: accepted exactly where the draw is below p / q, never a token of probability 0.
    for token in np.flatnonzero(proposal):
        chosen, stands = accept_or_replace(int(token), proposal, target, dice)
        assert target[chosen] > 0
        assert stands or target[token] < proposal[token]
        assert stands == (chosen == token)


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(temperature=0.6, top_p=0.8), SamplingParams(top_k=7)])
def test_drawn_drafts_of_any_quality_give_the_target(sampling: SamplingParams) -> None:
    """One position of twenty tokens, proposals from far off to the target itself, each many thousand times."""
    dice = np.random.default_rng(20)
    target = probabilities(dice.normal(0, 2, 20).astype(np.float32), sampling)
    for mixed in (0.0, 0.5, 1.0):
        proposal = (mixed * target + (1 - mixed) * dice.dirichlet(np.ones(20))).astype(np.float32)
        counts = np.zeros(20)
        for _ in range(8 * DRAWS):
            guess = draw(proposal.astype(np.float64), dice)
            counts[accept_or_replace(guess, proposal, target, dice)[0]] += 1
        check_counts(counts, target)


@pytest.mark.model
@pytest.mark.parametrize("drawn", [False, True], ids=["text", "drawn"])
@pytest.mark.parametrize("sampling", [SamplingParams(temperature=1.0), SamplingParams(temperature=1.3, top_p=0.9)])
def test_verified_tokens_are_distributed_as_the_model_says(
    executor: OpenVinoExecutor, tokenizer: ModelTokenizer, sampling: SamplingParams, drawn: bool
) -> None:
    """Verification over the model's own logits: first and second tokens of many requests with drafts of two tokens.

    Drafts that follow from the text guess the likeliest tokens; drawn ones come from the logits at another temperature.
    """
    prompt = tokenizer.encode("My grandmother kept bees, and every autumn she")
    rows = [logits_after(executor, prompt)]
    first = probabilities(rows[0], sampling)
    guess = int(first.argmax())
    rows.append(logits_after(executor, [*prompt, guess]))
    second = probabilities(rows[1], sampling)
    rows.append(logits_after(executor, [*prompt, guess, int(second.argmax())]))
    flat = SamplingParams(temperature=1.6)
    proposals = np.stack([probabilities(row, flat) for row in rows[:2]]).astype(np.float32)
    dice = np.random.default_rng(7)
    sampler = Sampler(executor.vocabulary, None)
    counts, after = np.zeros(len(first)), np.zeros(len(first))
    for start in range(0, DRAWS, TOGETHER):
        items = []
        for number in range(start, start + TOGETHER):
            tokens: tuple[int, ...] = (guess, int(second.argmax()))
            if drawn:  # behind another first token the logits are not known
                tokens = (draw(proposals[0].astype(np.float64), dice), draw(proposals[1].astype(np.float64), dice))
                tokens = tokens if tokens[0] == guess else tokens[:1]
            draft = Draft(tokens, proposals[: len(tokens)] if drawn else None)
            sequence = sequence_of(prompt, sampling, seed=number)
            items.append(BatchItem(sequence, len(prompt) - 1, 1 + len(tokens), emits=True, draft=draft))
        logits = np.stack([row for item in items for row in rows[: item.count]])
        firsts = row_starts([item.count for item in items])
        for emitted in verified_sampled(items, logits, firsts, sampler.choose, sampler.choose):
            counts[emitted[0]] += 1
            if emitted[0] == guess and len(emitted) > 1:
                after[emitted[1]] += 1
    check_counts(counts, first)
    assert after.sum() > DRAWS / 20
    check_counts(after, second)


@pytest.mark.model
def test_a_seed_gives_the_same_text_with_drafts_and_without(executor: OpenVinoExecutor, tokenizer: ModelTokenizer) -> None:
    """Right, wrong and no drafts: a seeded answer is the same, for drafts that follow from the text cost no draw."""
    prompt = tuple(tokenizer.encode("one: red, two: green, three: blue.\n" * 3))
    for sampling in (SamplingParams(max_tokens=40, temperature=0.9, seed=5), SamplingParams(max_tokens=40, top_p=0.8, seed=6)):
        plain, guessed = (seeded_answer(executor, prompt, sampling, drafts) for drafts in (False, True))
        assert plain == guessed


def seeded_answer(executor: OpenVinoExecutor, prompt: tuple[int, ...], sampling: SamplingParams, drafts: bool) -> list[int]:
    config = ServingConfig(mode=BatchingMode.CONTINUOUS, speculation=SpeculationMode.PROMPT_LOOKUP, draft_tokens=3)
    speculator = build_speculator(config, time.monotonic) if drafts else None
    policy = build_policy(config)
    loop = StepLoop(policy, FewerBlocks(executor, 8), time.monotonic, max_model_len=128, speculator=speculator)
    outcome = drive(loop, [GenerationRequest(prompt, sampling, "one")], {})
    if speculator is not None:
        assert speculator.counters.draft_tokens > speculator.counters.accepted_tokens > 0
    return outcome.tokens["one"]


def logits_after(executor: OpenVinoExecutor, tokens: list[int]) -> npt.NDArray[np.float32]:
    sequence = sequence_of(tokens, SamplingParams(), seed=0)
    item = BatchItem(sequence, 0, len(tokens), emits=True)
    return np.array(executor.collect_rows(executor.submit(make_batch([item])))[1][0], dtype=np.float32)


def sequence_of(tokens: list[int], sampling: SamplingParams, *, seed: int) -> Sequence:
    """A request of its own seed, in the first block."""
    sequence = Sequence(0, GenerationRequest(tuple(tokens), replace(sampling, seed=seed)), arrived_s=0.0, max_tokens=8)
    sequence.blocks = [0]
    return sequence
