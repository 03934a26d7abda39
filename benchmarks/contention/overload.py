"""Overload: whoever is admitted is served in time, and as much is served as at the knee. Beside it: servers that queue.

    python benchmarks/contention/overload.py --llama-server build/llamacpp/build/bin/llama-server

For each example the knee (``knee.py``, or ``--knee NAME=RATE``), then 1x, 2x and 4x of it in an open loop: on setpoint as it
serves the example, on setpoint's ``continuous`` mode with a queue without bound, and on llama.cpp's server with the same model
file. The three take turns at each load, each with the same requests at the same times. A server that queues is started
anew for each load, for it would begin the next with the backlog of the last. At most 14 minutes; quick, of the first example
alone: one and a half.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driving import CONFIGS, UNBOUNDED, Load, Run, llama_server, put, serving
from examples import requirement_of
from figures import client_account, load_figures, rows_of
from script import Criterion, Script, longer, named_rates

from setpoint.measure.event_loop import run as run_coroutine
from setpoint.measure.target import Target
from setpoint.policy.configuration import BatchingMode, ServingConfig

FACTORS = (1, 2, 4)
SECONDS = {"recommendation": 18.0, "coding-assistant": 26.0}
LEARN_S = 6.0
QUICK_S, QUICK_LEARN_S = 4.0, 2.0
LEAST_OF_KNEE = 0.9
LEAST_SHARE = 0.5


def figures_of(run: Run, factor: int) -> dict[str, Any]:
    """The sustained part of a load."""
    rows = rows_of(run)
    sustained = rows.where(rows.phase == "sustained")
    found = load_figures(sustained, run.load.sustained_s, requirement_of(run.load.example).slo)
    return {"factor": factor, "rate_rps": run.load.rate_rps, **found, "client": client_account(run)}


class Overload:
    """The loads of one example on every side."""

    def __init__(self, script: Script, example: str, knee_rps: float, llama: Path | None) -> None:
        self._script = script
        self._example = example
        quick = script.given.quick
        self._learn_s = QUICK_LEARN_S if quick else LEARN_S
        self._loads = {
            factor: Load(
                example,
                factor * knee_rps,
                QUICK_S if quick else longer(SECONDS[example]),
                warmup_s=1.0 if quick else 3.0,
                drain_s=2.0 if quick else None,
                seed=script.given.seed + factor,
            )
            for factor in (FACTORS[::2] if quick else FACTORS)
        }
        self._llama = llama
        self.sides: dict[str, list[dict[str, Any]]] = {"setpoint": [], "continuous": []}
        if llama is not None:
            self.sides["llama.cpp"] = []

    @property
    def lengths_s(self) -> list[float]:
        """The longest each load can take; on setpoint a load before them lets it learn the machine."""
        return [self._learn_s + each.length_s for each in self._loads.values() for _ in self.sides]

    def run(self) -> None:
        """Every load, the sides taking turns."""
        own = CONFIGS[self._example]
        queue = ServingConfig(
            mode=BatchingMode.CONTINUOUS,
            max_running=own.max_running,
            token_budget=own.token_budget,
            max_waiting=UNBOUNDED,
        )
        for factor, load in self._loads.items():
            self._take("setpoint", factor, serving(self._example, own, self._learned(load)))
            self._take("continuous", factor, serving(self._example, queue, self._learned(load)))
            if self._llama is not None:
                with llama_server(self._llama, places=own.max_running) as target:
                    self._take("llama.cpp", factor, run_coroutine(self._learned(load)(target)))

    def _learned(self, load: Load) -> Any:
        """The load after a short light one: each side, also those that learn nothing, gets both."""
        rate_rps, seconds = self._loads[1].rate_rps / 2, self._learn_s
        light = Load(self._example, rate_rps, seconds, warmup_s=0.0, drain_s=0.5, seed=load.seed + 100)

        async def work(target: Target) -> Run:
            await put(target, light)
            return await put(target, load)

        return work

    def _take(self, side: str, factor: int, run: Run) -> None:
        found = figures_of(run, factor)
        self.sides[side].append(found)
        late = found["late_of_admitted"]
        self._script.done(
            f"{self._example} {factor}x on {side}: {found['goodput_fraction']:.0%} of {found['offered']} good,"
            f" {'none' if late is None else format(late, '.1%')} of the admitted late"
        )


def criteria_of(example: str, loads: list[dict[str, Any]]) -> list[Criterion]:
    """What is asked of setpoint at every load."""
    slos = requirement_of(example).slo
    knee = loads[0]
    found: list[Criterion] = []
    for each in loads:
        at = f"{example} at {each['factor']}x"
        for metric in ("ttft", "e2e"):
            limit_s = each["limits_s"][metric]
            if limit_s is not None:
                name = f"{at}: {metric.upper()} P99 of the admitted, s"
                found.append(Criterion(name, "at_most", limit_s, each[f"{metric}_p99_s"], each["admitted"]))
        if each is not knee:
            for name, key in (("requests", "goodput_rps"), ("tokens", "goodput_tokens_per_s")):
                share = each[key] / knee[key] if knee[key] else None
                found.append(
                    Criterion(f"{at}: goodput by {name}, of the knee's", "at_least", LEAST_OF_KNEE, share, each["offered"])
                )
        shares = each["admission_share_by_length"]
        name = f"{at}: least admission share of a quartile of length, of the mean"
        found.append(Criterion(name, "at_least", LEAST_SHARE, None if shares is None else min(shares), each["offered"]))
        for slo in slos.spread:
            value = each[f"{slo.metric}_spread"]
            found.append(Criterion(f"{at}: P99/P50 of {slo.metric.upper()}", "at_most", slo.limit, value, each["admitted"]))
    return found


def main() -> None:
    script = Script("overload", __doc__ or "", knee=False)
    script.parser.add_argument(
        "--knee", action="append", default=[], metavar="NAME=RATE", help="requests/s (default: knee.py's)"
    )
    script.parser.add_argument("--only", choices=tuple(SECONDS), help="one example alone")
    script.parser.add_argument("--llama-server", type=Path, help="llama.cpp's server (benchmarks/peers/build_llamacpp.sh)")
    given = script.options()
    if given.llama_server is not None and not given.llama_server.is_file():
        raise SystemExit(f"--llama-server: {given.llama_server} is no file; build it with benchmarks/peers/build_llamacpp.sh")
    knees = named_rates(given.knee)
    given.knee = None
    names = [given.only] if given.only else list(SECONDS)[: 1 if given.quick else None]
    parts = {name: Overload(script, name, knees.get(name) or script.knee_rps(name), given.llama_server) for name in names}
    lengths_s = [each for part in parts.values() for each in part.lengths_s]
    script.announce(lengths_s, servers=len(lengths_s))
    for part in parts.values():
        part.run()
    criteria = [each for name, part in parts.items() for each in criteria_of(name, part.sides["setpoint"])]
    script.keep(criteria, {"examples": {name: part.sides for name, part in parts.items()}}, joined=given.only is not None)


if __name__ == "__main__":
    main()
