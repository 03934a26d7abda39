"""Chooses tokens from logits rows, for the whole batch at once: the heavy part is a small compiled graph.

Two graphs over [R, vocabulary] logits: sums of ``exp((logit - max) / temperature)`` over groups of 256 tokens, and beside them
the 64 largest logits. A row without filters is drawn exactly: first a group, then a token in it. Filters (top-k, top-p,
min-p, in this order, as Hugging Face applies them) look at the 64 largest with the exact total; a row whose nucleus is
wider than that is drawn by rejection. Every request draws from its own generator, so its seed means the same in any batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.engine.openvino.logprobs import Likeliest
from setpoint.engine.openvino.runtime import ops, ov
from setpoint.engine.request import SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.rejection import generator_of

GROUP = 256
CANDIDATES = 64
MASKED = -1e30
TRIES = 64

Floats = npt.NDArray[np.floating[Any]]


def adjust(logits: Floats, sequence: Sequence) -> None:
    """Apply the penalties of ``sequence`` to its row, then its bias, in place. Only tokens they speak of are touched."""
    sampling = sequence.request.sampling
    if sampling.repetition_penalty != 1.0:
        seen = np.unique(np.array(sequence.tokens, dtype=np.int64))
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and sequence.emitted:
        emitted = np.array(sequence.tokens[sequence.prompt_tokens :], dtype=np.int64)
        tokens, counts = np.unique(emitted, return_counts=True)
        logits[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    if sampling.logit_bias:
        ids, added = zip(*sampling.logit_bias, strict=True)
        logits[list(ids)] += np.array(added, dtype=logits.dtype)


class Sampler:
    """Compiled for one vocabulary; ``choose`` may be called with any number of rows."""

    def __init__(self, vocabulary: int, threads: int | None) -> None:
        self._vocabulary = vocabulary
        self._candidates = min(CANDIDATES, vocabulary)
        self._threads = threads
        self._compiled: dict[bool, Any] = {}

    def choose(self, logits: Floats, sequences: list[Sequence], added: Floats | None = None) -> list[int]:
        """One token for each row of ``logits`` [R, vocabulary] (float32), which stay as they are.

        added: of the same shape, what grammars add to the logits: 0, or minus infinity where a token must not come next.
        """
        edited: dict[int, Floats] = {}
        for row, sequence in enumerate(sequences):
            sampling = sequence.request.sampling
            held = added is not None and sampling.grammar is not None
            if held or sampling.is_adjusted:
                edited[row] = logits[row] + added[row] if held and added is not None else logits[row].copy()
                if sampling.is_adjusted:
                    adjust(edited[row], sequence)
        tokens = self._choose(logits, edited, sequences)
        if added is not None:
            # Where weights underflow, a draw may fall on the edge of a group: never outside a grammar.
            for row in edited:
                if added[row, tokens[row]] != 0:
                    tokens[row] = int(edited[row].argmax())
        return tokens

    def prepare(self) -> None:
        """Compile what draws, and run it once, so that no request pays for it."""
        for top in (False, True):
            self._run(np.zeros((1, self._vocabulary), dtype=np.float32), np.ones((1, 1), dtype=np.float32), top=top)

    def likeliest(self, logits: Floats) -> Likeliest:
        """The ``CANDIDATES`` largest of each row of raw logits [R, vocabulary], and what turns logits into logprobs."""
        values, indices, sums = self._run(logits, np.ones((len(logits), 1), dtype=np.float32), top=True)
        log_sum = values[:, 0].astype(np.float64) + np.log(sums.sum(axis=1, dtype=np.float64))
        return Likeliest(values.astype(np.float64), indices.copy(), log_sum)

    def _choose(self, logits: Floats, edited: Mapping[int, Floats], sequences: list[Sequence]) -> list[int]:
        """``edited``: the rows that stand in place of those of ``logits``."""
        tokens = [0] * len(sequences)
        filtered: list[int] = []
        plain: list[int] = []
        for row, sequence in enumerate(sequences):
            sampling = sequence.request.sampling
            if sampling.is_greedy:
                tokens[row] = int(edited.get(row, logits[row]).argmax())
            elif sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0:
                filtered.append(row)
            else:
                plain.append(row)
        for rows, choose in ((plain, self._plain), (filtered, self._filtered)):
            if rows:
                part = logits if len(rows) == len(sequences) and not edited else logits[rows]
                for place, row in enumerate(rows):
                    if row in edited:
                        part[place] = edited[row]
                chosen = choose(part, [sequences[row] for row in rows])
                for row, token in zip(rows, chosen, strict=True):
                    tokens[row] = token
        return tokens

    def _plain(self, logits: Floats, sequences: list[Sequence]) -> list[int]:
        inverse, draws = _inverse_temperatures(sequences), _draws(sequences)
        largest, sums = self._run(logits, inverse, top=False)
        cumulative = sums.cumsum(axis=1, dtype=np.float64)
        targets = draws * cumulative[:, -1]
        groups = np.minimum((cumulative <= targets[:, None]).sum(axis=1), sums.shape[1] - 1)
        chosen = []
        for row, group in enumerate(groups.tolist()):
            start = group * GROUP
            inside = logits[row, start : start + GROUP]
            weights = np.exp((inside - largest[row, 0]) * inverse[row, 0]).cumsum(dtype=np.float64)
            rest = targets[row] - (cumulative[row, group - 1] if group else 0.0)
            index = int(np.searchsorted(weights, min(rest, weights[-1] * (1 - 1e-12)), side="right"))
            chosen.append(start + min(index, len(inside) - 1))
        return chosen

    def _filtered(self, logits: Floats, sequences: list[Sequence]) -> list[int]:
        inverse, draws = _inverse_temperatures(sequences), _draws(sequences)
        values, indices, sums = self._run(logits, inverse, top=True)
        weights = np.exp((values - values[:, :1]) * inverse).astype(np.float64)
        totals = sums.sum(axis=1, dtype=np.float64)
        chosen = []
        for row, sequence in enumerate(sequences):
            sampling = sequence.request.sampling
            count = nucleus_size(weights[row], float(totals[row]), sampling)
            if count is None:
                whole = np.exp((logits[row] - values[row, 0]) * inverse[row, 0])
                chosen.append(draw_from_nucleus(whole, sampling, generator_of(sequence)))
            else:
                chosen.append(int(indices[row, _pick(weights[row, :count], float(draws[row]))]))
        return chosen

    def _run(self, logits: Floats, inverse: Floats, *, top: bool) -> Any:
        request = self._compiled.get(top)
        if request is None:
            request = self._compiled[top] = self._compile(top).create_infer_request()
        request.set_tensor("logits", ov.Tensor(np.ascontiguousarray(logits), shared_memory=True))
        request.set_tensor("inverse_temperature", ov.Tensor(inverse, shared_memory=True))
        request.infer()
        names = ("values", "indices", "sums") if top else ("largest", "sums")
        return tuple(request.get_tensor(name).data for name in names)

    def _compile(self, top: bool) -> Any:
        logits = ops.parameter([-1, self._vocabulary], np.float32, name="logits")
        inverse = ops.parameter([-1, 1], np.float32, name="inverse_temperature")
        last = ops.constant(np.array([-1], dtype=np.int64))
        largest = ops.reduce_max(logits, last, True)
        padding = -self._vocabulary % GROUP
        padded = ops.pad(
            logits,
            ops.constant(np.array([0, 0], dtype=np.int64)),
            ops.constant(np.array([0, padding], dtype=np.int64)),
            "constant",
            ops.constant(np.float32(MASKED)),
        )
        weights = ops.exp(ops.multiply(ops.subtract(padded if padding else logits, largest), inverse))
        shape = np.array([0, (self._vocabulary + padding) // GROUP, GROUP], dtype=np.int64)
        sums = ops.reduce_sum(ops.reshape(weights, ops.constant(shape), True), last, False)
        outputs = {"sums": sums.output(0)}
        if top:
            most = ops.constant(np.int64(self._candidates))
            best = ops.topk(logits, most, -1, "max", "value", index_element_type="i32")
            outputs |= {"values": best.output(0), "indices": best.output(1)}
        else:
            outputs |= {"largest": largest.output(0)}
        results = []
        for name, output in outputs.items():
            result = ops.result(output)
            result.output(0).set_names({name})
            results.append(result)
        for parameter, name in ((logits, "logits"), (inverse, "inverse_temperature")):
            parameter.output(0).set_names({name})
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
        if self._threads is not None:
            properties["INFERENCE_NUM_THREADS"] = self._threads
        return ov.Core().compile_model(ov.Model(results, [logits, inverse]), "CPU", properties)


def nucleus_size(weights: Floats, total: float, sampling: SamplingParams) -> int | None:
    """How many of the largest ``weights`` (descending, first is 1, summing to at most ``total``) the filters keep.

    ``None`` if that cannot be told because ``weights`` is only the head of the distribution.
    """
    whole = bool(abs(float(weights.sum()) - total) <= 1e-6 * total)
    count = len(weights)
    settled = whole
    if sampling.top_k > 0:
        if sampling.top_k > count and not whole:
            return None
        count = min(count, sampling.top_k)
        total = float(weights[:count].sum())
        settled = True
    if sampling.top_p < 1.0:
        cumulative = weights[:count].cumsum()
        within = int(np.searchsorted(cumulative, sampling.top_p * total, side="left")) + 1
        if within > count and not settled:
            return None
        count = min(count, within)
        settled = True
    if sampling.min_p > 0.0:
        within = int((weights[:count] >= sampling.min_p * weights[0]).sum())
        if within == count and not settled:
            return None
        count = max(1, within)
    return max(1, count)


def draw_from_nucleus(weights: Floats, sampling: SamplingParams, generator: np.random.Generator) -> int:
    """Draw from a wide nucleus without sorting the vocabulary: draw from all, keep what lies inside.

    Exact (rejection sampling): a token is in the top-p nucleus iff the tokens likelier than it sum to less than top_p of
    the total, so at least top_p of the draws are kept. ``weights``: unnormalised, [vocabulary]; changed in place. After
    ``TRIES`` draws outside (a small top_p over a very flat distribution) the vocabulary is sorted after all.
    """
    if 0 < sampling.top_k < len(weights):
        weights[weights < np.partition(weights, -sampling.top_k)[-sampling.top_k]] = 0
    nucleus = sampling.top_p * float(weights.sum(dtype=np.float64))
    weights[weights < sampling.min_p * weights.max()] = 0
    cumulative = weights.cumsum(dtype=np.float64)
    for draw in generator.random(TRIES):
        token = min(int(np.searchsorted(cumulative, draw * cumulative[-1], side="right")), len(weights) - 1)
        if sampling.top_p >= 1.0 or float(weights[weights > weights[token]].sum(dtype=np.float64)) < nucleus:
            return token
    order = np.argsort(-weights, kind="stable")
    within = int(np.searchsorted(weights[order].cumsum(dtype=np.float64), nucleus, side="left")) + 1
    return int(order[_pick(weights[order[:within]], float(generator.random()))])


def _pick(weights: Floats, draw: float) -> int:
    cumulative = weights.cumsum()
    return min(int(np.searchsorted(cumulative, draw * cumulative[-1], side="right")), len(weights) - 1)


def _inverse_temperatures(sequences: list[Sequence]) -> npt.NDArray[np.float32]:
    return np.array([[1.0 / s.request.sampling.temperature] for s in sequences], dtype=np.float32)


def _draws(sequences: list[Sequence]) -> npt.NDArray[np.float64]:
    return np.array([generator_of(sequence).random() for sequence in sequences])
