"""What measurements say beyond the prior means, level by level: a tree of factors on coefficients, each shrunk to 1.

The coefficients of one measurement are prior means times a factor for its engine, one for its accelerator, one for both
together, for the family of its model, the parallelism, the version of the engine, and so on. What was never measured has a
factor of 1 at that level and keeps those above it: so an unseen accelerator is predicted from the engine and the model, with
the others' spread as its uncertainty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.hardware.closed_loop import Harness
from setpoint.hardware.coefficients import NAMES, ON_GPU, PRIORS, TIMES, Coefficients
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.measurements import Setting

Array = npt.NDArray[np.float64]
HARNESS_NAMES = tuple(each.name for each in fields(Harness))
# Of everything a step takes: what a version of an engine gains or loses as a whole.
SCALE = "scale"
ALL_NAMES = (*NAMES, SCALE, *HARNESS_NAMES)
STEP, WHOLE, AROUND, LOCAL = "step", "whole", "around", "local"
KIND_OF = {
    **dict.fromkeys(NAMES, STEP), SCALE: WHOLE, **dict.fromkeys(HARNESS_NAMES, AROUND), "limit": LOCAL,
}  # fmt: skip
# Levels that a deployment has by itself; the others need to know how it was measured.
OWN_LEVELS = (
    "all", "engine", "accelerator", "engine accelerator", "family", "engine family", "engine model", "engine parallel",
    "family accelerator", "model", "parallel",
)  # fmt: skip
# Levels whose middle is taken by rows: a version with a few odd rows is not as typical as one with many. Who measured
# ("protocol") is not among them: each has many rows, and none is more right for having more.
COUNTED_LEVELS = ("engine version", "version")


def levels_of(deployment: Deployment) -> dict[str, str]:
    """The name of each of ``OWN_LEVELS`` for ``deployment``."""
    engine, device, model = deployment.kernels, deployment.accelerator.name, deployment.model
    family = f"{model.family} {deployment.weight_precision}"
    spread = f"{deployment.tensor_parallel}x{deployment.data_parallel}x{deployment.expert_parallel}"
    return {
        "all": "all",
        "engine": engine,
        "accelerator": device,
        "engine accelerator": f"{engine} {device}",
        "family": model.family,
        "engine family": f"{engine} {family}",
        "engine model": f"{engine} {model.shape} {deployment.weight_precision}",
        "engine parallel": f"{engine} {family} {spread}",
        "family accelerator": f"{family} {device}",
        "model": f"{engine} {device} {model.shape} {deployment.weight_precision}",
        "parallel": f"{engine} {device} {family} {spread}",
    }


def all_levels_of(setting: Setting) -> dict[str, str]:
    """Those, and who measured, which version, which lengths."""
    own = levels_of(setting.deployment)
    lengths = f"{setting.prompt_tokens:.0f}+{setting.output_tokens:.0f}"
    release = f"{setting.version} {setting.protocol} {setting.label}"
    clients = f"2^{round(log2(setting.concurrency))}"
    return {
        **own,
        "protocol": f"{setting.deployment.engine} {setting.protocol}",
        "engine version": f"{own['engine model']} {release}",
        "version": f"{own['model']} {release}",
        "engine lengths": f"{setting.deployment.engine} {setting.protocol} {lengths}",
        "model lengths": f"{own['model']} {lengths}",
        "engine clients": f"{setting.deployment.engine} {setting.protocol} {clients}",
        "model clients": f"{own['model']} {clients}",
    }


@dataclass(frozen=True, slots=True)
class Effects:
    """Logarithms of factors: level -> name at that level -> coefficient -> logarithm; absent is 0.

    counts: level of ``COUNTED_LEVELS`` -> name -> rows fitted there; absent is 1, so without any all names weigh the same.
    """

    factors: Mapping[str, Mapping[str, Mapping[str, float]]]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """Both as a calibration's file has them."""
        return {"effects": self.factors, "counts": self.counts}

    def knows(self, level: str, name: str) -> bool:
        """Whether anything was measured there."""
        return name in self.factors.get(level, {})

    def logarithms(self, levels: Mapping[str, str]) -> Array:
        """The sum over ``levels``, shape (coefficients,) in the order of ``ALL_NAMES``."""
        total = np.zeros(len(ALL_NAMES))
        for level, name in levels.items():
            found = self.factors.get(level, {}).get(name)
            if found:
                total += np.array([found.get(each, 0.0) for each in ALL_NAMES])
        return total

    def typical(self, level: str, start: str) -> Array:
        """The middle of the effects at ``level`` over all names that begin with ``start``, by their rows; 0 without any."""
        found = {name: each for name, each in self.factors.get(level, {}).items() if name.startswith(f"{start} ")}
        if not found:
            return np.zeros(len(ALL_NAMES))
        counts = self.counts.get(level, {})
        values = np.array([[each.get(coefficient, 0.0) for coefficient in ALL_NAMES] for each in found.values()])
        return weighted_median(values, np.array([float(counts.get(name, 1)) for name in found]))


def weighted_median(values: Array, weights: Array) -> Array:
    """Of each column the value with half of the weight on either side; the mean of two where the halves meet between them.

    values: shape (members, columns). weights: shape (members,), above 0.
    """
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    below, half = np.cumsum(weights[order], axis=0), weights.sum() / 2
    columns = np.arange(values.shape[1])
    lower, upper = (below < half).sum(axis=0), (below <= half).sum(axis=0)
    return np.asarray((ordered[lower, columns] + ordered[upper, columns]) / 2, dtype=np.float64)


def coefficients_from(logarithms: Array, prior: Coefficients = ON_GPU) -> Coefficients:
    """Coefficients at ``prior`` times the exponentials; shape (..., coefficients)."""
    factors = {name: np.exp(logarithms[..., place]) for place, name in enumerate(ALL_NAMES[: len(NAMES)])}
    whole = np.exp(logarithms[..., len(NAMES)])
    return prior.scaled({name: factor * whole if name in TIMES else factor for name, factor in factors.items()})


def harness_from(logarithms: Array) -> Harness:
    """What surrounds the steps, at its prior means times the exponentials."""
    prior = Harness()
    start = len(NAMES) + 1
    return replace(
        prior, **{name: getattr(prior, name) * np.exp(logarithms[..., start + i]) for i, name in enumerate(HARNESS_NAMES)}
    )


def deployment_coefficients(effects: Effects, deployment: Deployment) -> Coefficients:
    """The step coefficients of ``deployment`` as plain numbers: of a version that is middling by rows, whoever measured."""
    return as_numbers(coefficients_from(_middling(effects, deployment), PRIORS[deployment.accelerator.kind]))


def deployment_harness(effects: Effects, deployment: Deployment) -> Harness:
    """What surrounds the steps of ``deployment``, likewise."""
    return harness_from(_middling(effects, deployment))


def _middling(effects: Effects, deployment: Deployment) -> Array:
    levels = levels_of(deployment)
    typical = effects.typical("protocol", levels["engine"])
    typical = typical + effects.typical("engine version", levels["engine model"]) + effects.typical("version", levels["model"])
    return effects.logarithms(levels) + typical


def as_numbers(coefficients: Coefficients) -> Coefficients:
    """The same with floats for arrays of no dimension."""
    return replace(coefficients, **{name: float(getattr(coefficients, name)) for name in NAMES})


def same_level(many: Iterable[Mapping[str, str]], level: str, numbers: dict[str, int]) -> npt.NDArray[np.intp]:
    """A number for the name at ``level`` of each; ``numbers`` remembers them."""
    return np.array([numbers.setdefault(each[level], len(numbers)) for each in many], dtype=np.intp)
