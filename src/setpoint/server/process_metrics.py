"""The server's process in its own metrics: connections, open files, memory, tasks. What leaks shows here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from setpoint.server.connection import Guard


class ProcessMetrics(Collector):
    """``process_*`` as Prometheus clients name them, and ``setpoint_*`` for what only this server has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._guard: Guard | None = None
        self.cut = Counter(
            "setpoint_http_connections_cut",
            "Connections refused or cut by the server, by reason.",
            ["reason"],
            registry=registry,
        )
        ProcessCollector(registry=registry)
        registry.register(self)

    def watched(self, guard: Guard) -> Guard:
        """``guard``, whose connections are counted from here on."""
        self._guard = guard
        return guard

    def collect(self) -> Iterable[Metric]:
        """The numbers now; tasks are those of the event loop that asks."""
        guard = self._guard
        connections, body_bytes = (0, 0) if guard is None else (len(guard.connections), guard.bodies.held_bytes)
        yield GaugeMetricFamily("setpoint_http_connections", "Open HTTP connections.", value=connections)
        words = "Bytes of request bodies that have arrived and are not parsed."
        yield GaugeMetricFamily("setpoint_http_body_bytes", words, value=body_bytes)
        yield GaugeMetricFamily("setpoint_threads", "Threads that Python knows of.", value=threading.active_count())
        try:
            tasks = len(asyncio.all_tasks())
        except RuntimeError:  # no event loop asks
            return
        yield GaugeMetricFamily("setpoint_event_loop_tasks", "Tasks of the server's event loop.", value=tasks)
