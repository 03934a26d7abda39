"""Sampling written down a second time, slowly: sorted, in float64, one rule after the other as Hugging Face applies them."""

from __future__ import annotations

from math import sqrt

import numpy as np
import numpy.typing as npt

from setpoint.engine.request import SamplingParams

Floats = npt.NDArray[np.float64]
# Draws from the right distribution fail a chi-square test this often (one-sided, standard deviations of a normal: 1e-5).
FALSE_ALARM_SIGMA = 4.265
LEAST_EXPECTED = 8.0


def distribution(logits: npt.NDArray[np.float32], sampling: SamplingParams) -> Floats:
    """The probability of every token after temperature, top-k, top-p and min-p."""
    scaled = logits.astype(np.float64) / sampling.temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    if sampling.top_p < 1:
        kept = probabilities[order] / probabilities[order].sum()
        before = np.cumsum(kept) - kept
        order = order[before < sampling.top_p]
    if sampling.min_p:
        order = order[probabilities[order] >= sampling.min_p * probabilities.max()]
    chosen: Floats = np.zeros_like(probabilities)
    chosen[order] = probabilities[order] / probabilities[order].sum()
    return chosen


def penalised(logits: list[float], prompt: list[int], emitted: list[int], sampling: SamplingParams) -> list[float]:
    """Repetition penalty over prompt and answer, then presence and frequency penalties over the answer."""
    result = list(logits)
    for token in set(prompt) | set(emitted):
        penalty = sampling.repetition_penalty
        result[token] = result[token] / penalty if result[token] > 0 else result[token] * penalty
    for token in set(emitted):
        result[token] -= sampling.presence_penalty + sampling.frequency_penalty * emitted.count(token)
    return result


def chi_square_sigma(draws: list[int], expected: Floats) -> float:
    """How far draws are from ``expected``, as standard deviations of a normal (Wilson and Hilferty's approximation).

    Tokens are put together, likeliest first, until at least ``LEAST_EXPECTED`` draws are expected of each bin.
    """
    counts = np.bincount(draws, minlength=len(expected))
    assert not counts[expected == 0].any(), "a token was drawn that the filters exclude"
    order = np.argsort(-expected, kind="stable")
    cumulative = np.cumsum(expected[order]) * len(draws) / LEAST_EXPECTED
    bins = np.minimum(np.floor(cumulative - 1e-9), np.floor(cumulative[-1] - 1e-9) - 1).astype(int).clip(min=0)
    wanted = np.bincount(bins, weights=expected[order] * len(draws))
    seen = np.bincount(bins, weights=counts[order])
    used = wanted > 0
    statistic = float((((seen - wanted) ** 2)[used] / wanted[used]).sum())
    freedom = int(used.sum()) - 1
    assert freedom > 0, "one bin tells nothing"
    spread = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - spread)) / sqrt(spread))
