"""The tokenizer's own graph, run without the interpreter lock.

The library's ``encode`` keeps the lock: half a million characters stop every token of every request for a third of a second.
The same graph, read from the same file and run as an inference, does not. Texts are encoded whole, however long.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from setpoint.engine.openvino.runtime import ov
from setpoint.engine.openvino.whole_texts import read_uncut

TOKENIZER_FILE = "openvino_tokenizer.xml"


class FreeEncoder:
    """Encodes one text at a time, as the file says: with its special tokens. Raises ``RuntimeError`` if it cannot be read."""

    def __init__(self, folder: Path) -> None:
        graph = read_uncut(folder / TOKENIZER_FILE)
        compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": 1})
        self._request: Any = compiled.create_infer_request()
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``."""
        with self._lock:
            self._request.infer({0: np.array([text])})
            ids: list[int] = self._request.get_tensor("input_ids").data[0].tolist()
            return ids
