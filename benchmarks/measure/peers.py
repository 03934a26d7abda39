"""setpoint measure, GuideLLM, AIPerf and vLLM's client on the same work against the same mock server, alternating.

    python benchmarks/measure/peers.py --venvs DIR --install      # about 10 GB, from the package index
    python benchmarks/measure/peers.py --venvs DIR --output benchmarks/results/measure_peers.json

Each tool is started by its own command line with its own defaults, as a user would. For each it says: what it reports
beside what was true (the mock's log of its sends), the CPU-seconds of its processes (children included; from its first
request on, so without start-up), its exit code when a quarter of the requests fail, and what it makes of a server that
freezes for 3 s behind a client limit of 8. A tool that is not installed is shown as not run.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from load import head, nearest_rank, write
from peer_tools import TOOLS, Reported, Tool, Work, write_tokenizer

from setpoint.measure.mock import Behaviour, MockLog, MockOptions, MockProcess

TOKEN_RATES = (5_000, 10_000, 20_000)
TOKENS, TTFT_S, ITL_S = 128, 0.05, 0.02
FROZEN_LIMIT, FROZEN_RATE_RPS, FROZEN_TOKENS, FROZEN_ITL_S, FROZEN_S = 8, 20.0, 10, 0.01, (3.0, 6.0)
TTFT_LIMIT_S = 0.5
TIMEOUT_S, POLL_S = 420.0, 0.1
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
# AIPerf resolves a local tokenizer only while it may ask the hub.
ONLINE_TOOLS = ("aiperf",)


@dataclass(frozen=True)
class Case:
    """One kind of work and the server it is done against."""

    name: str
    rate_rps: float
    requests: int
    tokens: int
    mock: MockOptions
    constant: bool = False
    max_in_flight: int | None = None


def cases(token_rates: list[int], duration_s: float) -> list[Case]:
    """Token rates, then a quarter of failures of two kinds, then the freeze."""
    streaming = MockOptions(ttft_s=TTFT_S, ttft_cv=0.3, itl_s=ITL_S, itl_cv=0.2)
    found = [
        Case(f"{rate} tokens/s", rate / TOKENS, round(duration_s * rate / TOKENS), TOKENS, streaming) for rate in token_rates
    ]
    for behaviour in (Behaviour.HTTP_500, Behaviour.CUT_CLEANLY):
        failing = MockOptions(behaviours=(Behaviour.PLAIN,) * 3 + (behaviour,))
        found.append(Case(f"a quarter {behaviour}", 20.0, 200, 16, failing))
    frozen = MockOptions(ttft_s=TTFT_S, itl_s=FROZEN_ITL_S, frozen_s=FROZEN_S)
    count = round(12 * FROZEN_RATE_RPS)
    found.append(Case("frozen 3 s", FROZEN_RATE_RPS, count, FROZEN_TOKENS, frozen, constant=True, max_in_flight=FROZEN_LIMIT))
    return found


@dataclass(frozen=True)
class Ran:
    """One process of a tool. ``samples``: (``time.monotonic``, CPU-seconds of it and its children until then)."""

    code: int | None
    output: str
    cpu_s: float
    samples: list[tuple[float, float]]

    def cpu_since_s(self, instant_s: float) -> float:
        """CPU-seconds from ``instant_s`` to the end."""
        return self.cpu_s - max((cpu_s for time_s, cpu_s in self.samples if time_s <= instant_s), default=0.0)


def watched(command: list[str], environment: dict[str, str]) -> Ran:
    """Run a command and add up the CPU time of its whole tree; ``code`` is ``None`` if it took too long."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment)
        seen: dict[tuple[int, float], float] = {}
        samples: list[tuple[float, float]] = []
        end_s, code = time.monotonic() + TIMEOUT_S, None
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0 and time.monotonic() < end_s:
            for member in tree(process.pid):
                try:
                    times = member.cpu_times()
                    seen[member.pid, member.create_time()] = times.user + times.system
                except psutil.Error:
                    continue
            samples.append((time.monotonic(), sum(seen.values())))
            time.sleep(POLL_S)
        if ended[0] == 0:
            for member in reversed(tree(process.pid)):
                member.kill()
            ended = os.wait4(process.pid, 0)
        else:
            code = os.waitstatus_to_exitcode(ended[1])
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        output.seek(0)
        used = ended[2].ru_utime + ended[2].ru_stime
        return Ran(code, output.read()[-2000:], max(used, samples[-1][1] if samples else 0.0), samples)


