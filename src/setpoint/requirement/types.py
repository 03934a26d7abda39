"""The requirement as a whole: model, request profile, SLOs, objective, price."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field

from setpoint.requirement.part import Fault, Part
from setpoint.requirement.profile import RequestProfile
from setpoint.requirement.slos import GAP_METRICS, TOKEN_METRICS, Slos
from setpoint.requirement.speculation import Speculation
from setpoint.requirement.wishes import PlanWishes


class Objective(StrEnum):
    """What to prefer among configurations that meet every SLO."""

    MIN_COST = "min_cost"
    MAX_GOODPUT = "max_goodput"
    MAX_THROUGHPUT = "max_throughput"
    MIN_LATENCY = "min_latency"


class ModelSource(Part):
    """Which model: ``smollm2-135m`` (the demo model), a GGUF file, an OpenVINO IR folder or a Hugging Face repo."""

    source: str = Field(default="smollm2-135m", min_length=1)
    revision: str | None = Field(default=None, min_length=1)
    served_name: str | None = Field(default=None, min_length=1)


class Price(Part):
    """What the hardware costs."""

    usd_per_hour: float = Field(gt=0, le=1e6)


class Requirement(Part):
    """What the application needs. ``slo_burst`` limits the burst phase, ``slo`` the sustained phase.

    ``plan``: what ``setpoint plan`` may choose from; ``speculation``: which drafters may be tried; everything else is there for
    whoever serves or measures as well.
    """

    name: str = Field(min_length=1, max_length=100)
    description: str = ""
    model: ModelSource = ModelSource()
    profile: RequestProfile
    slo: Slos = Slos()
    slo_burst: Slos = Slos()
    objective: Objective = Objective.MAX_GOODPUT
    price: Price | None = None
    plan: PlanWishes | None = None
    speculation: Speculation | None = None

    def faults(self) -> Iterator[Fault]:
        """Limits must be about something this profile has: tokens that stream, gaps between tokens, a burst."""
        if self.slo_burst.declared() and self.profile.burst is None:
            yield Fault(("slo_burst",), "no slo_burst without a burst; declare profile.burst or remove slo_burst")
        for section, slos in (("slo", self.slo), ("slo_burst", self.slo_burst)):
            for metric, path in slos.metric_paths():
                if metric in TOKEN_METRICS and not self.profile.streaming:
                    yield Fault(
                        (section, *path),
                        "e2e or queue_wait, because with profile.streaming: false nobody sees single tokens",
                    )
                elif metric in GAP_METRICS and self.profile.most_output_tokens == 1:
                    yield Fault((section, *path), "ttft, e2e or queue_wait, because an output of 1 token has no gaps")
