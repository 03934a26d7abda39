"""How long a step takes on a deployment, from measurements where there are any.

Formula: ``coefficients.py``. Where its coefficients come from, the best first: observed steps of this model on this accelerator
under this engine (``step_fit.py``); observed steps of another model there, whose distance from physics is carried over; effects
fitted to tables of measurements (``effects.py``); prior means alone. When it is wrong: kernels with tiers (a step function of
tokens) are followed on average; the first step of a shape is slower; a shared machine has a heavy tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from setpoint.hardware.accelerator import CPU
from setpoint.hardware.calibrations import (
    MEASURED,
    PHYSICS,
    TRANSFERRED,
    StepsCalibration,
    calibrations,
    effects_calibration,
    relative_error,
    relative_ttft_error,
    source_of,
    vendor_known,
)
from setpoint.hardware.coefficients import (
    OVERLAP,
    PRIORS,
    TIMES,
    Coefficients,
    base_s,
    dense_parts_s,
    expert_parts_s,
    parts_s,
    per_kv_token_s,
    per_product_s,
)
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.effects import deployment_coefficients, levels_of
from setpoint.hardware.step_fit import StepFit, step_fit_from
from setpoint.hardware.terms import Number, Terms, terms_of
from setpoint.policy.decisions import StepWork

# Standard deviation of ln(predicted / true) where no calibration says better.
PHYSICS_ERROR = 0.45
TRANSFERRED_STEPS_ERROR = 0.3
BANDWIDTH, COMPUTE, LINK, OVERHEAD = "bandwidth", "compute", "link", "overhead"


class StepTimer(Protocol):
    """How long a step takes, and how sure that is.

    source: ``measured``, ``transferred`` or ``physics``. relative_error: one standard deviation of ln(predicted / true). guess:
    whether that is no more than a guess, steps being known by physics alone or from accelerators of other vendors.
    """

    @property
    def source(self) -> str: ...

    @property
    def relative_error(self) -> float: ...

    @property
    def guess(self) -> bool: ...

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """``(base_s, per_kv_token_s, per_product_s)`` of a step of ``tokens`` new tokens over ``sequences`` sequences.

        Its time is ``base_s + per_kv_token_s * kv_tokens_read + per_product_s * attention_products`` (fields of ``StepWork``).
        """
        ...


@dataclass(frozen=True)
class PhysicalTimer:
    """The step-time model of one deployment. Immutable; ``affine`` remembers the shapes it was asked for."""

    terms: Terms
    coefficients: Coefficients
    source: str = "physics"
    relative_error: float = PHYSICS_ERROR
    guess: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "_base_s", lru_cache(maxsize=1 << 16)(self._uncached_base_s))
        object.__setattr__(self, "_kv_s", float(per_kv_token_s(self.terms, self.coefficients)))
        object.__setattr__(self, "_product_s", float(per_product_s(self.terms, self.coefficients)))

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer.affine``."""
        return self._base_s(tokens, sequences), self._kv_s, self._product_s  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[type[PhysicalTimer], tuple[Terms, Coefficients, str, float, bool]]:
        """For another process: without what was remembered."""
        return PhysicalTimer, (self.terms, self.coefficients, self.source, self.relative_error, self.guess)

    def _uncached_base_s(self, tokens: int, sequences: int) -> float:
        return float(base_s(self.terms, self.coefficients, float(tokens), float(sequences)))


class StepLine(Protocol):
    """What is asked of a timer by those who want seconds alone."""

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer``."""
        ...


def step_s(timer: StepLine, work: StepWork) -> float:
    """Seconds that a step of ``work`` takes."""
    base, per_kv, per_product = timer.affine(work.tokens, work.sequences)
    return base + per_kv * work.kv_tokens_read + per_product * work.attention_products


@dataclass(frozen=True)
class ObservedTimer:
    """The step-time model of observed steps."""

    fit: StepFit
    relative_error: float
    source: str = MEASURED

    def __post_init__(self) -> None:
        object.__setattr__(self, "_affine", lru_cache(maxsize=1 << 16)(self.fit.affine))

    def __reduce__(self) -> tuple[type[ObservedTimer], tuple[StepFit, float, str]]:
        """For another process: without what was remembered."""
        return ObservedTimer, (self.fit, self.relative_error, self.source)

    @property
    def guess(self) -> bool:
        """See ``StepTimer``: never, as steps of the very deployment were observed."""
        return False

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer.affine``."""
        return self._affine(tokens, sequences)  # type: ignore[attr-defined, no-any-return]


def step_timer(deployment: Deployment) -> StepTimer:
    """The best model there is of ``deployment``: its calibration if it has one, else physics with prior means.

    A calibration that does not hold here any more (another machine, another engine) is passed over. Raises ``HardwareError``
    if a calibration of the user's cannot be read.
    """
    here = [each for each in _steps_calibrations(deployment) if each.stale() is None]
    for each in here:
        if _is_of(each, deployment):
            return ObservedTimer(step_fit_from(each.fit), each.relative_error)
    physical = physical_timer(deployment)
    return carried_over(here[0], physical) if here else physical


