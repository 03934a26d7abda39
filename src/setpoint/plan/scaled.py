"""The figures of one replica as those of several that each see such a share of the load."""

from __future__ import annotations

from setpoint.record import PhaseMeasures, Predicted

COUNTS = ("offered", "ok", "late", "shed", "failed", "dropped", "unfinished", "preemptions")
RATES = ("goodput_rps", "output_tokens_per_s", "prompt_tokens_per_s")


def scaled(predicted: Predicted, replicas: int) -> Predicted:
    """The figures of ``replicas`` that each see such a share of the load: so many times the counts and rates."""

    def scale(figures: PhaseMeasures) -> PhaseMeasures:
        found = {name: getattr(figures, name) for name in (*COUNTS, *RATES)}
        return figures.model_copy(update={name: value * replicas for name, value in found.items() if value is not None})

    burst = None if predicted.burst is None else scale(predicted.burst)
    return predicted.model_copy(update={"sustained": scale(predicted.sustained), "burst": burst})