def tree(pid: int) -> list[psutil.Process]:
    """The process and its children, as far as they are still there."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def run_case(tool: Tool, case: Case, venvs: Path, repeat: int) -> dict[str, Any]:
    """One tool on one case, on a fresh mock."""
    with tempfile.TemporaryDirectory() as scratch, MockProcess(case.mock) as mock:
        folder, tokenizer = Path(scratch) / "result", Path(scratch) / "tokenizer"
        folder.mkdir()
        write_tokenizer(tokenizer)
        work = Work(
            url=mock.url,
            rate_rps=case.rate_rps,
            requests=case.requests,
            tokens=case.tokens,
            constant=case.constant,
            max_in_flight=case.max_in_flight,
            seed=repeat + 1,
            folder=folder,
            tokenizer=tokenizer,
        )
        ran = watched(tool.command(tool.python(venvs), work), {} if tool.name in ONLINE_TOOLS else OFFLINE)
        log = mock.log()
        row: dict[str, Any] = {"tool": tool.name, "case": case.name, "repeat": repeat, "exit_code": ran.code}
        try:
            reported = tool.read(work)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as wrong:
            return row | {"not_run": f"no result: {type(wrong).__name__}: {wrong}", "output": ran.output[-500:]}
    return row | figures(case, reported, ran, log)


def figures(case: Case, reported: Reported, ran: Ran, log: MockLog) -> dict[str, Any]:
    """What was reported beside what was true, and what it cost."""
    requests = log.requests
    first_s = min((request.received_s for request in requests), default=0.0)
    tokens = sum(len(request.token_times_s) for request in requests)
    cpu_s = ran.cpu_since_s(first_s)
    served = [request for request in requests if len(request.token_times_s) == request.max_tokens]
    ttft_ms = [1e3 * (request.token_times_s[0] - request.received_s) for request in served]
    gaps_ms = [1e3 * np.diff(request.token_times_s) for request in served]
    sent_s = [request.received_s for request in requests]
    found = {
        "offered": case.requests,
        "received": len(requests),
        "served": len(served),
        "received_per_s": (len(sent_s) - 1) / (max(sent_s) - min(sent_s)) if len(sent_s) > 1 else 0.0,
        "planned_per_s": case.rate_rps,
        "reported_succeeded": reported.succeeded,
        "reported_failed": reported.failed,
        "ttft_p50_ms": reported.ttft_p50_ms,
        "ttft_p90_ms": reported.ttft_p90_ms,
        "ttft_p99_ms": reported.ttft_p99_ms,
        "itl_p99_ms": reported.itl_p99_ms,
        "true_ttft_p50_ms": nearest_rank(ttft_ms, 50),
        "true_ttft_p90_ms": nearest_rank(ttft_ms, 90),
        "true_ttft_p99_ms": nearest_rank(ttft_ms, 99),
        "true_itl_p99_ms": nearest_rank(np.concatenate(gaps_ms), 99) if gaps_ms else None,
        "mock_lag_p99_ms": 1e3 * (log.tick_lag_p99_s or 0.0),
        "cpu_s": cpu_s,
        "cpu_s_with_start": ran.cpu_s,
        "tokens_per_cpu_s": tokens / cpu_s if cpu_s > 0 else None,
    }
    if case.max_in_flight is not None and log.freezes_s:
        found |= frozen_figures(case, reported, log, first_s)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}


def frozen_figures(case: Case, reported: Reported, log: MockLog, first_s: float) -> dict[str, float]:
    """The truth of the freeze, counted from when a request was due: a first-come queue whose clock stands still meanwhile.

    Arrivals are evenly spaced from the first. Attainment is of the requests offered.
    """
    from_s, to_s = log.freezes_s[0]
    away_s = to_s - from_s
    places = [-np.inf] * (case.max_in_flight or 1)
    true_s = []
    for number in range(case.requests):
        intended_s = first_s + number / case.rate_rps
        served_s = intended_s if intended_s < from_s else max(from_s, intended_s - away_s)
        begin_s = max(served_s, heapq.heappop(places))
        heapq.heappush(places, begin_s + TTFT_S + (case.tokens - 1) * FROZEN_ITL_S)
        at_s = begin_s + TTFT_S
        true_s.append((at_s if at_s < from_s else at_s + away_s) - intended_s)
    return {
        **{f"true_ttft_p{percent}_ms": 1e3 * nearest_rank(true_s, percent) for percent in (50, 90, 99)},
        "true_attainment": float(np.mean(np.array(true_s) <= TTFT_LIMIT_S)),
        "attainment": sum(value <= TTFT_LIMIT_S for value in reported.each_ttft_s) / case.requests,
    }


COLUMNS = {
    "ttft_p50_ms": "TTFT P50",
    "true_ttft_p50_ms": "true",
    "ttft_p99_ms": "TTFT P99",
    "true_ttft_p99_ms": "true ",
    "itl_p99_ms": "ITL P99",
    "true_itl_p99_ms": "true  ",
    "received_per_s": "req/s",
    "planned_per_s": "asked",
    "tokens_per_cpu_s": "tokens/CPU-s",
    "exit_code": "exit",
    "reported_failed": "failed",
    "ttft_p90_ms": "TTFT P90",
    "true_ttft_p90_ms": "true   ",
    "attainment": "attained",
    "true_attainment": "true    ",
}


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the repeats, one entry for each case and tool."""
    found = []
    for case, tool in dict.fromkeys((row["case"], row["tool"]) for row in rows):
        group = [row for row in rows if (row["case"], row["tool"]) == (case, tool)]
        entry: dict[str, Any] = {"case": case, "tool": tool}
        for name in COLUMNS:
            values = [row[name] for row in group if row.get(name) is not None]
            if values:
                entry[name] = statistics.median(values)
        reasons = [row["not_run"] for row in group if "not_run" in row]
        found.append(entry | ({"not_run": reasons[0]} if reasons else {}))
    return found


