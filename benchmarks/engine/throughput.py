"""Closed-loop throughput of setpoint's engine beside OpenVINO GenAI's pipeline and llama.cpp's server.

All sides run in one session on the same file, threads and work, alternating; the figure is the median of the rounds' ratios.

    python benchmarks/engine/throughput.py --output benchmarks/results/engine_throughput.json
    python benchmarks/engine/throughput.py --llama-server build/llamacpp/build/bin/llama-server --rounds 5

llama.cpp's server is built by benchmarks/peers/build_llamacpp.sh. ``--llama-model`` may name another quantisation of the
same weights, which is then reported beside the same file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from setpoint.engine.models import demo_file
from setpoint.report.files import machine_facts

HERE = Path(__file__).resolve().parent
CONCURRENCIES = (1, 8, 16, 32, 64)
QUIET_BELOW_PERCENT = 10.0
CONTEXT_PER_SLOT = 512


class Side:
    """A worker process that answers jobs."""

    def __init__(self, kind: str, argument: str) -> None:
        command = [sys.executable, str(HERE / "sides.py"), kind, argument]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"a side ended with exit code {self._process.wait()}")

    def run(self, job: dict[str, int]) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@contextlib.contextmanager
def llama_server(binary: str, model: Path, threads: int, port: int, extra: list[str] | None = None) -> Iterator[str]:
    """llama.cpp's server with continuous batching and separate KV streams, prompt cache off; stopped on leaving."""
    slots = max(CONCURRENCIES)
    command = [binary, "-m", str(model), "--port", str(port), "-t", str(threads), "-tb", str(threads), "-np", str(slots)]
    command += ["-c", str(slots * CONTEXT_PER_SLOT), "-no-kvu", "-b", "2048", "-ub", "512", "-fa", "on", "-cram", "0"]
    command += ["-fit", "off", "--no-ui", "--no-cache-prompt", *(extra or [])]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            if not healthy(url, process):
                log.seek(0)
                raise RuntimeError(f"llama.cpp's server did not come up:\n{log.read()[-2000:]}")
            yield url
        finally:
            process.terminate()
            process.wait(10)


def healthy(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait up to two minutes for the server to say that it is ready; False if it ended or did not."""
    for _ in range(240):
        if process.poll() is not None:
            return False
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            if answer.status == 200:
                return True
        time.sleep(0.5)
    return False


def wait_until_quiet() -> float:
    """The machine's CPU use in percent; waits up to a minute for it to fall below the bound."""
    for _ in range(30):
        used = psutil.cpu_percent(interval=2)
        if used < QUIET_BELOW_PERCENT:
            return used
    return used


def compare(sides: dict[str, Side], rounds: int, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each concurrency, as soon as it is there."""
    for concurrency in CONCURRENCIES:
        job = {
            "concurrency": concurrency,
            "requests": max(6, 2 * concurrency if concurrency <= 8 else concurrency),
            "prompt_tokens": arguments.prompt_tokens,
            "output_tokens": arguments.output_tokens,
            "seed": concurrency,
        }
        figures: dict[str, list[float]] = {name: [] for name in sides}
        overheads = []
        for round_number in range(rounds + 1):
            names = list(sides) if round_number % 2 else list(reversed(sides))
            for name in names:
                answer = sides[name].run({**job, "seed": concurrency * 1000 + round_number})
                if round_number:  # the first round warms every side up
                    figures[name].append(answer["tokens_per_s"])
                    if name == "setpoint":
                        overheads.append(answer["overhead_fraction"])
        yield {"concurrency": concurrency, **summary(figures), "engine_overhead_fraction": statistics.median(overheads)}


def summary(figures: dict[str, list[float]]) -> dict[str, Any]:
    ours = figures["setpoint"]
    ratios = {
        name: [a / b for a, b in zip(ours, theirs, strict=True)] for name, theirs in figures.items() if name != "setpoint"
    }
    return {
        "tokens_per_s": {name: {"median": statistics.median(v), "min": min(v), "max": max(v)} for name, v in figures.items()},
        "ratio": {name: {"median": statistics.median(v), "min": min(v), "max": max(v)} for name, v in ratios.items()},
    }


def print_row(row: dict[str, Any]) -> None:
    speeds = "  ".join(f"{name} {each['median']:.0f}" for name, each in row["tokens_per_s"].items())
    ratios = "  ".join(f"/{name} {r['median']:.2f} ({r['min']:.2f}-{r['max']:.2f})" for name, r in row["ratio"].items())
    print(f"{row['concurrency']:>3}: {speeds} tokens/s; {ratios}; overhead {row['engine_overhead_fraction']:.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--llama-server", help="path of the binary; without it llama.cpp is left out")
    parser.add_argument("--llama-model", type=Path, action="append", default=[], help="further GGUF files of the same weights")
    parser.add_argument("--sides", nargs="+", default=["setpoint", "genai"], help="also: setpoint-streams")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    quiet = wait_until_quiet()
    with contextlib.ExitStack() as stack:
        sides = {name: Side(name, str(arguments.threads)) for name in arguments.sides}
        if arguments.llama_server:
            for number, model in enumerate([demo_file(), *arguments.llama_model]):
                url = stack.enter_context(llama_server(arguments.llama_server, model, arguments.threads, 18080 + number))
                sides[f"llama.cpp {model.stem.rsplit('.')[-1]}"] = Side("http", url)
        for side in sides.values():
            stack.callback(side.close)
        rows: list[dict[str, Any]] = []
        for row in compare(sides, arguments.rounds, arguments):
            print_row(row)
            rows.append(row)
            write(arguments, quiet, rows)


def write(arguments: argparse.Namespace, quiet: float, rows: list[dict[str, Any]]) -> None:
    """The result so far, so that a run that is stopped leaves what it has."""
    document = {
        "command": "python " + " ".join(Path(a).name if "/" in a else a for a in sys.argv),
        "machine": machine_facts(),
        "cpu_percent_before": quiet,
        "work": {"prompt_tokens": arguments.prompt_tokens, "output_tokens": arguments.output_tokens, "greedy": True},
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "rows": rows,
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
