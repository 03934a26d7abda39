"""What lives beside a server: started after the engine, stopped before it, asked at its path, counted in the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from scripted_engine import ScriptedEngine
from serving import CHAT, serving

from setpoint.server.context import ServerContext
from setpoint.server.live.book import OUTCOMES_KEPT, Ending


class Beside(Collector):
    """Remembers what was done to it."""

    path = "/setpoint/beside"

    def __init__(self) -> None:
        self.life: list[str] = []
        self.context: ServerContext | None = None

    @property
    def metrics(self) -> Collector:
        return self

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("setpoint_beside", "For the test.", value=7)

    async def start(self, context: ServerContext) -> None:
        self.context = context
        self.life.append(f"start {context.health().value}")

    async def stop(self) -> None:
        self.life.append("stop")

    def state(self) -> Mapping[str, object]:
        return {"life": list(self.life)}


def test_it_lives_as_long_as_the_server_and_tells_about_itself() -> None:
    beside = Beside()
    with serving(companion=beside) as served:
        assert served.ask("GET", beside.path).json == {"life": ["start ok"]}
        assert b"setpoint_beside 7.0" in served.ask("GET", "/metrics").raw
    assert beside.life == ["start ok", "stop"]


def test_its_path_needs_the_key_of_all_others_and_is_not_there_without_it() -> None:
    with serving(companion=Beside(), api_keys=["k"]) as served:
        assert served.ask("GET", Beside.path).status == 401
    with serving() as served:
        assert served.ask("GET", Beside.path).status == 404


def test_it_can_read_when_requests_came_and_how_they_ended() -> None:
    beside = Beside()
    with serving(ScriptedEngine(), companion=beside) as served:
        for _ in range(3):
            assert served.ask("POST", "/v1/chat/completions", {**CHAT, "max_tokens": 2}).status == 200
        assert beside.context is not None
        outcomes = list(beside.context.live.book.outcomes)
    assert [ending for _, ending in outcomes] == [Ending.OK] * 3
    assert [arrived_s for arrived_s, _ in outcomes] == sorted(arrived_s for arrived_s, _ in outcomes)
    assert beside.context.live.book.outcomes.maxlen == OUTCOMES_KEPT
