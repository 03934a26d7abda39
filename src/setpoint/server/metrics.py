"""Prometheus metrics of one server: what became of its requests, and the engine's own counters read at scrape time.

Names are vLLM's where the meaning is the same, with the prefix ``setpoint_``. One registry an app, nothing global. What
tokens cost is counted in ``live_book.py`` without a lock, for both the metrics and the dashboard, and put together here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Final

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from setpoint.engine.request import EngineFailed, FinishReason
from setpoint.engine.service import EngineGauges, EngineService, SpeculationTotals
from setpoint.server.live.account import FINISHED
from setpoint.server.live.book import BUCKETS_S, TOKEN_BUCKETS_S, WAIT_BUCKETS_S, Ending
from setpoint.server.live.checks import E2E, ITL, QUEUE_WAIT, TPOT, TTFT
from setpoint.server.live.histogram import DurationCounts, percentile_s
from setpoint.server.live.view import WINDOW_S, LiveView
from setpoint.server.live.window import CheckState, Span

# (name, help, which gauge): numbers that go up and down.
_GAUGES: Final = (
    ("num_requests_running", "Requests in the running batch.", "running"),
    ("num_requests_waiting", "Requests waiting to be scheduled.", "waiting"),
    ("kv_cache_blocks", "Blocks of the KV cache.", "kv_blocks"),
    ("kv_cache_used_blocks", "Blocks of the KV cache in use.", "kv_used_blocks"),
)
# (name, help, which gauge): totals since the engine started.
_COUNTERS: Final = (
    ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", "prefix_queries_total"),
    ("prefix_cache_hits", "Prompt tokens found in the prefix cache.", "prefix_hits_total"),
    ("num_preemptions", "Requests whose KV blocks were taken back.", "preemptions_total"),
    ("prompt_tokens", "Prompt tokens processed.", "prompt_tokens_total"),
    ("generation_tokens", "Tokens generated.", "output_tokens_total"),
    ("requests_rejected", "Requests refused at admission.", "rejected_total"),
    ("requests_shed", "Waiting requests ended because they could not meet their deadline.", "shed_total"),
    ("engine_steps", "Steps of the engine.", "steps_total"),
    ("engine_restarts", "Times the engine was built again after a failure.", "restarts_total"),
    ("engine_stalls", "Steps that were given up because they did not end.", "stalls_total"),
    ("engine_step_seconds", "Seconds spent in steps of the engine.", "step_seconds_total"),
)
# (name, help, which latency): seconds from the arrival of the request's last byte.
_LATENCIES: Final = (
    ("time_to_first_token_seconds", "Arrival to first token.", TTFT),
    ("inter_token_latency_seconds", "Gap between consecutive tokens of a request.", ITL),
    ("request_time_per_output_token_seconds", "Mean gap of a request's tokens.", TPOT),
    ("e2e_request_latency_seconds", "Arrival to last token.", E2E),
    ("request_queue_time_seconds", "Arrival at the engine to first scheduled step.", QUEUE_WAIT),
)
# (name, help, which field of the totals): vLLM's names first.
_DRAFTS: Final = (
    ("spec_decode_num_drafts", "Drafts that were verified.", "drafts"),
    ("spec_decode_num_draft_tokens", "Tokens of drafts that were verified.", "draft_tokens"),
    ("spec_decode_num_accepted_tokens", "Tokens of drafts that were accepted.", "accepted_tokens"),
    ("spec_decode_draft_seconds", "Seconds spent making drafts.", "draft_seconds"),
    ("spec_decode_verify_seconds", "Seconds of steps that verified drafts.", "verify_seconds"),
)
_JUDGED: Final = (TTFT, ITL, TPOT, E2E)
_PERCENTILES: Final = (50.0, 95.0, 99.0)


def _gauge(name: str, words: str, labels: Mapping[str, str], value: float) -> Metric:
    return _gauges(name, words, [(labels, value)])


def _gauges(name: str, words: str, rows: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    """Samples of one name; their labels have the same names."""
    rows = list(rows)
    family = GaugeMetricFamily(f"setpoint_{name}", words, labels=list(rows[0][0]) if rows else [])
    for labels, value in rows:
        family.add_metric(list(labels.values()), value)
    return family


def _counters(name: str, words: str, rows: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    rows = list(rows)
    family = CounterMetricFamily(f"setpoint_{name}", words, labels=list(rows[0][0]) if rows else [])
    for labels, value in rows:
        family.add_metric(list(labels.values()), value)
    return family


def _histogram(name: str, words: str, model: str, buckets_s: Sequence[float], *counts: DurationCounts) -> Metric:
    """One histogram of the durations in all ``counts``, whose bins ``buckets_s`` bound."""
    parts = [each.totals(buckets_s) for each in counts]
    ends = [sum(column) for column in zip(*(below for below, _, _ in parts), strict=True)]
    total = sum(number for _, number, _ in parts)
    buckets = [(repr(float(bound)), end) for bound, end in zip(buckets_s, ends, strict=True)] + [("+Inf", total)]
    family = HistogramMetricFamily(f"setpoint_{name}", words, labels=["model_name"])
    family.add_metric([model], buckets, sum(seconds for _, _, seconds in parts))
    return family


class EngineCollector(Collector):
    """The engine's gauges as metrics; when the engine has failed, only ``setpoint_engine_up 0``."""

    def __init__(self, engine: EngineService, model: str) -> None:
        self._engine = engine
        self._model = {"model_name": model}

    def collect(self) -> Iterable[Metric]:
        """One snapshot of the engine."""
        try:
            gauges = self._engine.gauges()
        except EngineFailed:
            yield _gauge("engine_up", "1 while the engine runs.", self._model, 0.0)
            return
        yield _gauge("engine_up", "1 while the engine runs.", self._model, 1.0)
        yield _gauge("kv_cache_usage_perc", "KV blocks in use, 1 means 100 percent.", self._model, kv_usage(gauges))
        for name, words, field in _GAUGES:
            yield _gauge(name, words, self._model, float(getattr(gauges, field)))
        for name, words, field in _COUNTERS:
            yield _counters(name, words, [(self._model, float(getattr(gauges, field)))])
        yield _counters(
            "admission_decisions",
            "Decisions of the policy on new requests, by its reason.",
            [
                ({**self._model, "decision": decision, "reason": code}, float(count))
                for (decision, code), count in gauges.admissions.items()
            ],
        )
        yield _gauge(
            "step_time_model_info",
            "1, labelled with where the coefficients of the step-time model come from.",
            {**self._model, "source": gauges.prediction_source or "none"},
            1.0,
        )
        yield from self._speculation(gauges.speculation)
        error = gauges.prediction_error
        if error is not None:
            rows = [({**self._model, "statistic": "p50"}, error.median), ({**self._model, "statistic": "p95"}, error.p95)]
            yield _gauges("step_time_prediction_error", "Relative error of predicted step times, newest 512 steps.", rows)

    def _speculation(self, totals: SpeculationTotals | None) -> Iterable[Metric]:
        if totals is None:
            return
        for name, words, field in _DRAFTS:
            yield _counters(name, words, [(self._model, float(getattr(totals, field)))])
        yield _counters(
            "spec_decode_num_accepted_tokens_per_pos",
            "Tokens of drafts that were accepted, by position in the draft from 0.",
            [({**self._model, "position": str(i)}, float(count)) for i, count in enumerate(totals.accepted_per_position)],
        )


