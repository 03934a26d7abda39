"""What the scripts beside this file have in common: options, progress, criteria, the result file, the knee."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from examples import stretch, stretch_limits

from setpoint.report.files import machine_facts

RESULTS = Path(__file__).resolve().parent.parent / "results"
IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
START_S = 8.0


@dataclass(frozen=True, slots=True)
class Criterion:
    """What was asked, what was found. ``sense``: ``at_most`` or ``at_least``. ``value`` is ``None`` where nothing was found."""

    name: str
    sense: str
    limit: float
    value: float | None
    samples: int | None = None

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of its limit."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.sense == "at_most" else self.value >= self.limit

    def facts(self) -> dict[str, Any]:
        """As the result file has it."""
        return {**asdict(self), "value": finite(self.value), "holds": self.holds}


def finite(value: float | None) -> float | str | None:
    """JSON has no infinity: it is written as a word."""
    return "inf" if value is not None and value == float("inf") else value


def plain(value: Any) -> Any:
    """``value`` with every infinity in it as a word, all the way down."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return finite(value) if isinstance(value, float) else value


def result_file(name: str) -> Path:
    """Where the result of a script is kept; what was found with stretched limits is a result of its own."""
    return RESULTS / f"contention_{name}{'' if stretch() == 1.0 else '_stretched'}.json"


def longer(seconds: float) -> float:
    """How long a load lasts: under stretched limits up to twice as long, for its rate is lower and its samples are fewer."""
    return seconds * min(2.0, max(1.0, stretch()))


class Script:
    """One script: its options, what it said, what it found.

    ``name`` is that of the result file, ``contention_NAME.json``. A quick run writes nothing unless ``--output`` is given.
    """

    def __init__(self, name: str, doc: str, *, example: str | None = None, knee: bool = True) -> None:
        self.name = name
        self.parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.parser.add_argument("--quick", action="store_true", help="a smoke test of about a minute; says nothing")
        self.parser.add_argument(
            "--output", type=Path, help=f"result file (default {RESULTS.name}/contention_{name}.json, or _NAME_stretched)"
        )
        self.parser.add_argument(
            "--stretch", type=float, default=1.0, help="latency limits of the example times this (default 1)"
        )
        self.parser.add_argument("--seed", type=int, default=1, help="of the first load; each load takes another")
        if example is not None:
            self.parser.add_argument("--example", default=example, choices=("recommendation", "coding-assistant"))
        if knee:
            self.parser.add_argument("--knee", type=float, help="requests/s (default: what knee.py kept in its result file)")
        self._began_s = time.monotonic()
        self._parts: list[float] = []
        self._done = 0

    def options(self) -> argparse.Namespace:
        """Parse the command line; look how busy the machine is before anything starts."""
        self.given = self.parser.parse_args()
        stretch_limits(self.given.stretch)
        self.cpu_percent_before = psutil.cpu_percent(2)
        return self.given

    def knee_rps(self, example: str) -> float:
        """The knee given, or the one ``knee.py`` kept. Ends the script with one sentence where there is none."""
        if getattr(self.given, "knee", None) is not None:
            return float(self.given.knee)
        kept = result_file("knee")
        if not kept.is_file():
            raise SystemExit(f"--knee: not given and there is no {kept.name}; run knee.py first, or give requests/s")
        return float(json.loads(kept.read_text(encoding="utf-8"))["examples"][example]["knee_rps"])

    def announce(self, lengths_s: Sequence[float], *, servers: int = 1) -> None:
        """Say how long it will take at most."""
        self._parts = list(lengths_s)
        self.longest_s = sum(lengths_s) + servers * START_S
        self._began_s = time.monotonic()
        busy = f"; CPU use before: {self.cpu_percent_before:g} %"
        self._say(f"{self.name}: {len(self._parts)} loads, at most {self.longest_s / 60:.1f} minutes{busy}")

    def done(self, words: str) -> None:
        """One load is over."""
        self._done += 1
        passed_s = time.monotonic() - self._began_s
        self._say(f"[{self._done}/{len(self._parts)}, {passed_s:.0f} of {self.longest_s:.0f} s] {words}")

    def keep(self, criteria: Sequence[Criterion], facts: dict[str, Any], *, joined: bool = False) -> None:
        """Print what holds, write the result file. ``joined``: examples that were not run now stay in it as they were."""
        for each in criteria:
            word = "at most" if each.sense == "at_most" else "at least"
            verdict = "holds" if each.holds else "DOES NOT HOLD"
            self._say(f"{verdict}: {each.name}: {_short(each.value)} ({word} {each.limit:g}, n {each.samples})")
        document = {
            "command": "python " + " ".join(sys.argv),
            "machine": machine_facts(),
            "cpu_percent_before": self.cpu_percent_before,
            "quick": self.given.quick,
            "stretch": stretch(),
            "wall_s": time.monotonic() - self._began_s,
            "criteria": [each.facts() for each in criteria],
            **plain(facts),
        }
        output = self.given.output or (None if self.given.quick else result_file(self.name))
        if output is not None and joined and output.is_file():
            document = _joined(json.loads(output.read_text(encoding="utf-8")), document)
        if output is not None:
            output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            self._say(f"written: {output}")

    def _say(self, words: str) -> None:
        print(words, file=sys.stderr, flush=True)


def _joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """``now`` with the examples of ``before`` that it lacks, their criteria first."""
    kept = {name: each for name, each in before["examples"].items() if name not in now["examples"]}
    criteria = [each for each in before["criteria"] if any(each["name"].startswith(name) for name in kept)]
    command = f"{before['command']}; {now['command']}" if kept else now["command"]
    seconds = before["wall_s"] + now["wall_s"] if kept else now["wall_s"]
    return {
        **now,
        "command": command,
        "wall_s": seconds,
        "criteria": criteria + now["criteria"],
        "examples": kept | now["examples"],
    }


def _short(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def named_rates(values: Iterable[str]) -> dict[str, float]:
    """``NAME=RATE`` of each example, as ``--knee`` takes them. Ends the script with one sentence if one cannot be read."""
    found = {}
    for value in values:
        name, _, rate = value.partition("=")
        try:
            found[name] = float(rate)
        except ValueError:
            raise SystemExit(f"--knee: found {value!r}; write it as recommendation=30") from None
    return found
