"""Which experiments there are: the folders beside this one that hold an ``experiment.py``."""

from __future__ import annotations

import importlib
from pathlib import Path

from gallery.description import Experiment

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    "utilisation",
    "utilisation_here",
    "batching_modes",
    "batching_modes_here",
    "waiting",
    "averages_hide",
    "tail_spikes",
    "tail_spikes_here",
    "sustained_burst",
    "shave_200ms",
    "profiles",
    "kv_pressure",
    "hardware_bounds",
    "tuned_on_a100",
    "speculation_here",
    "loop_converges",
)


def names() -> list[str]:
    """Every experiment, in the order in which they are told; those that ``ORDER`` does not name come last."""
    found = {file.parent.name for file in ROOT.glob("*/experiment.py")}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def load(name: str) -> Experiment:
    """The experiment of a folder. Raises ``KeyError`` for a name that is none."""
    if name not in names():
        raise KeyError(name)
    experiment: Experiment = importlib.import_module(f"{name}.experiment").EXPERIMENT
    assert experiment.name == name, f"{name}/experiment.py calls itself {experiment.name}"
    return experiment
