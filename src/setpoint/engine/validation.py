"""What a request must be before it may share a step with others: one bad number must not end everybody's answers."""

from __future__ import annotations

from math import inf, isfinite

from setpoint.engine.request import GenerationRequest, InvalidRequest, SamplingParams

# Name: least allowed, most allowed. ``repetition_penalty`` divides logits, so it stays well away from 0.
RANGES = {
    "temperature": (0.0, inf),
    "top_p": (0.0, 1.0),
    "top_k": (0, inf),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-inf, inf),
    "frequency_penalty": (-inf, inf),
    "repetition_penalty": (1e-3, 1e3),
}


def require_servable(request: GenerationRequest, vocabulary: int) -> None:
    """Raise ``InvalidRequest`` for a token id outside ``vocabulary`` or a sampling parameter outside its range."""
    ids = request.prompt_ids
    if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
        wrong = min(ids) if min(ids) < 0 else max(ids)
        raise InvalidRequest(f"token id {wrong} is outside the vocabulary: use 0 to {vocabulary - 1}", "prompt")
    _require_in_range(request.sampling)
    biased = request.sampling.logit_bias
    wrong_bias = next((token for token, _ in biased if not 0 <= token < vocabulary), None)
    if wrong_bias is not None:
        raise InvalidRequest(f"token id {wrong_bias} is outside the vocabulary: use 0 to {vocabulary - 1}", "logit_bias")
    if not all(isfinite(value) for _, value in biased):
        raise InvalidRequest("a value is not finite: use numbers from -100 to 100", "logit_bias")


def _require_in_range(sampling: SamplingParams) -> None:
    for name, (least, most) in RANGES.items():
        value = getattr(sampling, name)
        if not (isfinite(value) and least <= value <= most):
            raise InvalidRequest(f"{name} is {value}: {_allowed(least, most)}", name)
    if sampling.grammar is not None and sampling.ignore_eos:
        raise InvalidRequest("ignore_eos cannot be kept with a grammar, which says where the answer ends", "ignore_eos")
    if "" in sampling.stop:
        raise InvalidRequest("a stop string is empty: leave it out", "stop")


def _allowed(least: float, most: float) -> str:
    if most < inf:
        return f"use a number from {least:g} to {most:g}"
    return "use a finite number" if least == -inf else f"use a finite number of at least {least:g}"
