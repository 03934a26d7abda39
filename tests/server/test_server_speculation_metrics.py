"""Counters of speculation at scrape time, under vLLM's names."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from prometheus_client import CollectorRegistry, generate_latest
from scripted_engine import ScriptedEngine

from setpoint.engine.service import EngineGauges, EngineService, SpeculationTotals
from setpoint.server.metrics import EngineCollector

TOTALS = SpeculationTotals(7, 30, 12, (6, 4, 2), 0.25, 1.5)


class Guessing:
    """An engine of which only the gauges are asked."""

    def __init__(self, totals: SpeculationTotals | None) -> None:
        self._totals = totals

    def gauges(self) -> EngineGauges:
        return replace(ScriptedEngine().gauges(), speculation=self._totals)


def page(totals: SpeculationTotals | None) -> list[str]:
    registry = CollectorRegistry()
    registry.register(EngineCollector(cast(EngineService, Guessing(totals)), "m"))
    return generate_latest(registry).decode().splitlines()


def test_drafts_have_the_names_that_dashboards_know() -> None:
    lines = page(TOTALS)
    name = "setpoint_spec_decode_num"
    assert f'{name}_drafts_total{{model_name="m"}} 7.0' in lines
    assert f'{name}_draft_tokens_total{{model_name="m"}} 30.0' in lines
    assert f'{name}_accepted_tokens_total{{model_name="m"}} 12.0' in lines
    for position, count in enumerate(TOTALS.accepted_per_position):
        assert f'{name}_accepted_tokens_per_pos_total{{model_name="m",position="{position}"}} {float(count)}' in lines
    assert 'setpoint_spec_decode_draft_seconds_total{model_name="m"} 0.25' in lines


def test_without_speculation_there_is_no_such_metric() -> None:
    assert not any("spec_decode" in line for line in page(None))
