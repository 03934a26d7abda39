"""Batch work beside interactive requests on one server: is the SLO kept, and how much of what is left over does batch take?

    python benchmarks/offline/beside.py src/setpoint/examples/recommendation.yaml --rate 7/s --duration 60s

Serves the requirement, then: the interactive load alone, a batch alone, both. "Left over" is what the batch alone gets per
second less what the interactive load gets, in tokens of prompts and answers together; the batch's share of it is what it gets
beside the load. Give as ``--rate`` 0.6 of the knee. The first 5 s of the measurement warm up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from setpoint.loop.configs import default_config, read_config
from setpoint.loop.own_server import on_own_server
from setpoint.loop.shorthand import seconds
from setpoint.measure.target import Target
from setpoint.requirement import load_requirement

WORDS = ("river", "stone", "market", "winter", "lamp", "garden", "paper", "window", "salt", "bridge", "summer", "engine")
REQUESTS = 20_000


def write_batch(path: Path, seed: int) -> None:
    """More requests than can be done: 64 to 192 words, 32 to 96 tokens of answer."""
    source = random.Random(seed)
    with path.open("w") as stream:
        for number in range(REQUESTS):
            prompt = " ".join(source.choices(WORDS, k=source.randint(64, 192)))
            body = {"prompt": prompt, "max_tokens": source.randint(32, 96), "ignore_eos": True}
            line = {"custom_id": f"{number}", "method": "POST", "url": "/v1/completions", "body": body}
            stream.write(json.dumps(line) + "\n")


def setpoint(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "setpoint", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def batch(url: str, folder: Path, name: str, seed: int) -> subprocess.Popen[bytes]:
    write_batch(folder / f"{name}.jsonl", seed)
    return setpoint("batch", str(folder / f"{name}.jsonl"), str(folder / f"{name}.out"), "--server", url, "--json")


def interrupted(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The summary of a batch that is stopped now."""
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    summary: dict[str, Any] = json.loads(out)
    summary["tokens_per_s"] = (summary["prompt_tokens"] + summary["output_tokens"]) / summary["duration_s"]
    return summary


def interactive(url: str, requirement: str, rate: str, duration: str, seed: int) -> dict[str, Any]:
    arguments = ["--requirement", requirement, "--rate", rate, "--duration", duration, "--seed", str(seed), "--json"]
    out, _ = setpoint("measure", url, *arguments).communicate()
    (candidate,) = json.loads(out)["candidates"]
    figures = candidate["measured"]["sustained"]
    checks = {f"{c['metric']} {c['statistic']}": [c["value"], c["limit"], c["verdict"]] for c in candidate["slo"]["checks"]}
    kept = {name: figures[name] for name in ("offered", "ok", "late", "shed", "failed", "goodput_fraction")}
    tokens = figures["output_tokens_per_s"] + figures["prompt_tokens_per_s"]
    return {"verdict": candidate["slo"]["verdict"], "checks": checks, **kept, "tokens_per_s": tokens}


def both(url: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    ask = (url, arguments.requirement, arguments.rate, arguments.duration, arguments.seed)
    alone = interactive(*ask)
    running = batch(url, folder, "alone", arguments.seed)
    time.sleep(seconds("duration", arguments.duration))
    batch_alone = interrupted(running)
    time.sleep(11)  # What the server remembers of interactive requests is to be forgotten.
    running = batch(url, folder, "beside", arguments.seed + 1)
    beside = interactive(*ask)
    batch_beside = interrupted(running)
    left_over = batch_alone["tokens_per_s"] - alone["tokens_per_s"]
    return {
        "interactive_alone": alone,
        "interactive_beside_batch": beside,
        "batch_alone": batch_alone,
        "batch_beside_interactive": batch_beside,
        "left_over_tokens_per_s": left_over,
        "share_of_left_over": batch_beside["tokens_per_s"] / left_over if left_over > 0 else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirement")
    parser.add_argument("--rate", required=True)
    parser.add_argument("--duration", default="60s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config")
    arguments = parser.parse_args()
    needed = load_requirement(Path(arguments.requirement))
    config = read_config(arguments.config) if arguments.config else default_config(needed)

    async def work(target: Target) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return await asyncio.to_thread(both, target.url, arguments, Path(folder))

    found = asyncio.run(on_own_server(arguments.requirement, config, work, log=None))
    print(json.dumps({"config": config.model_dump(mode="json"), "rate": arguments.rate, **found}, indent=1))


if __name__ == "__main__":
    main()
