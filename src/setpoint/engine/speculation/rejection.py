"""Rejection sampling of drafts that were drawn: accept x with min(1, p(x) / q(x)), else draw from the positive part of p - q.

Source: Leviathan et al. 2023, Chen et al. 2023. Whatever q is, what comes out is distributed as p: for any token x,
q(x) min(1, p/q) + P(rejected) (p - q)+ / sum (p - q)+ = min(p, q) + (p - min(p, q)) = p(x). After a whole draft stands, one
more token is drawn from p. ``p`` and ``q`` are what temperature, top-k, top-p and min-p make of the logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.engine.batch import BatchItem
from setpoint.engine.request import SamplingParams
from setpoint.engine.sequence import Sequence

Floats = npt.NDArray[Any]
HEAD = 512


def probabilities(logits: Floats, sampling: SamplingParams) -> npt.NDArray[np.float64]:
    """What a token is drawn from: [vocabulary], summing to 1. Filters in the order of the sampler: top-k, top-p, min-p.

    Tokens as likely as the last one that top-k keeps are all kept; of those that top-p's edge falls among, the lowest ids.
    """
    weights = np.exp((logits - logits.max()).astype(np.float64) / sampling.temperature)
    if 0 < sampling.top_k < len(weights):
        weights[weights < np.partition(weights, -sampling.top_k)[-sampling.top_k]] = 0
    if sampling.top_p < 1.0:
        _keep_nucleus(weights, sampling.top_p)
    if sampling.min_p > 0.0:
        weights[weights < sampling.min_p * weights.max()] = 0
    total: np.float64 = weights.sum()
    return np.asarray(weights / total)


def _keep_nucleus(weights: npt.NDArray[np.float64], top_p: float) -> None:
    wanted = top_p * weights.sum()
    candidates = np.arange(len(weights))
    if len(weights) > HEAD:
        head = np.sort(np.argpartition(-weights, HEAD)[:HEAD])
        if weights[head].sum() >= wanted:
            candidates = head
    order = candidates[np.argsort(-weights[candidates], kind="stable")]
    kept = order[: int(np.searchsorted(weights[order].cumsum(), wanted, side="left")) + 1]
    values = weights[kept]
    weights[:] = 0
    weights[kept] = values


def draw(distribution: npt.NDArray[np.float64], generator: np.random.Generator) -> int:
    """A token from non-negative numbers of a positive sum."""
    cumulative = distribution.cumsum()
    target = generator.random() * cumulative[-1]
    token = min(int(np.searchsorted(cumulative, target, side="right")), len(cumulative) - 1)
    while distribution[token] <= 0:  # rounding at the end of the sum
        token -= 1
    return token


def accept_or_replace(
    token: int, proposal: Floats, target: npt.NDArray[np.float64], generator: np.random.Generator
) -> tuple[int, bool]:
    """One position: the token to emit, and whether it is the draft's. ``proposal`` and ``target``: q and p, [vocabulary]."""
    if generator.random() * float(proposal[token]) < target[token]:
        return token, True
    rest = np.maximum(target - proposal, 0.0)
    if rest.sum() > 0.0:
        return draw(rest, generator), False
    # p equals q up to rounding: rejection had no probability, unless the token is one that p excludes.
    return (token, True) if target[token] > 0 else (draw(target, generator), False)


def generator_of(sequence: Sequence) -> np.random.Generator:
    """The request's own source of randomness, made at first use."""
    if sequence.generator is None:
        seed = sequence.request.sampling.seed
        # Clients send negative seeds; the generator takes none, so they count from the other end of 64 bits.
        sequence.generator = np.random.default_rng(None if seed is None else seed % (1 << 64))
    return sequence.generator


class DrawnDraft:
    """The draft of ``item``, whose tokens were drawn from its proposal."""

    def __init__(self, item: BatchItem) -> None:
        assert item.draft is not None
        assert item.draft.proposal is not None
        self._sequence = item.sequence
        self._tokens, self._proposal = item.draft.tokens, item.draft.proposal

    def verified(self, logits: Floats) -> list[int]:
        """The tokens that are emitted, from the logits at each sampled position: [len(draft) + 1, vocabulary]."""
        generator = generator_of(self._sequence)
        sampling = self._sequence.request.sampling
        emitted: list[int] = []
        for token, proposal, row in zip(self._tokens, self._proposal, logits, strict=False):
            chosen, stands = accept_or_replace(token, proposal, probabilities(row, sampling), generator)
            emitted.append(chosen)
            if not stands:
                return emitted
        return [*emitted, draw(probabilities(logits[len(self._tokens)], sampling), generator)]