def calibration_words(deployment: Deployment) -> list[str]:
    """Sentences on the calibration of this deployment: which run taught it, and which are passed over and why."""
    said: list[str] = []
    for each in _steps_calibrations(deployment):
        if not _is_of(each, deployment) or each.provenance is None:
            continue
        reason = each.stale()
        if reason is None:
            return [f"Step times were learned from {each.provenance.words()}.", *said]
        said.append(f"What {each.provenance.words()} taught is not used: {reason}.")
    return said


def _steps_calibrations(deployment: Deployment) -> list[StepsCalibration]:
    """Those of any model on its accelerator under its engine, the strongest first."""
    wanted = (deployment.accelerator.name, deployment.engine)
    steps = (each for each in calibrations() if isinstance(each, StepsCalibration))
    return [each for each in steps if (each.accelerator, each.engine) == wanted]


def _is_of(calibration: StepsCalibration, deployment: Deployment) -> bool:
    """Whether it is of this deployment: a calibration knows of no parallelism, so it is of one device."""
    wanted = (deployment.model.shape, deployment.weight_precision)
    return deployment.devices == 1 and (calibration.model, calibration.weight_precision) == wanted


def physical_timer(deployment: Deployment) -> PhysicalTimer:
    """The physical model with what tables of measurements say, or with prior means."""
    prior = PhysicalTimer(terms_of(deployment), PRIORS[deployment.accelerator.kind])
    calibration = effects_calibration()
    if calibration is None or deployment.accelerator.kind == CPU:
        return prior
    levels = levels_of(deployment)
    source = source_of(calibration.effects, levels)
    error = relative_error(calibration, deployment, levels)
    coefficients = prior.coefficients if source == PHYSICS else deployment_coefficients(calibration.effects, deployment)
    guess = not error or source == PHYSICS or not vendor_known(calibration, deployment)
    return PhysicalTimer(prior.terms, coefficients, source, error or PHYSICS_ERROR, guess)


def ttft_error(deployment: Deployment, timer: StepTimer) -> float:
    """One standard deviation of ln(predicted / true) of TTFT: what tables of measurements leave of it, at least that of steps.

    Prompts, queues and the front end are in it. Where steps were observed, or on a CPU, no table says more than the timer.
    """
    calibration = effects_calibration()
    if calibration is None or deployment.accelerator.kind == CPU or isinstance(timer, ObservedTimer):
        return timer.relative_error
    found = relative_ttft_error(calibration, deployment, levels_of(deployment))
    return max(found or 0.0, timer.relative_error)


def carried_over(calibration: StepsCalibration, physical: PhysicalTimer) -> PhysicalTimer:
    """``physical`` times how far observed steps of another model are from physics there.

    Its error is a guess where that of ``physical`` is: one deployment says nothing of how far others are off.
    """
    factor = max(float(calibration.fit.get("over_physics", 1.0)), 1e-3)
    coefficients = physical.coefficients.scaled(dict.fromkeys(TIMES, factor))
    return PhysicalTimer(physical.terms, coefficients, TRANSFERRED, TRANSFERRED_STEPS_ERROR, physical.guess)


def breakdown(deployment: Deployment, work: StepWork, timer: PhysicalTimer | None = None) -> dict[str, float]:
    """Seconds of a step by what they are spent on: the parts of ``coefficients.parts_s``, and ``kv`` and ``attention``."""
    timer = timer or physical_timer(deployment)
    parts = parts_s(timer.terms, timer.coefficients, float(work.tokens), float(work.sequences))
    seconds = {name: float(each) for name, each in parts.items()}
    _, per_kv, per_product = timer.affine(work.tokens, work.sequences)
    return {**seconds, "kv": per_kv * work.kv_tokens_read, "attention": per_product * work.attention_products}


def bound_by(deployment: Deployment, work: StepWork) -> str:
    """What most of a step of ``work`` waits for: ``bandwidth``, ``compute``, ``link`` or ``overhead``."""
    timer = physical_timer(deployment)
    seconds = breakdown(deployment, work, timer)
    terms, c, tokens = timer.terms, timer.coefficients, float(work.tokens)
    dense = _memory_share(*dense_parts_s(terms, c, tokens, float(work.sequences)))
    experts = _memory_share(*expert_parts_s(terms, c, tokens))
    shares = {
        BANDWIDTH: seconds["dense"] * dense
        + seconds["experts"] * experts
        + seconds["window"]
        + seconds["kv"]
        + seconds["activations"],
        COMPUTE: seconds["dense"] * (1 - dense) + seconds["experts"] * (1 - experts) + seconds["output"] + seconds["attention"],
        LINK: seconds["link"],
        OVERHEAD: seconds["launch"] + seconds["sequences"] + seconds["host"],
    }
    return max(shares, key=lambda each: shares[each])


def _memory_share(memory_s: Number, compute_s: Number) -> float:
    """Of an overlapping read and operation: the share of the time that the read accounts for."""
    reads, operations = float(memory_s) ** OVERLAP, float(compute_s) ** OVERLAP
    return float(reads / max(reads + operations, 1e-60))
