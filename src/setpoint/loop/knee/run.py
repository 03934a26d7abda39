"""What a search on a server leaves behind: every probe with its rows, and the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from setpoint.loop.knee.probes import Knee, ProbeResult
from setpoint.loop.measured import MeasuredRun
from setpoint.record import Report, RequestClass, Validity, Verdict
from setpoint.report.format import percent
from setpoint.requirement import Requirement
from setpoint.statistics import proportion_interval


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """One probe. name: of the candidate, such as ``probe-2@3.2rps``."""

    name: str
    measured: MeasuredRun = field(repr=False)
    result: ProbeResult

    def count(self, class_: RequestClass) -> int:
        """How many requests of the sustained phase ended so."""
        return int(getattr(self.measured.measured.sustained, str(class_)))

    def facts(self) -> dict[str, Any]:
        """As ``report.json`` has it; ``good``: share of good samples by each criterion with its 95 % interval."""
        shares = []
        for count in self.result.counts:
            bad, samples = round(count.bad), round(count.samples)
            interval = proportion_interval(min(bad, samples), samples, effective_n=count.effective_n)
            low, high = (0.0, 1.0) if interval is None else interval
            shares.append({"share": 1.0 - count.bad / count.samples if samples else None, "interval": [1.0 - high, 1.0 - low]})
        return {"name": self.name, "rate_rps": self.result.rate_rps, "verdict": self.result.met, "good": shares}

    def words(self) -> str:
        """Goodput and verdict."""
        share = percent(self.result.ok / self.result.offered, " ") if self.result.offered else "none"
        return f"{share} of {self.result.offered} requests good, {self.result.met}"


@dataclass(frozen=True, slots=True)
class KneeRun:
    """A search. criteria: their names, in the order of ``knee.curve``. interrupted: it was cut short; what is known by then
    is here all the same."""

    requirement: Requirement
    knee: Knee
    probes: tuple[ProbeRun, ...]
    criteria: tuple[str, ...]
    interrupted: bool
    config: dict[str, Any]

    @property
    def requests(self) -> pa.Table:
        """The rows of all probes (``record.columns.REQUEST_COLUMNS``); the column ``candidate`` tells them apart."""
        return pa.concat_tables([probe.measured.requests for probe in self.probes])

    @property
    def steps(self) -> pa.Table | None:
        """The step records of all probes, ``None`` where the engine is not ours."""
        tables = [probe.measured.steps for probe in self.probes if probe.measured.steps is not None]
        return pa.concat_tables(tables) if tables else None

    @property
    def server_table(self) -> pa.Table | None:
        """What the server's metrics said during all probes, ``None`` without any."""
        tables = [probe.measured.server_table for probe in self.probes if probe.measured.server_table is not None]
        return pa.concat_tables(tables) if tables else None

    @property
    def chosen(self) -> str | None:
        """The probe with the highest rate among those that met the requirement on their own."""
        met = [probe for probe in self.probes if probe.measured.slo.verdict is Verdict.MET]
        return max(met, key=lambda probe: probe.result.rate_rps).name if met else None

    def why(self) -> str:
        """The knee in words, and why a probe below it may be the one that is shown to meet the requirement."""
        words = f"{self.knee.words} The search was interrupted." if self.interrupted else self.knee.words
        if self.chosen is not None:
            return f"{words} {self.chosen} is the highest probe that is shown to meet the requirement by itself."
        return f"{words} No probe is shown to meet the requirement by itself."

    def validity(self) -> Validity:
        """A search is valid if the probes near the knee are: a client at its limit far above it does no harm."""
        judged = [probe for probe in self.probes if self._matters(probe)] or list(self.probes)
        reasons = [f"{probe.name}: {reason}" for probe in judged for reason in probe.measured.validity.reasons]
        if not self.probes:
            return Validity(valid=False, reasons=["the search ended before its first probe did"])
        return Validity(valid=all(probe.measured.validity.valid for probe in judged), reasons=reasons)

    def _matters(self, probe: ProbeRun) -> bool:
        knee_rps = self.knee.rate_rps
        return knee_rps is None or probe.result.rate_rps <= 1.25 * knee_rps

    def facts(self) -> dict[str, Any]:
        """``report.json``'s ``knee``: rates in requests/s, shares of offered requests; ``None`` where unknown."""
        low, high = self.knee.interval_rps
        return {
            "rate_rps": self.knee.rate_rps,
            "interval_rps": [low, high if high != float("inf") else None],
            "settled": self.knee.settled,
            "limited_by": self.knee.limited_by,
            "words": self.why(),
            "interrupted": self.interrupted,
            "probes": [probe.facts() for probe in self.probes],
            "criteria": list(self.criteria),
            "curve": [{"rate_rps": point.rate_rps, "good": list(point.good)} for point in self.knee.curve],
        }

    def report(self, machine: dict[str, Any]) -> Report:
        """``report.json`` of schema 1: kind ``measure``, each probe a candidate, the highest that met it chosen."""
        candidates = [
            probe.measured.candidate(probe.name, {**self.config, "rate_rps": probe.result.rate_rps}) for probe in self.probes
        ]
        return Report(
            kind="measure",
            requirement=self.requirement.model_dump(mode="json"),
            machine=machine,
            candidates=candidates,
            chosen=self.chosen,
            why=self.why(),
            validity=self.validity(),
            knee=self.facts(),
        )