def kv_usage(gauges: EngineGauges) -> float:
    """Used blocks / blocks."""
    return gauges.kv_used_blocks / gauges.kv_blocks if gauges.kv_blocks else 0.0


class LiveCollector(Collector):
    """The accounts of the live view: totals since the start, and the newest minute as gauges."""

    def __init__(self, view: LiveView, model: str) -> None:
        self._view = view
        self._model = {"model_name": model}

    def collect(self) -> Iterable[Metric]:
        """Everything that became of requests."""
        yield from self._totals()
        yield from self._durations()
        yield from self._window()

    def _totals(self) -> Iterable[Metric]:
        book, model = self._view.book, self._model
        yield _counters("requests_offered", "Requests that asked for an answer and were not wrong.", [(model, book.offered)])
        yield _counters("requests_invalid", "Requests refused because they were wrong.", [(model, book.invalid)])
        yield _counters(
            "requests_ended",
            "Offered requests by how they ended: ok met every limit of its own, late missed one.",
            [({**model, "class": str(ending)}, count) for ending, count in book.ended.items()],
        )
        yield _gauge("requests_unfinished", "Offered requests that have not ended.", model, book.unfinished)
        judged = [(metric, book.latencies[metric]) for metric in _JUDGED]
        yield _counters(
            "slo_judged",
            "Values held against their request's own limit; of itl every gap.",
            [({**model, "check": metric}, each.judged_total) for metric, each in judged],
        )
        yield _counters(
            "slo_met",
            "Values that were within their request's own limit.",
            [({**model, "check": metric}, each.met_total) for metric, each in judged],
        )
        yield _counters(
            "shed_requests",
            "Requests answered with 429 or 503, by reason.",
            [({**model, "reason": code}, count) for code, count in book.shed_reasons.items()],
        )

    def _durations(self) -> Iterable[Metric]:
        book, model = self._view.book, self._model["model_name"]
        for name, words, metric in _LATENCIES:
            latency = book.latencies[metric]
            yield _histogram(name, words, model, BUCKETS_S[metric], latency.judged, latency.free)
        yield _histogram("engine_step_duration_seconds", "Seconds of an engine step.", model, TOKEN_BUCKETS_S, book.step)
        words = "Seconds after which a request that was shed was told to come back."
        yield _histogram("retry_after_seconds", words, model, WAIT_BUCKETS_S, book.retry_after)

    def _window(self) -> Iterable[Metric]:
        view, model = self._view, self._model
        span = view.window()
        yield _gauge("window_seconds", f"Seconds that window_ metrics cover, at most {WINDOW_S:.0f}.", model, span.length_s)
        good, rate = span.share(Ending.OK, *Ending), span.rate(Ending.OK)
        yield _gauge("window_goodput_fraction", "Share of requests ended that were ok.", model, nan if good is None else good)
        yield _gauge("window_goodput_rps", "Requests a second that were ok.", model, rate or 0.0)
        yield _gauge("window_offered_rps", "Requests offered a second.", model, span.rate("offered") or 0.0)
        yield _gauge("window_kv_cache_usage_peak", "Most of the KV cache in use at the end of a step.", model, view.kv_peak)
        yield _gauges(
            "window_requests_ended",
            "Requests ended, by class.",
            [({**model, "class": str(each)}, span.count(each)) for each in Ending],
        )
        yield _gauges(
            "window_slo_attainment",
            "Share of values within their request's own limit; NaN where none was judged.",
            [({**model, "check": metric}, _or_nan(span.share(f"met_{metric}", f"judged_{metric}"))) for metric in _JUDGED],
        )
        yield _gauges(
            "window_latency_seconds",
            "Percentiles over the window, NaN where there is no value.",
            [
                ({**model, "quantity": metric, "quantile": f"{percent / 100:g}"}, self._percentile(span, metric, percent))
                for metric in BUCKETS_S
                for percent in _PERCENTILES
            ],
        )
        checks = view.checks()
        if checks:
            rows = [({**model, "check": _check_name(each)}, nan if each.held is None else float(each.held)) for each in checks]
            yield _gauges("window_requirement_held", "1 where the requirement's limit is held, 0 where not.", rows)

    def _percentile(self, span: Span, metric: str, percent: float) -> float:
        bins = span.every.get(metric)
        return nan if bins is None else _or_nan(percentile_s(bins, self._view.book.latencies[metric].bounds_s, percent))


