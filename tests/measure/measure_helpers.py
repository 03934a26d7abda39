"""What the tests of the load generator share: small plans, and one run against the mock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mock_server import MockServer, mock_server

from setpoint.measure.client import OnProgress, run_load
from setpoint.measure.event_loop import run
from setpoint.measure.options import LoadOptions
from setpoint.measure.result import LoadResult
from setpoint.measure.target import Target
from setpoint.record import Phase
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest


def even_plan(count: int, gap_s: float = 0.01, prompt: str | tuple[int, ...] = "a b c", end_s: float = 0.0) -> LoadPlan:
    """``count`` requests ``gap_s`` apart in one sustained phase, which ends at ``end_s`` or with them."""
    requests = [PlannedRequest(index, index * gap_s, Phase.SUSTAINED, prompt, 7, 6) for index in range(count)]
    span = PhaseSpan(Phase.SUSTAINED, 0.0, max(end_s, count * gap_s))
    return LoadPlan(seed=0, phases=[span], requests=requests, prompt_tokens_exact=True)


def run_against_mock(
    plan: LoadPlan,
    behaviour: str | list[str] | dict[str, list[str]] = "plain",
    *,
    prepare: Callable[[MockServer], object] | None = None,
    on_progress: OnProgress | None = None,
    model: str = "mock-model",
    **options: Any,
) -> tuple[LoadResult, MockServer]:
    """Run a plan against a fresh mock; ``options`` are those of ``LoadOptions``."""

    async def main() -> tuple[LoadResult, MockServer]:
        async with mock_server() as mock:
            if prepare is not None:
                prepare(mock)
            extra_body = {"mock": behaviour} | options.pop("extra_body", {})
            settings = LoadOptions(**({"drain_s": 20.0} | options), extra_body=extra_body)
            return await run_load(Target(mock.url, model, api_key=mock.api_key), plan, settings, on_progress), mock

    return run(main())
