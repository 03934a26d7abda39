"""The tokens that grammars allow next, for the whole batch, as numbers to add to logits: 0, or minus infinity.

Made between the start of a step and its end, when the kernels work and the engine's thread would wait.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from setpoint.engine.constraint import mask_words
from setpoint.engine.sequence import Sequence

FORBIDDEN: Final = np.float32(-np.inf)
# Row b: what each of the eight bits of byte b (lowest first) adds.
_BYTES: Final = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), np.float32(0), FORBIDDEN
).astype(np.float32)


class Masks:
    """Buffers that grow with the largest batch seen. One step at a time."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._words = mask_words(vocabulary)
        self._bits = np.zeros((0, self._words), dtype=np.int32)
        self._added = np.zeros((0, self._words * 32), dtype=np.float32)

    def prepare(self, sequences: list[Sequence]) -> npt.NDArray[np.float32] | None:
        """[len(sequences), vocabulary] to add to their logits, valid until the next call; ``None`` if nobody has a grammar.

        Each grammar takes in what its answer gained since the last call. One that cannot go on leaves its words in the
        sequence's ``fault``, and allows everything.
        """
        if all(sequence.request.sampling.grammar is None for sequence in sequences):
            return None
        count = len(sequences)
        if count > len(self._bits):
            self._bits = np.zeros((count, self._words), dtype=np.int32)
            self._added = np.zeros((count, self._words * 32), dtype=np.float32)
        for bits, sequence in zip(self._bits, sequences, strict=False):
            if sequence.request.sampling.grammar is None or not self._fill(bits, sequence):
                bits.fill(-1)
        octets = self._bits[:count].view(np.uint8)
        out: npt.NDArray[Any] = self._added[:count].reshape(count, -1, 8)
        np.take(_BYTES, octets, axis=0, out=out, mode="clip")
        return self._added[:count, : self._vocabulary]

    @staticmethod
    def _fill(bits: npt.NDArray[np.int32], sequence: Sequence) -> bool:
        bits.fill(0)
        try:
            error = _take_in_and_write(bits, sequence)
        except Exception as found:  # whatever a grammar does, it must not end everybody's answers
            error = str(found) or type(found).__name__
        if error:
            sequence.fault = f"the grammar cannot be followed any further: {error}"
        return not error


def _take_in_and_write(bits: npt.NDArray[np.int32], sequence: Sequence) -> str:
    """Bring the sequence's grammar up to date and write its mask; gives what went wrong."""
    matching = sequence.matching
    if matching is None:
        grammar = sequence.request.sampling.grammar
        assert grammar is not None
        matching = sequence.matching = grammar.begin()
    matching.advance(sequence.tokens[sequence.prompt_tokens + matching.consumed :])
    if not matching.error:
        matching.allowed(bits)
    return matching.error
