"""One ``setpoint measure`` of a real server, as a user runs it, and what its run folder says of both sides."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

RUN_WITHIN_S = 180
# 2 is bad input, 4 a run that may not be believed. Whether limits are met is no matter here: none are declared.
GOOD_EXIT_CODES = (0, 1, 3)
CLASSES = ("ok", "late", "shed", "failed", "dropped", "unfinished")


@dataclass(frozen=True, slots=True)
class RealRun:
    """report: ``report.json``. requests: the client's rows. told: what the server's pages said (``SERVER_COLUMNS``)."""

    report: dict[str, Any]
    requests: pa.Table
    told: pa.Table

    @property
    def measures(self) -> dict[str, Any]:
        """The figures of the sustained phase."""
        measures: dict[str, Any] = self.report["candidates"][0]["measured"]["sustained"]
        return measures

    @property
    def server(self) -> dict[str, Any]:
        """The server's account."""
        server: dict[str, Any] = self.report["candidates"][0]["server"]
        return server

    @property
    def summary(self) -> dict[str, Any]:
        """The server's account of the sustained phase."""
        summary: dict[str, Any] = self.server["phases"]["sustained"]
        return summary

    def rise(self, name: str) -> float:
        """How much a counter of the server rose from before the first request to after the last answer."""
        values = self.values(name)
        return float(values[-1] - values[0])

    def values(self, name: str) -> np.ndarray:
        """Everything the server said of one quantity, in order of time."""
        rows = self.told.filter(pc.equal(self.told["name"], name))
        assert rows.num_rows >= 2, f"the server's pages say nothing of {name}"
        return np.asarray(rows["value"])

    def total(self, column: str) -> int:
        """The sum of a column over all requests."""
        return int(pc.sum(self.requests[column]).as_py() or 0)

    def count(self, request_class: str) -> int:
        """How many requests of all phases ended in a class."""
        return int(pc.sum(pc.equal(self.requests["request_class"], request_class)).as_py() or 0)


def measure(url: str, folder: Path, *options: str) -> RealRun:
    """Run the command line on ``url``; the test fails with what it said if it does not run well."""
    command = [sys.executable, "-m", "setpoint", "measure", url, "--output", str(folder), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False)
    # An exception ends a Python program with 1, as a missed limit does: only a report tells them apart.
    good = done.returncode in GOOD_EXIT_CODES and done.stdout.startswith("{")
    assert good, f"exit code {done.returncode}\n{done.stderr[-3000:]}"
    return RealRun(
        json.loads(done.stdout), pq.read_table(folder / "requests.parquet"), pq.read_table(folder / "server.parquet")
    )


def check_accounts(run: RealRun, *, kind: str, offered: int) -> None:
    """Every request in one class, and the server known and watched to the end."""
    measures = run.measures
    assert measures["offered"] == offered
    assert sum(measures[name] for name in CLASSES) == offered
    assert run.report["validity"]["valid"], run.report["validity"]["reasons"]
    assert run.server["kind"] == kind
    assert run.server["notes"] == []
    assert run.server["restarts_s"] == []


def check_tokens(run: RealRun, *, prompt_tokens: int, output_tokens: int) -> None:
    """All answered; every count is the one asked for, as the client saw it and as the server counted it."""
    rows = run.requests.to_pylist()
    assert {row["request_class"] for row in rows} <= {"ok", "late"}, {row["error"] for row in rows}
    assert {row["prompt_tokens"] for row in rows} == {prompt_tokens}
    assert {row["output_tokens"] for row in rows} == {output_tokens}
    assert {len(row["token_times_s"]) for row in rows} == {output_tokens}
    assert run.rise("output_tokens") == len(rows) * output_tokens
    assert run.rise("prompt_tokens") == len(rows) * prompt_tokens


def check_figures(run: RealRun) -> None:
    """Queue, running, KV and tokens are there, and agree with what the client did."""
    summary = run.summary
    assert summary["scrapes"] >= 3
    assert summary["waiting_peak"] is not None
    assert 1 <= summary["running_peak"] <= len(run.requests)
    assert 0 < summary["kv_usage_peak"] <= 1
    assert run.measures["kv_usage_peak"] is not None
    assert run.measures["prefix_hit_rate"] is not None
    # What drains after the phase was made by the server in part before its end: a phase has no sharper edge than that.
    assert 0 < summary["output_tokens"] <= run.total("output_tokens")
