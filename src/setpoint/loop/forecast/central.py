"""One prediction out of several simulations of the same: every latency is their median, counts are those of a middle one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from setpoint.record import PhaseMeasures, Predicted, SloReport, Summary, Verdict

LEVELS = ("mean", "p50", "p90", "p95", "p99", "max")
ORDER = (Verdict.MISSED, Verdict.INCONCLUSIVE, Verdict.MET)


def central_figures(several: Sequence[tuple[Predicted, SloReport]]) -> tuple[Predicted, SloReport]:
    """Figures and checks of the middle one by verdict and goodput, its latencies replaced by the medians of all.

    Raises ``ValueError`` without any.
    """
    if not several:
        raise ValueError("there is no middle of nothing")
    ranked = sorted(range(len(several)), key=lambda place: (_rank(several[place]), place))
    predicted, slo = several[ranked[(len(ranked) - 1) // 2]]
    sustained = _middle(predicted.sustained, [each.sustained for each, _ in several])
    bursts = [each.burst for each, _ in several if each.burst is not None]
    burst = _middle(predicted.burst, bursts) if predicted.burst is not None else None
    return predicted.model_copy(update={"sustained": sustained, "burst": burst}), slo


def _rank(one: tuple[Predicted, SloReport]) -> tuple[int, float]:
    return ORDER.index(one[1].verdict), one[0].sustained.goodput_fraction or 0.0


def _middle(base: PhaseMeasures, several: Sequence[PhaseMeasures]) -> PhaseMeasures:
    changed: dict[str, Summary] = {}
    for name in PhaseMeasures.model_fields:
        found = [each for figures in several if isinstance(each := getattr(figures, name), Summary)]
        own = getattr(base, name)
        if len(found) > 1 and isinstance(own, Summary):
            changed[name] = own.model_copy(update={level: _median(found, level) for level in LEVELS})
    return base.model_copy(update=changed)


def _median(summaries: Sequence[Summary], level: str) -> float | None:
    """``None`` if half of them cannot say."""
    values = [value for each in summaries if (value := getattr(each, level)) is not None]
    return float(np.median(values)) if 2 * len(values) > len(summaries) else None
