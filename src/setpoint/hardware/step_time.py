"""How long a step takes on a deployment: physics with coefficients from measurements where there are any.

Formula: ``coefficients.py``. Source of the coefficients: a calibration for the accelerator and engine (``measured``), for
the engine on other accelerators (``transferred``), or prior means alone (``physics``). When it is wrong: kernels with tiers (a
step function of tokens) are followed on average; the first step of a shape is slower; a shared machine has a heavy tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from setpoint.hardware.coefficients import BY_ENGINE, Coefficients, base_s, parts_s, per_kv_token_s, per_product_s
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.terms import Terms, terms_of
from setpoint.policy.decisions import StepWork

PHYSICS_ERROR = 0.45
BANDWIDTH, COMPUTE, LINK, OVERHEAD = "bandwidth", "compute", "link", "overhead"


class StepTimer(Protocol):
    """How long a step takes, and how sure that is.

    source: ``measured``, ``transferred`` or ``physics``. relative_error: one standard deviation of ln(predicted / true).
    """

    @property
    def source(self) -> str: ...

    @property
    def relative_error(self) -> float: ...

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "_base_s", lru_cache(maxsize=1 << 16)(self._uncached_base_s))
        object.__setattr__(self, "_kv_s", float(per_kv_token_s(self.terms, self.coefficients)))
        object.__setattr__(self, "_product_s", float(per_product_s(self.terms, self.coefficients)))

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer.affine``."""
        return self._base_s(tokens, sequences), self._kv_s, self._product_s  # type: ignore[attr-defined]

    def _uncached_base_s(self, tokens: int, sequences: int) -> float:
        return float(base_s(self.terms, self.coefficients, float(tokens), float(sequences)))


def step_s(timer: StepTimer, work: StepWork) -> float:
    """Seconds that a step of ``work`` takes."""
    base, per_kv, per_product = timer.affine(work.tokens, work.sequences)
    return base + per_kv * work.kv_tokens_read + per_product * work.attention_products


def step_timer(deployment: Deployment) -> StepTimer:
    """The best model there is of ``deployment``: its calibration if it has one, else physics with prior means."""
    return PhysicalTimer(terms_of(deployment), BY_ENGINE[deployment.engine])


def breakdown(deployment: Deployment, work: StepWork, timer: PhysicalTimer | None = None) -> dict[str, float]:
    """Seconds of a step by what they are spent on: the parts of ``coefficients.parts_s``, and ``kv`` and ``attention``."""
    timer = timer or _physical(deployment)
    parts = parts_s(timer.terms, timer.coefficients, float(work.tokens), float(work.sequences))
    seconds = {name: float(each) for name, each in parts.items()}
    _, per_kv, per_product = timer.affine(work.tokens, work.sequences)
    return {**seconds, "kv": per_kv * work.kv_tokens_read, "attention": per_product * work.attention_products}


def bound_by(deployment: Deployment, work: StepWork) -> str:
    """What most of a step of ``work`` waits for: ``bandwidth``, ``compute``, ``link`` or ``overhead``."""
    timer = _physical(deployment)
    seconds = breakdown(deployment, work, timer)
    terms, c, tokens = timer.terms, timer.coefficients, float(work.tokens)
    dense = _memory_share(c.memory * terms.dense_weights_s, c.compute * terms.dense_token_s * tokens)
    hit = 1.0 - (1.0 - terms.expert_share) ** tokens
    experts = _memory_share(c.experts * terms.expert_weights_s * hit, c.expert_compute * terms.expert_token_s * tokens)
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


def _memory_share(memory_s: float, compute_s: float) -> float:
    """Of an overlapping read and operation: the share of the time that the read accounts for."""
    return memory_s**2 / max(memory_s**2 + compute_s**2, 1e-30)


def _physical(deployment: Deployment) -> PhysicalTimer:
    timer = step_timer(deployment)
    assert isinstance(timer, PhysicalTimer)
    return timer
