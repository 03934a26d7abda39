"""Where the knee of each example lies on this machine: the highest offered load whose goodput still meets the requirement.

    python benchmarks/contention/knee.py

Loads of rising rate (factor 1.5) on one server until the share of offered requests that met every limit falls under the
requirement's; then two more inside the bracket; the knee is interpolated between the nearest two. The other scripts take it
from the result file. At most 6 minutes; quick: one.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

from driving import CONFIGS, Load, put, serving
from examples import requirement_of, stretch
from figures import client_account, load_figures, rows_of
from script import Script, longer

from setpoint.measure.target import Target

STRIDE = 1.5
MOST_LOADS = 8
SECONDS = {"recommendation": 12.0, "coding-assistant": 20.0}
FIRST_RPS = {"recommendation": 16.0, "coding-assistant": 5.0}


async def probe(target: Target, example: str, rate_rps: float, seconds: float, seed: int) -> dict[str, Any]:
    """One load and its figures."""
    run = await put(target, Load(example, rate_rps, seconds, warmup_s=2.0, seed=seed))
    rows = rows_of(run)
    slos = requirement_of(example).slo
    figures = load_figures(rows.where(rows.phase == "sustained"), seconds, slos)
    return {"rate_rps": rate_rps, **figures, "client": client_account(run)}


def crossing(probes: list[dict[str, Any]], least: float) -> tuple[float, float | None]:
    """The last rate that met ``least`` before the first that did not, and that first one."""
    ordered = sorted(probes, key=lambda each: float(each["rate_rps"]))
    met = 0.0
    for each in ordered:
        if each["goodput_fraction"] < least:
            return met, float(each["rate_rps"])
        met = float(each["rate_rps"])
    return met, None


def interpolated(probes: list[dict[str, Any]], least: float) -> float:
    """Where the goodput share crosses ``least``, linear in the logarithm of the rate between the two nearest probes."""
    low, high = crossing(probes, least)
    if high is None or low == 0.0:
        return low if high is None else high
    share = {float(each["rate_rps"]): float(each["goodput_fraction"]) for each in probes}
    part = (share[low] - least) / max(1e-9, share[low] - share[high])
    return exp(log(low) + part * (log(high) - log(low)))


def main() -> None:
    script = Script("knee", __doc__ or "", knee=False)
    given = script.options()
    most = 3 if given.quick else MOST_LOADS
    seconds = {name: 5.0 if given.quick else longer(each) for name, each in SECONDS.items()}
    script.announce([each + 6.0 for each in seconds.values() for _ in range(most)], servers=2)
    examples: dict[str, Any] = {}
    for example in SECONDS:
        least = requirement_of(example).slo.goodput_fraction_min or 0.95

        async def search(target: Target, example: str = example, least: float = least) -> list[dict[str, Any]]:
            probes: list[dict[str, Any]] = []
            rate_rps = FIRST_RPS[example] / stretch()
            await probe(target, example, rate_rps / 2, seconds[example], given.seed + 100)  # the server learns its machine
            script.done(f"{example}: the server has learned from {rate_rps / 2:g}/s")
            while len(probes) < most - 1:
                probes.append(await probe(target, example, rate_rps, seconds[example], given.seed + len(probes)))
                script.done(f"{example}: {rate_rps:.1f}/s: {probes[-1]['goodput_fraction']:.1%} good (at least {least:.0%})")
                low, high = crossing(probes, least)
                rate_rps = low * STRIDE if high is None else high / STRIDE if low == 0.0 else (low * high) ** 0.5
                if high is not None and low and high / low < 1.12:
                    break
            return probes

        probes = serving(example, CONFIGS[example], search)
        examples[example] = {"knee_rps": interpolated(probes, least), "least_goodput_fraction": least, "loads": probes}
        script.done(f"{example}: knee {examples[example]['knee_rps']:.2f}/s") if len(probes) < most - 1 else None
    script.keep([], {"examples": examples})


if __name__ == "__main__":
    main()
