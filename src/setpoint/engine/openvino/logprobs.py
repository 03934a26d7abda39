"""Log-probabilities of tokens from logits rows: the model's own, whatever was done to the logits to choose a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.engine.request import TokenLogprobs

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Likeliest:
    """Of R rows: the K largest logits with their tokens, likeliest first, and the logarithm of the sum of exponentials."""

    values: Floats
    tokens: npt.NDArray[np.integer[Any]]
    log_sum: Floats

    def of(self, row: int, token: int, logit: float, count: int) -> TokenLogprobs:
        """What is told of ``token``, whose logit is ``logit``, in ``row``, beside the ``count`` likeliest."""
        total = float(self.log_sum[row])
        values: list[float] = self.values[row, :count].tolist()
        tokens: list[int] = self.tokens[row, :count].tolist()
        top = tuple((other, min(0.0, value - total)) for other, value in zip(tokens, values, strict=True))
        return TokenLogprobs(token, min(0.0, logit - total), top)
