"""The server's own account of a run on the run's time axis, and the figures of a phase that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from setpoint.measure.power import PowerSide
from setpoint.measure.series import Series
from setpoint.measure.server_kinds import COUNTERS
from setpoint.measure.setpoint_records import ServerRequest
from setpoint.record import Phase, PhaseMeasures, Summary

if TYPE_CHECKING:
    import pyarrow as pa


class PhaseSummary(TypedDict):
    """What the server said of one phase; ``None`` where it says nothing of it.

    Gauges (running, waiting, KV) are as seen at the scrapes, so a peak between two of them is missed. Counters are what
    they rose within the phase. Waits are means of what the server's histogram took in; power is of the GPUs alone.
    """

    scrapes: int
    running_mean: float | None
    running_peak: float | None
    waiting_mean: float | None
    waiting_peak: float | None
    kv_usage_mean: float | None
    kv_usage_peak: float | None
    kv_tokens_peak: float | None
    requests_ended: float | None
    rejected: float | None
    shed: float | None
    preemptions: float | None
    prompt_tokens: float | None
    output_tokens: float | None
    prefix_hit_rate: float | None
    acceptance_length: float | None
    draft_acceptance_rate: float | None
    queue_wait_mean_s: float | None
    queue_waits: float | None
    power_mean_w: float | None
    power_peak_w: float | None
    energy_j: float | None
    joules_per_output_token: float | None


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """Those of a phase's measures (``record.PhaseMeasures``) that the server's pages can tell; ``None`` if they do not.

    queue_wait_s has a mean and a count only: the buckets of servers' histograms are too wide for percentiles.
    """

    kv_usage_peak: float | None
    preemptions: int | None
    acceptance_length: float | None
    prefix_hit_rate: float | None
    queue_wait_s: Summary | None


@dataclass(slots=True)
class ServerSide:
    """The server's own account, on the run's time axis (seconds from its start).

    kind: whose pages they are, such as ``vllm`` or ``dynamo (vllm)``; ``None`` if none was understood.
    metrics_times_s, metrics: one entry a scrape, by the names of ``server_kinds``; ``None`` where a page lacked it.
    Counters are as scraped. scrape_s_max: the slowest page; half of it bounds the error of the times.
    requests: by ``x-request-id``. steps, decisions: as ``record.columns.STEP_COLUMNS`` and
    ``record.columns.DECISION_COLUMNS``, ``candidate`` null.
    clock_error_s: half the best round trip of a record page, the bound of the error of the steps' times.
    restarts_s: when a counter was found to have begun again. notes: what could not be read.
    """

    kind: str | None = None
    metrics_times_s: list[float] = field(default_factory=list)
    metrics: dict[str, list[float | None]] = field(default_factory=dict)
    scrape_s_max: float | None = None
    requests: dict[str, ServerRequest] = field(default_factory=dict)
    steps: pa.Table | None = None
    decisions: pa.Table | None = None
    clock_error_s: float | None = None
    power: PowerSide | None = None
    restarts_s: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self, name: str) -> Series:
        """One quantity over time; empty if it was never told."""
        return Series.of(self.metrics_times_s, self.metrics.get(name, ()))

    def peak(self, name: str, start_s: float, end_s: float) -> float | None:
        """The largest scraped value of a gauge between two times; ``None`` if there is none."""
        return self.series(name).peak(start_s, end_s)

    def mean(self, name: str, start_s: float, end_s: float) -> float | None:
        """The mean over time of a gauge between two times; ``None`` if there is none."""
        return self.series(name).mean(start_s, end_s)

    def rise(self, name: str, start_s: float, end_s: float) -> float | None:
        """How much a counter rose between two times (``Series.rise``); ``None`` if that cannot be told."""
        return self.series(name).rise(start_s, end_s)

    def phase_summary(self, start_s: float, end_s: float) -> PhaseSummary:
        """Everything the server said of one phase."""
        window = (start_s, end_s)
        drafted, accepted = self.rise("draft_tokens", *window), self.rise("accepted_tokens", *window)
        waits, waited_s = self.rise("queue_waits", *window), self.rise("queue_wait_sum_s", *window)
        output_tokens = self.rise("output_tokens", *window)
        power: dict[str, float | None] = self.power.phase(*window) if self.power is not None else {}
        energy_j = power.get("energy_j")
        return PhaseSummary(
            scrapes=len(self._scrapes(*window)),
            running_mean=self.mean("running", *window),
            running_peak=self.peak("running", *window),
            waiting_mean=self.mean("waiting", *window),
            waiting_peak=self.peak("waiting", *window),
            kv_usage_mean=self.mean("kv_usage", *window),
            kv_usage_peak=self.peak("kv_usage", *window),
            kv_tokens_peak=self.peak("kv_tokens", *window),
            requests_ended=self.rise("requests_ended", *window),
            rejected=self.rise("rejected", *window),
            shed=self.rise("shed", *window),
            preemptions=self.rise("preemptions", *window),
            prompt_tokens=self.rise("prompt_tokens", *window),
            output_tokens=output_tokens,
            prefix_hit_rate=self.prefix_hit_rate(*window),
            acceptance_length=self.acceptance_length(*window),
            draft_acceptance_rate=_ratio(accepted, drafted),
            queue_wait_mean_s=_ratio(waited_s, waits),
            queue_waits=waits,
            power_mean_w=power.get("power_mean_w"),
            power_peak_w=power.get("power_peak_w"),
            energy_j=energy_j,
            joules_per_output_token=_ratio(energy_j, output_tokens),
        )

    def prefix_hit_rate(self, start_s: float, end_s: float) -> float | None:
        """Prompt tokens served from cache / prompt tokens.

        From tokens counted once a request where the server has them. Otherwise from the cache's hits / queries, which
        some servers count again for every step a request waits.
        """
        rate = _ratio(self.rise("cached_prompt_tokens", start_s, end_s), self.rise("prompt_tokens", start_s, end_s))
        if rate is None:
            rate = _ratio(self.rise("prefix_hits", start_s, end_s), self.rise("prefix_queries", start_s, end_s))
        return None if rate is None else min(1.0, rate)

    def acceptance_length(self, start_s: float, end_s: float) -> float | None:
        """Tokens emitted per verify step, bonus included: accepted / drafts + 1, or the server's own mean of that."""
        accepted_per_draft = _ratio(self.rise("accepted_tokens", start_s, end_s), self.rise("drafts", start_s, end_s))
        if accepted_per_draft is not None:
            return accepted_per_draft + 1.0
        told = self.series("acceptance_length").within(start_s, end_s).values
        return float(told[told > 0].mean()) if (told > 0).any() else None

    def report(self, phases: Iterable[tuple[Phase, float, float]]) -> dict[str, Any]:
        """As an entry of ``report.json``: kind, how it was read, and ``phase_summary`` by phase."""
        return {
            "kind": self.kind,
            "scrapes": len(self.metrics_times_s),
            "scrape_s_max": self.scrape_s_max,
            "power_exporter": self.power.exporter if self.power is not None else None,
            "gpus": self.power.gpus if self.power is not None else None,
            "restarts_s": self.restarts_s,
            "notes": self.notes,
            "phases": {str(phase): self.phase_summary(start_s, end_s) for phase, start_s, end_s in phases},
        }

    def table(self, candidate: str) -> pa.Table:
        """Everything that was read, as ``record.columns.SERVER_COLUMNS``, in order of time within each name."""
        import pyarrow as pa

        from setpoint.record.columns import SERVER_COLUMNS

        names, times_s, values = [], [], []
        for name, series in self._all_series():
            names += [name] * len(series.values)
            times_s += series.times_s.tolist()
            values += series.values.tolist()
        columns = {"candidate": [candidate] * len(names), "time_s": times_s, "name": names, "value": values}
        return pa.table(columns, schema=SERVER_COLUMNS)

    def _all_series(self) -> Iterator[tuple[str, Series]]:
        for name in self.metrics:
            yield name, self.series(name)
        if self.power is not None:
            yield "power_w", Series.of(self.power.times_s, self.power.watts)

    def _scrapes(self, start_s: float, end_s: float) -> list[float]:
        return [time_s for time_s in self.metrics_times_s if start_s <= time_s < end_s]

    def note_restarts(self) -> None:
        """Fill ``restarts_s`` from counters that fell."""
        falls = {time_s for name in COUNTERS for time_s in self.series(name).falls_s()}
        self.restarts_s = sorted(falls)
        self.notes += [
            f"a counter fell at {time_s:.1f} s: the server was restarted, and what it counted around then is a lower bound"
            for time_s in self.restarts_s
        ]


def server_figures(side: ServerSide, start_s: float, end_s: float) -> ServerFigures:
    """What the server's pages tell of the measures of a phase."""
    summary = side.phase_summary(start_s, end_s)
    preemptions, waits, wait_s = summary["preemptions"], summary["queue_waits"], summary["queue_wait_mean_s"]
    return ServerFigures(
        kv_usage_peak=summary["kv_usage_peak"],
        preemptions=None if preemptions is None else round(preemptions),
        acceptance_length=summary["acceptance_length"],
        prefix_hit_rate=summary["prefix_hit_rate"],
        queue_wait_s=None if wait_s is None or waits is None else Summary(n=round(waits), mean=wait_s),
    )


def with_server_figures(measures: PhaseMeasures, figures: ServerFigures) -> PhaseMeasures:
    """``measures`` with what they leave open filled from the server's pages; what is known already stays."""
    told = {
        "kv_usage_peak": figures.kv_usage_peak,
        "preemptions": figures.preemptions,
        "acceptance_length": figures.acceptance_length,
        "prefix_hit_rate": figures.prefix_hit_rate,
        "queue_wait_s": figures.queue_wait_s,
    }
    return measures.model_copy(update={name: value for name, value in told.items() if getattr(measures, name) is None})


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
