"""The independent reference: OpenVINO GenAI's own pipeline, one sequence at a time, and the original graph run by hand.

Both use stateful attention (no paging, no batching, no blocks) on the model as it was converted. F32 means F32: without
``DYNAMIC_QUANTIZATION_GROUP_SIZE`` 0 the CPU quantises activations to 8 bits, and logits move by up to 1 with the shape of
the input, whatever the precision hint says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.engine.openvino.graph import MODEL_FILE
from setpoint.engine.openvino.runtime import openvino_genai, ov

F32 = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "ENABLE_CPU_PINNING": False,
}
# Logits of the same tokens differ by up to 1e-4 between whole, chunked, paged and batched evaluation in F32 (sums in another
# order; measured on this model, whose logits have a standard deviation of 6). Two logits may move apart twice that; the rest
# of the thousandth is for other machines' vector widths.
NEAR_TIE = 1e-3


class Reference:
    """Greedy answers and logits of the model in ``folder``."""

    def __init__(self, folder: Path, eos_ids: frozenset[int]) -> None:
        self._eos_ids = eos_ids
        self._pipeline = openvino_genai.LLMPipeline(str(folder), "CPU", ATTENTION_BACKEND="SDPA", **F32)
        self._answers: dict[tuple[object, ...], list[int]] = {}
        self._request = ov.Core().compile_model(folder / MODEL_FILE, "CPU", F32).create_infer_request()

    def greedy(self, prompt: Sequence[int], new_tokens: int, *, ignore_eos: bool = False, **options: float) -> list[int]:
        """At most ``new_tokens`` tokens, up to the end token (itself not) unless ``ignore_eos``.

        ``options``: of GenAI's ``GenerationConfig``.
        """
        key = (tuple(prompt), new_tokens, ignore_eos, *sorted(options.items()))
        if key not in self._answers:
            self._answers[key] = self._greedy(prompt, new_tokens, ignore_eos=ignore_eos, **options)
        return list(self._answers[key])

    def _greedy(self, prompt: Sequence[int], new_tokens: int, *, ignore_eos: bool, **options: float) -> list[int]:
        config = openvino_genai.GenerationConfig()
        config.do_sample = False
        config.max_new_tokens = new_tokens
        config.eos_token_id = min(self._eos_ids)
        config.ignore_eos = ignore_eos
        for name, value in options.items():
            setattr(config, name, value)
        ids = np.array([prompt], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        tokens = list(self._pipeline.generate(inputs, config).tokens[0])
        return tokens if ignore_eos else without_end(tokens, self._eos_ids)

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits after every token of one sequence, evaluated whole: [tokens, vocabulary]."""
        ids = np.array([tokens], dtype=np.int64)
        self._request.reset_state()
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        rows: npt.NDArray[np.float32] = self._request.infer(inputs)[0][0].copy()
        return rows

    def margin(self, tokens: Sequence[int], one: int, other: int) -> float:
        """How far below the largest logit after ``tokens`` the lower one of two candidates lies."""
        last = self.logits(tokens)[-1]
        return float(last.max() - min(last[one], last[other]))


def without_end(tokens: list[int], eos_ids: frozenset[int]) -> list[int]:
    """``tokens`` up to the first end token."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in eos_ids), len(tokens))]


def first_difference(one: Sequence[int], other: Sequence[int], end: int) -> tuple[int, int, int] | None:
    """Position where two answers part and the token each has there; an answer that is over has ``end``."""
    for position in range(max(len(one), len(other))):
        a = one[position] if position < len(one) else end
        b = other[position] if position < len(other) else end
        if a != b:
            return position, a, b
    return None
