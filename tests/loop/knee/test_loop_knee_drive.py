"""The search on a real server over HTTP: probes, report, chart, interruption."""

from __future__ import annotations

import asyncio
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree

import pytest
from knee_http import sharing_http

from setpoint.loop.errors import BadInput
from setpoint.loop.knee.drive import FindKnee, find_knee
from setpoint.loop.knee.run import KneeRun
from setpoint.measure.event_loop import run
from setpoint.measure.options import LoadOptions
from setpoint.measure.target import Target
from setpoint.record import Report, Verdict
from setpoint.record.columns import REQUEST_COLUMNS
from setpoint.report.charts.knee import knee_figure
from setpoint.requirement import Requirement
from setpoint.workload.prompts import EstimatedPrompts

sys.path.append(str(Path(__file__).resolve().parent.parent))

from loop_world import OnlyModels

TOKEN_S, TOKENS = 0.000_625, 8
CAPACITY_RPS = 1.0 / (TOKEN_S * TOKENS)


def requirement(limit_s: float | None, rate_rps: float = 90.0) -> Requirement:
    profile = {
        "prompt_tokens": {"kind": "constant", "value": 8},
        "output_tokens": {"kind": "constant", "value": TOKENS},
        "arrival": {"rate_rps": rate_rps},
        "burst": {"rate_rps": 10 * rate_rps, "duration_s": 5.0},
    }
    slo = {"latency": [{"metric": "e2e", "percentile": 90, "limit_s": limit_s}], "goodput_fraction_min": 0.8}
    return Requirement.model_validate({"name": "shared", "profile": profile, "slo": slo if limit_s else {}})


def options(**changes: object) -> FindKnee:
    few = {"probes_max": 4, "requests_max": 200, "drain_s": 10.0, "load": LoadOptions(), "make_prompt": EstimatedPrompts()}
    return FindKnee(**(few | changes))  # type: ignore[arg-type]


def search(needed: Requirement, **changes: object) -> tuple[KneeRun, list[str]]:
    said: list[str] = []
    with sharing_http(TOKEN_S) as server:
        found = run(find_knee(Target(server.url, "shared"), needed, options(**changes), say=said.append))
        assert server.served == found.requests.num_rows
    return found, said


def test_probes_of_a_real_server_become_a_knee_a_report_and_a_chart() -> None:
    found, said = search(requirement(limit_s=0.05))
    knee = found.knee
    assert knee.rate_rps is not None
    assert 0.3 * CAPACITY_RPS < knee.rate_rps < 1.1 * CAPACITY_RPS
    assert knee.interval_rps[0] < knee.rate_rps < knee.interval_rps[1]
    assert 2 <= len(found.probes) <= 4
    assert found.requests.schema.equals(REQUEST_COLUMNS)
    assert set(found.requests["phase"].to_pylist()) == {"warmup", "sustained"}
    assert all(probe.result.offered <= 200 for probe in found.probes)
    assert said[0].startswith("searching the knee: at most 4 probes")
    assert len(said) == 1 + len(found.probes)

    report = Report.model_validate_json(found.report({"cpu": "x"}).to_json())
    names = [candidate.name for candidate in report.candidates]
    assert names == [probe.name for probe in found.probes]
    assert names[0] == "probe-1@90.0rps"
    assert report.kind == "measure"
    assert report.knee is not None
    assert report.knee["rate_rps"] == pytest.approx(knee.rate_rps)
    met = [candidate for candidate in report.candidates if candidate.slo.verdict is Verdict.MET]
    assert (report.chosen in [candidate.name for candidate in met]) == bool(met)
    assert "knee" in report.why

    figure = knee_figure(report)
    assert figure is not None
    drawn = ElementTree.fromstring(figure.svg)
    assert len(drawn.findall(".//path[@class]")) >= 2 * len(names)
    assert "knee" in "".join(drawn.itertext())


def test_interrupted_it_tells_what_is_known() -> None:
    async def interrupted() -> KneeRun:
        task: asyncio.Task[KneeRun]

        def say(text: str) -> None:
            if text.startswith("probe-1"):
                asyncio.get_running_loop().call_soon(task.cancel)

        with sharing_http(TOKEN_S) as server:
            work = find_knee(Target(server.url, "shared"), requirement(limit_s=0.05), options(), say=say)
            task = asyncio.create_task(work)
            return await task

    found = run(interrupted())
    assert found.interrupted
    assert len(found.probes) == 1
    report = found.report({})
    assert "interrupted" in report.why
    assert report.validity.valid == found.probes[0].measured.validity.valid


def test_a_requirement_without_a_limit_has_no_knee() -> None:
    with pytest.raises(BadInput, match="no limit to hold"):
        run(find_knee(Target("http://127.0.0.1:9", "m"), requirement(limit_s=None), options()))


def test_a_report_of_no_search_has_no_chart() -> None:
    fields: dict[str, Any] = {
        "kind": "measure",
        "requirement": None,
        "machine": {},
        "candidates": [],
        "chosen": None,
        "why": "",
    }
    assert knee_figure(Report.model_validate(fields | {"validity": {"valid": True}})) is None


def test_a_server_that_serves_nobody_has_no_knee() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), OnlyModels) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        target = Target(f"http://127.0.0.1:{server.server_port}", "shared")
        with pytest.raises(BadInput, match=r"none of the .* requests of the first probe was served, most of them: HTTP 404"):
            run(find_knee(target, requirement(limit_s=0.05), options(requests_max=60)))
        server.shutdown()


def test_a_rate_at_which_no_probe_has_a_request_is_a_mistake() -> None:
    with pytest.raises(BadInput, match="--rate: so few requests a second that none fell into a probe of 5 s"):
        search(requirement(limit_s=0.05, rate_rps=1e-4), probe_s=5.0)
