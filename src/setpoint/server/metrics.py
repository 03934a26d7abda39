"""Prometheus metrics of one server: what its clients saw, and the engine's own counters read at scrape time.

Names are vLLM's where the meaning is the same, with the prefix ``setpoint_``. One registry an app, nothing global.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from setpoint.engine.request import EngineFailed, FinishReason
from setpoint.engine.service import EngineGauges, EngineService

# Seconds. Token gaps are resolved from 1 ms, whole requests up to ten minutes.
TOKEN_BUCKETS_S: Final = tuple(
    ms / 1000 for ms in (1, 2.5, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000, 2500, 5000)
)
WAIT_BUCKETS_S: Final = tuple(
    ms / 1000 for ms in (1, 5, 10, 25, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000, 20000, 80000)
)
REQUEST_BUCKETS_S: Final = (
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    600.0,
)

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


class EngineCollector(Collector):
    """The engine's gauges as metrics; when the engine has failed, only ``setpoint_engine_up 0``."""

    def __init__(self, engine: EngineService, model: str) -> None:
        self._engine = engine
        self._model = model

    def collect(self) -> Iterable[Metric]:
        """One snapshot of the engine."""
        try:
            gauges = self._engine.gauges()
        except EngineFailed:
            yield self._gauge("engine_up", "1 while the engine runs.", 0.0)
            return
        yield self._gauge("engine_up", "1 while the engine runs.", 1.0)
        yield self._gauge("kv_cache_usage_perc", "KV blocks in use, 1 means 100 percent.", kv_usage(gauges))
        for name, words, field in _GAUGES:
            yield self._gauge(name, words, float(getattr(gauges, field)))
        for name, words, field in _COUNTERS:
            family = CounterMetricFamily(f"setpoint_{name}", words, labels=["model_name"])
            family.add_metric([self._model], float(getattr(gauges, field)))
            yield family

    def _gauge(self, name: str, words: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"setpoint_{name}", words, labels=["model_name"])
        family.add_metric([self._model], value)
        return family


def kv_usage(gauges: EngineGauges) -> float:
    """Used blocks / blocks."""
    return gauges.kv_used_blocks / gauges.kv_blocks if gauges.kv_blocks else 0.0


class ServerMetrics:
    """What this server's clients saw. Times are seconds from the arrival of the request's last byte."""

    def __init__(self, engine: EngineService, model: str) -> None:
        self.registry = CollectorRegistry()
        self._engine = engine
        self._next_ended = 0
        self.ttft_s = self._histogram("time_to_first_token_seconds", "Arrival to first token.", WAIT_BUCKETS_S, model)
        self.itl_s = self._histogram(
            "inter_token_latency_seconds", "Gap between consecutive tokens of a request.", TOKEN_BUCKETS_S, model
        )
        self.e2e_s = self._histogram("e2e_request_latency_seconds", "Arrival to last token.", REQUEST_BUCKETS_S, model)
        self.queue_s = self._histogram(
            "request_queue_time_seconds", "Arrival at the engine to first scheduled step.", WAIT_BUCKETS_S, model
        )
        ended = Counter(
            "setpoint_request_success",
            "Requests that were answered to their end, by finish reason.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self._ended = {reason: ended.labels(model, reason.value) for reason in (FinishReason.STOP, FinishReason.LENGTH)}
        cut = Counter(
            "setpoint_request_cut",
            "Requests that ended without a whole answer, by reason; cancelled: the client left or the server drained.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        others = [reason for reason in FinishReason if reason not in self._ended]
        self._ended |= {reason: cut.labels(model, reason.value) for reason in others}
        self.responses = Counter(
            "setpoint_http_responses", "HTTP responses by path and status.", ["path", "status"], registry=self.registry
        )
        self.registry.register(EngineCollector(engine, model))

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...], model: str) -> Histogram:
        family = Histogram(f"setpoint_{name}", words, ["model_name"], buckets=buckets, registry=self.registry)
        return family.labels(model)

    def ended(self, reason: FinishReason) -> None:
        """Count a request that got into the engine by how it ended, and take in the queue times known since."""
        self._ended[reason].inc()
        self.pull_ended()

    def pull_ended(self) -> None:
        """Observe the queue time of every request that the engine has ended since the last call."""
        try:
            stats, self._next_ended = self._engine.ended_requests(self._next_ended)
        except EngineFailed:
            return
        for one in stats:
            if one.first_scheduled_s is not None:
                self.queue_s.observe(max(0.0, one.first_scheduled_s - one.arrived_s))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self.pull_ended()
        return generate_latest(self.registry)


class AnswerClock:
    """Times one answer as it leaves the server. ``now_s`` is any monotonic clock, the same in all calls."""

    __slots__ = ("_arrived_s", "_last_s", "_metrics")

    def __init__(self, metrics: ServerMetrics, arrived_s: float) -> None:
        self._metrics = metrics
        self._arrived_s = arrived_s
        self._last_s: float | None = None

    def tokens(self, count: int, now_s: float) -> None:
        """``count`` tokens left together: one gap, and ``count - 1`` gaps of zero."""
        if count == 0:
            return
        if self._last_s is None:
            self._metrics.ttft_s.observe(now_s - self._arrived_s)
        else:
            self._metrics.itl_s.observe(now_s - self._last_s)
        for _ in range(count - 1):
            self._metrics.itl_s.observe(0.0)
        self._last_s = now_s

    def finished(self, now_s: float) -> None:
        """The last token left."""
        self._metrics.e2e_s.observe(now_s - self._arrived_s)
