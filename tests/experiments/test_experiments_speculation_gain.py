"""The figures of ``benchmarks/speculation/gain.py`` from runs by hand."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "speculation"


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("gain")
    for name in ("gain", "sides"):
        sys.modules.pop(name, None)


def test_tokens_a_second_are_those_of_one_round(gain: ModuleType) -> None:
    """Seen: the tokens of the first round over the seconds of the fastest."""
    off = [gain.Timed(seconds, [[1] * tokens], steps=tokens) for seconds, tokens in ((2.0, 100), (1.0, 40), (1.0, 60))]
    faster = [
        gain.Timed(each.seconds / 2, each.answers, drafts=8, drafted=20, accepted=12, steps=30, drafted_steps=9) for each in off
    ]
    row = gain.row_of({"off": off, "adaptive": faster, gain.AGAIN: off})
    assert (row["tokens_per_s"], row["steps"]) == (50.0, 200)
    assert row["adaptive"]["speed_up"] == 2.0
    assert (row["adaptive"]["steps_with_drafts"], row["adaptive"]["steps_without"]) == (27, 63)
    assert row["adaptive"]["acceptance_length"] == 2.5
    assert row["adaptive"]["answers"] == row["adaptive"]["identical_answers"] == 3
    assert row[gain.AGAIN]["rounds"] == [1.0, 1.0, 1.0]
    assert gain.told(row, gain.AGAIN) == "off again 1.00x (1.00-1.00)"
