"""A burst on this machine behind a queue without bound, and with deadlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.measured import on_server, put
from gallery.simulated import at_rate
from setpoint.loop.measuring import MeasuredRun
from setpoint.loop.schedule import Schedule
from setpoint.measure.target import Target
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import percent, seconds
from setpoint.requirement import Slos, example_text, parse_requirement
from setpoint.requirement.arrival import Burst
from setpoint.statistics import FloatArray

EXAMPLE = "recommendation"
# In answers that the machine makes alone, one after the other: a fast one and a slow one see the same pressure.
CALM, BURST, LIMIT = 0.55, 4.0, 4.4
BURST_S, WINDOW_S = 12.0, 1.0
EXAMPLE_LIMIT = "400ms"
UNBOUNDED = 1_000_000
CONFIGS = {
    "queue without bound": ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=16, max_waiting=UNBOUNDED),
    "deadlines (setpoint)": ServingConfig(mode=BatchingMode.SETPOINT, max_running=16),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Requests as columns: phase, intended send, E2E (``inf``: no answer; NaN: refused)."""

    phase: np.ndarray
    sent_s: FloatArray
    e2e_s: FloatArray
    limit_s: float = np.inf

    def p99_s(self, phase: str) -> float:
        """Of those who were not refused."""
        values = self.e2e_s[(self.phase == phase) & ~np.isnan(self.e2e_s)]
        return float(np.quantile(values, 0.99, method="higher")) if len(values) else np.nan

    def share(self, phase: str, *, good: bool) -> float:
        """Good, or refused, of all offered."""
        values = self.e2e_s[self.phase == phase]
        found = values <= self.limit_s if good else np.isnan(values)
        return float(found.mean())


def rows_of(run: MeasuredRun, limit_s: float) -> Rows:
    """The columns of a measurement."""
    table = run.requests.sort_by("intended_s")
    classes = np.array(table["request_class"].to_pylist())
    e2e_s = np.array([np.inf if each is None else each for each in table["e2e_s"].to_pylist()])
    e2e_s[np.isin(classes, ("shed", "dropped"))] = np.nan
    sent_s = np.array(table["intended_s"].to_pylist(), dtype=np.float64)
    return Rows(np.array(table["phase"].to_pylist()), sent_s, e2e_s, limit_s)


def lone_s(text: str) -> float:
    """E2E, in the middle, of requests that come one after the other."""

    async def work(target: Target) -> float:
        run = await put(target, text, Schedule(1.0, 5.0, drain_s=1.0), seed=0, concurrency=1)
        return float(np.median([each for each in run.requests["e2e_s"].to_pylist() if each is not None]))

    return on_server(text, CONFIGS["queue without bound"], work)


def run(size: Size, seed: int) -> Outcome:
    """The same load on both servers."""
    schedule = Schedule(4.0, 20.0, recovery_s=8.0, drain_s=6.0) if size is Size.FULL else Schedule(2.0, 5.0, 3.0, 3.0)
    alone_s = lone_s(example_text(EXAMPLE))
    limit_s, calm_rps, burst_rps = round(LIMIT * alone_s, 2), CALM / alone_s, BURST / alone_s
    text = example_text(EXAMPLE).replace(EXAMPLE_LIMIT, f"{limit_s * 1e3:.0f}ms")
    base = at_rate(parse_requirement(text, EXAMPLE), calm_rps)
    burst = Burst(rate_rps=burst_rps, duration_s=BURST_S)
    asked = base.model_copy(update={"profile": base.profile.model_copy(update={"burst": burst}), "slo_burst": base.slo})
    learn = asked.model_copy(update={"profile": base.profile.model_copy(update={"burst": None}), "slo_burst": Slos()})
    found = {}
    for name, config in CONFIGS.items():

        async def work(target: Target) -> Rows:
            await put(target, learn, Schedule(1.0, 15.0, drain_s=1.0), seed=seed + 100)
            return rows_of(await put(target, asked, schedule, seed=seed), limit_s)

        found[name] = on_server(text, config, work)
    rows = [
        (
            name,
            phase,
            f"{int((each.phase == phase).sum())}",
            seconds(each.p99_s(phase), " "),
            percent(each.share(phase, good=False), " "),
            percent(each.share(phase, good=True), " "),
        )
        for name, each in found.items()
        for phase in ("sustained", "burst")
    ]
    return Outcome(
        expected(found),
        ("queue", "phase", "offered", "E2E P99 of the admitted", "refused", "good of offered"),
        rows,
        picture(found),
        {
            "model": "smollm2-135m",
            "example": EXAMPLE,
            "alone_s": alone_s,
            "limit_s": limit_s,
            "calm_rps": calm_rps,
            "burst_rps": burst_rps,
            "burst_s": BURST_S,
        },
    )


def expected(found: dict[str, Rows]) -> list[Expected]:
    """The spike, and its cure."""
    endless, held = found.values()
    spike = endless.p99_s("burst") / endless.p99_s("sustained")
    good = held.share("burst", good=True) / max(endless.share("burst", good=True), 1e-3)
    return [
        Expected("P99 of the burst over calm, queue without bound", spike, "at least", 3.0),
        Expected("P99 of the burst with deadlines, of the limit", held.p99_s("burst") / held.limit_s, "at most", 1.0),
        Expected("good in the burst, deadlines over no bound", good, "at least", 1.3),
    ]


def picture(found: dict[str, Rows]) -> Picture:
    """The largest E2E of each second."""
    lines = []
    limit_s = next(iter(found.values())).limit_s
    for name, each in found.items():
        starts = np.arange(0.0, each.sent_s.max(), WINDOW_S)
        inside = [each.e2e_s[(each.sent_s >= at) & (each.sent_s < at + WINDOW_S)] for at in starts]
        known = [window[np.isfinite(window)] for window in inside]
        lines.append(Series(name, starts, np.array([window.max() * 1e3 if len(window) else np.nan for window in known]), False))
    return Picture(
        f"A burst of {BURST_S:g} s, the longest of each second (measured)",
        "seconds since the start",
        [Strip("E2E of the admitted, ms", lines, limit=limit_s * 1e3, limit_words=f"limit {limit_s * 1e3:.0f} ms", log=True)],
    )


EXPERIMENT = Experiment(
    name="tail_spikes_here",
    claim="Measured: a burst behind a queue without bound, and with deadlines",
    kind=Kind.MEASURED,
    where="SmolLM2-135M on setpoint's own engine; the shipped recommendation requests.",
    method=f"First one request after the other: how long does one take alone? The limit of E2E P99 is {LIMIT:g} times that. "
    f"Then {CALM:g} requests come in that time, for {BURST_S:g} s {BURST:g}, then {CALM:g} again: on `continuous` with a queue "
    "without bound, and on `setpoint`. A request without an answer at the end counts as infinitely late; one that was refused "
    "is not admitted.",
    shape="Behind the queue without bound the P99 of the burst is at least three times that of the calm phase; with "
    "deadlines it stays "
    "within the limit, and at least 30 % more of the offered requests are good.",
    reading="Rates and limit follow the machine's speed, so that a slow machine and a fast one see the same pressure.",
    run=run,
)
