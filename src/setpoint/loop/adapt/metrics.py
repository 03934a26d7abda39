"""The loop in ``/metrics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from setpoint.loop.adapt.effect import Verdict
from setpoint.policy.configuration import ServingConfig


@dataclass(slots=True)
class Counts:
    """Totals since the start; the label sets are those of ``watching.TESTS``, ``Cause`` and ``Verdict``."""

    drifts: Counter[str] = field(default_factory=Counter)
    plans: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    plan_cpu_s: float = 0.0


class AdaptMetrics(Collector):
    """``config`` is what is served now."""

    def __init__(self, config: ServingConfig, *, dry_run: bool) -> None:
        self.counts = Counts()
        self.config = config
        self._dry_run = dry_run

    def collect(self) -> Iterable[Metric]:
        """One snapshot."""
        counts, config = self.counts, self.config
        yield _counter("setpoint_adapt_drifts", "Drifts found, by quantity.", "quantity", counts.drifts)
        yield _counter("setpoint_adapt_plans", "Plans made, by cause.", "cause", counts.plans)
        yield _counter("setpoint_adapt_effects", "Changes whose effect was measured, by verdict.", "verdict", counts.effects)
        rolled_back = sum(counts.effects[each] for each in Verdict if each.rolls_back)
        yield CounterMetricFamily("setpoint_adapt_changes", "Changes of the configuration.", value=counts.changes)
        yield CounterMetricFamily("setpoint_adapt_rollbacks", "Changes taken back.", value=rolled_back)
        yield CounterMetricFamily("setpoint_adapt_plan_cpu_seconds", "CPU time of plans.", value=counts.plan_cpu_s)
        yield GaugeMetricFamily("setpoint_adapt_dry_run", "1 if nothing is applied.", value=float(self._dry_run))
        family = GaugeMetricFamily("setpoint_config_info", "1, labelled with the mode that serves.", labels=["mode"])
        family.add_metric([config.mode.value], 1.0)
        yield family
        yield GaugeMetricFamily("setpoint_config_max_running", "Most requests in a step.", value=config.max_running)
        yield GaugeMetricFamily("setpoint_config_token_budget", "Most new tokens in a step.", value=config.token_budget)


def _counter(name: str, words: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, words, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