def show(entries: list[dict[str, Any]]) -> None:
    """The table as text."""
    for entry in entries:
        cells = [f"{words.strip()} {entry[name]:g}" for name, words in COLUMNS.items() if name in entry]
        print(f"{entry['case']:22} {entry['tool']:9} {'  '.join(cells)}  {entry.get('not_run', '')}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, required=True, help="a virtual environment of each peer lies, or is made, here")
    parser.add_argument("--install", action="store_true", help="install what is missing there, and stop")
    parser.add_argument("--tools", nargs="*", default=[tool.name for tool in TOOLS])
    parser.add_argument("--token-rates", type=int, nargs="*", default=TOKEN_RATES)
    parser.add_argument("--only", default="", help="only cases whose name holds this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=15.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    tools = [tool for tool in TOOLS if tool.name in arguments.tools]
    if arguments.install:
        for tool in tools:
            if tool.version(arguments.venvs) is None:
                tool.install(arguments.venvs)
        return
    versions = {tool.name: tool.version(arguments.venvs) for tool in tools}
    rows: list[dict[str, Any]] = []
    document = head(arguments.repeats) | {"tools": versions, "itl_is": {tool.name: tool.itl_is for tool in tools}}
    for repeat in range(arguments.repeats):
        for case in cases(list(arguments.token_rates), arguments.duration_s):
            for tool in tools if arguments.only in case.name else ():
                missing = {"tool": tool.name, "case": case.name, "repeat": repeat, "not_run": "not installed"}
                rows.append(run_case(tool, case, arguments.venvs, repeat) if versions[tool.name] else missing)
                print(json.dumps(rows[-1]), flush=True)
                write(document | {"rows": rows, "table": table(rows)}, arguments.output)
    show(table(rows))


if __name__ == "__main__":
    main()
