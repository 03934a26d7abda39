"""Traffic shifts from short prompts and long answers to long prompts and short answers, at one rate. Does a server follow?

    python benchmarks/adapt/shift.py adaptive      six minutes, the shift after three
    python benchmarks/adapt/shift.py static        the same requests, the configuration of the start for all of it
    python benchmarks/adapt/shift.py best          the requests after the shift, under each configuration of a small set
    python benchmarks/adapt/shift.py stationary    ten minutes of the first traffic; nothing should change
    python benchmarks/adapt/shift.py report        what they came to, from the results so far; exit code 1 if a bar is missed

Requests are counted by their client (``setpoint measure``), of those offered. The start is what a grid of first-come batches
gives for the first traffic. ``setpoint`` mode sizes prompts by slack and needs no change for either profile: with it at the
start there is nothing to recover from, so here only ``continuous`` may be served, before the shift and after it (``--modes``
widens that). On a slower machine limits can be stretched and the rate lowered, in every part alike: ``--stretch 4 --rate 0.8``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

RESULTS = Path(__file__).parents[1] / "results"
SHIFT_S, LENGTH_S, SEED = 180.0, 360.0, 7
CHAT, READING, SPREAD = (48, 120), (400, 16), 0.3
RECOVERED_S = 60.0
TAIL_S = 10.0
STATIONARY_S, BEST_S = 600.0, 75.0
BAR = 0.95
BIN_S = 20.0
TTFT_S, ITL_S = 1.5, 0.1
START = {"mode": "continuous", "max_running": 16, "token_budget": 512}
SET = (
    START,
    {"mode": "continuous", "max_running": 16, "token_budget": 64},
    {"mode": "continuous", "max_running": 16, "token_budget": 128},
    {"mode": "continuous", "max_running": 4, "token_budget": 128},
)


@dataclass(frozen=True, slots=True)
class Case:
    """How much is asked: requests a second, and the limits of the requirement in those of a machine with AMX."""

    rate_rps: float
    stretch: float

    @property
    def requirement(self) -> str:
        """As YAML."""
        return f"""name: shift
model: smollm2-135m
profile:
  prompt_tokens: {CHAT[0]}
  output_tokens: {CHAT[1]}
  arrival: {{rate: {self.rate_rps:g}/s}}
slo:
  ttft: {{p95: {1e3 * TTFT_S * self.stretch:g}ms}}
  itl: {{p95: {1e3 * ITL_S * self.stretch:g}ms}}
"""


def trace(file: Path, rate_rps: float, *, from_s: float = 0.0, until_s: float = LENGTH_S, shift_s: float = SHIFT_S) -> None:
    """Poisson arrivals at one rate, lengths log-normal around the profile of the moment; the same requests for every part."""
    dice = np.random.default_rng(SEED)
    base, at_s = datetime(2026, 1, 1, tzinfo=UTC), 0.0
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    while True:
        at_s += float(dice.exponential(1 / rate_rps))
        factors = dice.lognormal(-(SPREAD**2) / 2, SPREAD, 2)
        if at_s >= until_s:
            break
        if at_s >= from_s:
            prompt, output = (max(4, int(mean * factor)) for mean, factor in zip(profile(at_s, shift_s), factors, strict=True))
            lines.append(f"{base + timedelta(seconds=at_s - from_s):%Y-%m-%d %H:%M:%S.%f},{prompt},{output}")
    file.write_text("\n".join(lines) + "\n")


def profile(at_s: float, shift_s: float) -> tuple[int, int]:
    """Mean prompt and answer at that moment."""
    return CHAT if at_s < shift_s else READING


@contextmanager
def server(folder: Path, case: Case, config: dict[str, Any], *options: str) -> Iterator[str]:
    """``setpoint serve`` in a process of its own; gives its URL. It ends with this program, however that ends."""
    needed = folder / "shift.yaml"
    needed.write_text(case.requirement)
    command = [sys.executable, "-m", "setpoint", "serve", str(needed), "--port", "0", "--until-stdin-closes"]
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--config", json.dumps(config), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise SystemExit((folder / "serve.log").read_text()[-2000:])
            yield line.rsplit(" ", 1)[1].strip()
        finally:
            process.terminate()
            process.wait(60)


def measured(folder: Path, case: Case, url: str, name: str, length_s: float, **times: float) -> tuple[np.ndarray, np.ndarray]:
    """Intended sends from the start of the load, and whether each request was ok."""
    file = folder / f"{name}.csv"
    trace(file, case.rate_rps, **times)
    run = folder / name
    command = [
        sys.executable,
        "-m",
        "setpoint",
        "measure",
        url,
        "--requirement",
        str(folder / "shift.yaml"),
        "--trace",
        str(file),
    ]
    command += ["--trace-format", "azure", "--warmup", "0s", "--duration", f"{length_s:g}s", "--output", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    table = pq.read_table(run / "requests.parquet", columns=["intended_s", "request_class"])
    at_s = np.asarray(table["intended_s"])
    return at_s - at_s.min(), np.asarray(table["request_class"].to_pylist()) == "ok"


def bins(at_s: np.ndarray, good: np.ndarray, length_s: float) -> list[float | None]:
    """The share of good requests in each ``BIN_S``."""
    found: list[float | None] = []
    for start_s in np.arange(0.0, length_s, BIN_S):
        inside = (at_s >= start_s) & (at_s < start_s + BIN_S)
        found.append(round(float(good[inside].mean()), 3) if inside.any() else None)
    return found


def share(at_s: np.ndarray, good: np.ndarray, from_s: float, until_s: float) -> float:
    """Of the requests sent in that time."""
    return float(good[(at_s >= from_s) & (at_s < until_s)].mean())


def account(url: str) -> dict[str, Any]:
    """The loop's own account."""
    with urllib.request.urlopen(f"{url}/setpoint/adapt", timeout=10) as answer:
        state: dict[str, Any] = json.load(answer)
    return state


