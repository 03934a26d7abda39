"""What room for other tenants buys and costs: two tenants on a virtual clock, by how long the large one may make others wait.

    python benchmarks/contention/tenants_simulated.py

Real policy and step loop, steps by a line with noise: a 135M model on two cores, with AMX and without; the coding-assistant
example (its limits four times as long without AMX), one tenant sending ``RATIO`` times as much as the other, then both alike.
Deterministic. About four minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from examples import stretched

from setpoint.policy import tenant_room
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.modes import build_policy
from setpoint.policy.views import RequestLimits
from setpoint.report.files import machine_facts
from setpoint.requirement import example_text, parse_requirement
from setpoint.simulate.offered import limits_of, load_of_profile
from setpoint.simulate.replay import Arrival, Outcome, World, replay
from setpoint.simulate.sequences import Kind
from setpoint.simulate.taught import taught_model
from setpoint.simulate.timing import LineTimer, Overheads

EXAMPLE = "coding-assistant"
NOISE, BETWEEN_S = 0.1, 0.0008
SMALL_SHARE, RATIO = 0.15, 10.0
SECONDS, WARM_S, DRAIN_S, SEEDS = 90.0, 10.0, 20.0, (1, 2, 3, 4)
ISOLATIONS = (1e9, 2.0, 1.5, 1.35, 1.25)
CONFIG = ServingConfig(mode=BatchingMode.SETPOINT, max_running=32, token_budget=512)


@dataclass(frozen=True)
class Place:
    """A machine as measured, its knee under limits ``stretch`` times the example's."""

    name: str
    timer: LineTimer
    knee_rps: float
    stretch: float


PLACES = (
    Place("AMX", LineTimer(base_s=0.0105, token_s=0.0003, sequence_s=0.0006, kv_token_s=1e-6, product_s=1e-8), 5.2, 1.0),
    Place("AVX2", LineTimer(base_s=0.029, token_s=0.0019, sequence_s=0.0028, kv_token_s=1e-6, product_s=1e-8), 3.9, 4.0),
)


@dataclass
class Seen:
    """What one tenant saw after the warm-up, all seeds together."""

    offered: int = 0
    good: int = 0
    ttft_s: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome, limits: RequestLimits) -> None:
        """One request."""
        self.offered += 1
        if outcome.refused or not outcome.token_times_s:
            return
        ttft_s = outcome.token_times_s[0] - outcome.arrival.at_s
        self.ttft_s.append(ttft_s)
        gaps_s = np.diff(outcome.token_times_s)
        late = limits.itl_s is not None and len(gaps_s) > 0 and float(np.mean(gaps_s > limits.itl_s)) > 0.01
        self.good += not late and (limits.ttft_s is None or ttft_s <= limits.ttft_s)

    def facts(self) -> dict[str, float]:
        """As the result file has it."""
        p50, p95 = np.quantile(self.ttft_s, (0.5, 0.95)).tolist()
        return {"offered": self.offered, "admitted": len(self.ttft_s), "good": self.good, "ttft_p50_s": p50, "ttft_p95_s": p95}


def arrivals(place: Place, tenant: str, rate_rps: float, seed: int) -> tuple[list[Arrival], RequestLimits]:
    """A tenant's requests."""
    asked = parse_requirement(stretched(example_text(EXAMPLE), place.stretch), EXAMPLE)
    profile = asked.profile.model_copy(update={"arrival": asked.profile.arrival.at_mean(rate_rps), "burst": None})
    limits = limits_of(asked.slo)
    load = load_of_profile(
        profile, Kind(limits=limits), seed=seed, warmup_s=0.0, sustained_s=SECONDS, recovery_s=0.0, drain_s=DRAIN_S
    )
    columns = zip(load.sent_s.tolist(), load.prompt_tokens.tolist(), load.output_tokens.tolist(), strict=True)
    rows = [
        Arrival(f"{tenant}-{row}", at_s, prompt, output, output, limits=limits, tenant=tenant)
        for row, (at_s, prompt, output) in enumerate(columns)
    ]
    return rows, limits


def served(place: Place, requests: list[Arrival], seed: int) -> list[Outcome]:
    """All of them on one simulated server."""
    dice = np.random.default_rng(seed)

    def step_s(work: Any, _: float) -> float:
        base_s, read_s, product_s = place.timer.affine(work.tokens, work.sequences)
        seconds = base_s + read_s * work.kv_tokens_read + product_s * work.attention_products
        return float(seconds * dice.lognormal(0.0, NOISE))

    policy = build_policy(CONFIG, taught_model(place.timer, CONFIG, Overheads()))
    world = World(step_s=step_s, blocks=1024, between_s=BETWEEN_S)
    ordered = sorted(requests, key=lambda each: each.at_s)
    return replay(ordered, policy, world, until_s=SECONDS + DRAIN_S).outcomes


def measure(place: Place, isolation: float, small_share: float, large_share: float) -> dict[str, Any]:
    """One row: the small tenant alone and beside the large one, which may make it wait ``isolation`` times as long."""
    tenant_room.ISOLATION = isolation
    seen = {"alone": Seen(), "beside": Seen(), "large": Seen()}
    for seed in SEEDS:
        small, limits = arrivals(place, "small", small_share * place.knee_rps, seed)
        large, _ = arrivals(place, "large", large_share * place.knee_rps, seed + 1000)
        for name, requests in (("alone", small), ("beside", small + large)):
            for outcome in served(place, requests, seed):
                if outcome.arrival.at_s >= WARM_S:
                    seen[name if outcome.arrival.tenant == "small" else "large"].add(outcome, limits)
    facts = {name: each.facts() for name, each in seen.items()}
    return {"isolation": isolation, "ratio": facts["beside"]["ttft_p95_s"] / facts["alone"]["ttft_p95_s"], "tenants": facts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = Path(__file__).resolve().parent.parent / "results" / "contention_tenants_simulated.json"
    parser.add_argument("--output", type=Path, default=results)
    parser.add_argument("--only", choices=[each.name for each in PLACES], help="one machine alone")
    given = parser.parse_args()
    kept = tenant_room.ISOLATION
    rows = []
    for place, (name, small, large) in product(PLACES, (("ten to one", SMALL_SHARE, RATIO * SMALL_SHARE), ("alike", 0.9, 0.9))):
        if given.only not in (None, place.name):
            continue
        for isolation in ISOLATIONS if name == "ten to one" else (ISOLATIONS[0], kept):
            row = {"machine": place.name, "load": name} | measure(place, isolation, small, large)
            rows.append(row)
            beside, alone, other = row["tenants"]["beside"], row["tenants"]["alone"], row["tenants"]["large"]
            print(
                f"{place.name}, {name}, isolation {isolation:g}: TTFT P95 {alone['ttft_p95_s'] * 1e3:.0f} -> "
                f"{beside['ttft_p95_s'] * 1e3:.0f} ms, {row['ratio']:.2f}x; good {beside['good']}/{beside['offered']} and "
                f"{other['good']}/{other['offered']}",
                flush=True,
            )
    document = {
        "command": "python benchmarks/contention/tenants_simulated.py",
        "simulated": True,
        "machine": machine_facts(),
        "seeds": len(SEEDS),
        "rows": rows,
    }
    if given.only is None:
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"written: {given.output.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