def _check_name(check: CheckState) -> str:
    return f"{check.metric}_{check.statistic}"


def _or_nan(value: float | None) -> float:
    return nan if value is None else value


class ServerMetrics:
    """The registry of one server. Times are seconds from the arrival of the request's last byte."""

    def __init__(self, engine: EngineService, model: str, view: LiveView) -> None:
        self.registry = CollectorRegistry()
        self._engine = engine
        self._view = view
        self._next_ended = 0
        ended = Counter(
            "setpoint_request_success",
            "Answers given to their end, by finish reason.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self._ended = {reason: ended.labels(model, reason.value) for reason in FINISHED}
        cut = Counter(
            "setpoint_request_cut",
            "Answers that ended before they were whole, by reason; cancelled: the client left or the server drained.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        others = [reason for reason in FinishReason if reason not in self._ended]
        self._ended |= {reason: cut.labels(model, reason.value) for reason in others}
        self.responses = Counter(
            "setpoint_http_responses", "HTTP responses by path and status.", ["path", "status"], registry=self.registry
        )
        self.registry.register(EngineCollector(engine, model))
        self.registry.register(LiveCollector(view, model))

    def ended(self, reason: FinishReason) -> None:
        """Count an answer that the engine had begun with by how it ended."""
        self._ended[reason].inc()

    def tick(self, now_s: float) -> None:
        """Once a second: take in the queue times known since, and let the live view close its slice."""
        self.pull_ended()
        self._view.tick(now_s)

    def pull_ended(self) -> None:
        """Observe the queue time of every request that the engine has ended since the last call."""
        try:
            stats, self._next_ended = self._engine.ended_requests(self._next_ended)
        except EngineFailed:
            return
        queue_wait = self._view.book.latencies[QUEUE_WAIT].free
        for one in stats:
            if one.first_scheduled_s is not None:
                queue_wait.observe(max(0.0, one.first_scheduled_s - one.arrived_s))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self.pull_ended()
        return generate_latest(self.registry)