def run(folder: Path, case: Case, part: str, modes: str) -> dict[str, Any]:
    """One part of the benchmark."""
    adapt = ("--adapt", "--adapt-modes", modes, "--adapt-log", str(folder / "adapt.jsonl"))
    if part == "best":
        found: list[dict[str, Any]] = []
        for config in SET:
            with server(folder, case, config) as url:
                name = f"best-{len(found)}"
                at_s, good = measured(
                    folder, case, url, name, BEST_S, from_s=SHIFT_S + RECOVERED_S, until_s=SHIFT_S + RECOVERED_S + BEST_S
                )
            found.append({"config": config, "good": share(at_s, good, 0.0, BEST_S - TAIL_S), "requests": len(at_s)})
        return {"set": found}
    if part == "stationary":
        with server(folder, case, START, *adapt) as url:
            at_s, good = measured(folder, case, url, part, STATIONARY_S, until_s=STATIONARY_S, shift_s=1e9)
            state = account(url)
        return {"good": float(good.mean()), "requests": len(at_s), "bins": bins(at_s, good, STATIONARY_S), "loop": state}
    with server(folder, case, START, *(adapt if part == "adaptive" else ())) as url:
        at_s, good = measured(folder, case, url, part, LENGTH_S)
        state = account(url) if part == "adaptive" else {}
    return {
        "before": share(at_s, good, 0.0, SHIFT_S),
        "first_minute": share(at_s, good, SHIFT_S, SHIFT_S + RECOVERED_S),
        "after": share(at_s, good, SHIFT_S + RECOVERED_S, LENGTH_S - TAIL_S),
        "requests": len(at_s),
        "bins": bins(at_s, good, LENGTH_S),
        "loop": state,
    }


def report(results: dict[str, Any]) -> int:
    """The table and the bars; 1 if one is missed."""
    best = max(each["good"] for each in results["best"]["set"])
    held = True
    for each in results["best"]["set"]:
        print(f"after the shift, {each['config']}: {each['good']:.3f}")
    for part in ("static", "adaptive"):
        figures = results[part]
        print(
            f"{part}: before {figures['before']:.3f}, first minute {figures['first_minute']:.3f}, then {figures['after']:.3f}"
        )
    reached = results["adaptive"]["after"] / best
    held &= reached >= BAR
    print(f"adaptive from {RECOVERED_S:g} s after the shift: {reached:.3f} of the best, at least {BAR}")
    if "stationary" in results:
        changes = results["stationary"]["loop"]["changes"]
        held &= changes == 0
        print(f"stationary: {changes} changes in {STATIONARY_S:g} s, {results['stationary']['good']:.3f} good")
    return 0 if held else 1


def main() -> None:
    """One part, into the results file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("part", choices=("adaptive", "static", "best", "stationary", "report"))
    options.add_argument("--modes", default="continuous", help="modes that may be served")
    options.add_argument("--rate", type=float, default=2.0, help="requests a second (default 2)")
    options.add_argument("--stretch", type=float, default=1.0, help="limits of the requirement times this (default 1)")
    options.add_argument("--output", type=Path, default=RESULTS / "adapt_shift.json")
    given = options.parse_args()
    results: dict[str, Any] = json.loads(given.output.read_text()) if given.output.exists() else {}
    if given.part == "report":
        sys.exit(report(results))
    with tempfile.TemporaryDirectory() as folder:
        results[given.part] = run(Path(folder), Case(given.rate, given.stretch), given.part, given.modes)
    results |= {"cores": os.cpu_count(), "rate_rps": given.rate, "stretch": given.stretch}
    given.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({name: value for name, value in results[given.part].items() if name != "loop"}))


if __name__ == "__main__":
    main()
