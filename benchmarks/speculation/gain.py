"""What speculation gains and costs, by kind of work and batch: wall clock with and without, alternating in one session.

    python benchmarks/speculation/gain.py --output benchmarks/results/speculation_gain.json
    python benchmarks/speculation/gain.py --draft-model draft.gguf --kinds questions --batches 1
    python benchmarks/speculation/gain.py --kinds questions --batches 8 --requests 96

One more side is without speculation again: what it differs by is noise, and is shown beside every gain.

Both sides answer the same requests. At the engine's own precision the CPU's activations are rounded with the shape of the
batch, so that even without drafts an answer may change with its company; ``--precision f32`` has no such rounding, and there
every answer must be identical. Fixed draft lengths (``--fixed 1 2 4``) are compared beside what the controller chooses.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sides import PLAIN, Bench, Job, Side, Timed, alike, median_ratio, rounds_of, speculating, wait_until_quiet, write

from setpoint.engine.models import DEMO_MODEL
from setpoint.policy.configuration import SpeculationMode
from setpoint.workload.kinds import KINDS, WorkloadKind

LEAST_REQUESTS = 3
AGAIN = "off again"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--draft-model", help="compare a draft model instead of prompt lookup")
    parser.add_argument("--kinds", nargs="+", type=WorkloadKind, default=list(KINDS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--fixed", nargs="*", type=int, default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, help=f"of every cell in a round; default: {LEAST_REQUESTS} times its batch")
    parser.add_argument("--precision")
    return parser.parse_args()


def measure(bench: Bench, sides: list[Side], kind: WorkloadKind, batch: int, rounds: int, count: int) -> dict[str, Any]:
    """One row: the median speed-up of every side over the first."""
    # Unseen requests in every round: what is learned of a workload counts, what is learned of a request does not.
    runs: dict[str, list[Timed]] = {side.name: [] for side in sides}
    for number, turn in enumerate(rounds_of(sides, rounds + 1)):
        jobs = [Job(request, batch - 1) for request in bench.requests(kind, count, first=number * count)]
        for side in turn:
            timed = bench.run(side, jobs)
            if number:  # the first round is for getting warm
                runs[side.name].append(timed)
    return {"kind": kind.value, "batch": batch, **row_of(runs)}


def row_of(runs: Mapping[str, Sequence[Timed]]) -> dict[str, Any]:
    """The figures of every side over the first, from its runs, one a round."""
    base, *others = runs
    off = runs[base]
    row: dict[str, Any] = {
        "tokens_per_s": statistics.median(run.tokens_per_s for run in off),
        "steps": sum(run.steps for run in off),
    }
    for name in others:
        own = runs[name]
        drafts, accepted = sum(run.drafts for run in own), sum(run.accepted for run in own)
        steps, drafted_steps = sum(run.steps for run in own), sum(run.drafted_steps for run in own)
        seconds = [run.seconds for run in own]
        row[name] = {
            "speed_up": median_ratio([run.seconds for run in off], seconds),
            "rounds": [a.seconds / b for a, b in zip(off, seconds, strict=True)],
            "identical_answers": sum(alike(a, b) for a, b in zip(off, own, strict=True)),
            "answers": sum(len(run.answers) for run in own),
            "acceptance_length": 1 + accepted / drafts if drafts else None,
            "drafted": sum(run.drafted for run in own),
            "accepted": accepted,
            "draft_share_of_time": sum(run.draft_seconds for run in own) / sum(seconds),
            "steps_with_drafts": drafted_steps,
            "steps_without": steps - drafted_steps,
        }
    return row


def told(row: Mapping[str, Any], name: str) -> str:
    """A side's speed-up with its lowest and highest round."""
    side = row[name]
    return f"{name} {side['speed_up']:.2f}x ({min(side['rounds']):.2f}-{max(side['rounds']):.2f})"


def main() -> None:
    arguments = parse()
    quiet = wait_until_quiet()
    bench = Bench(arguments.model, precision=arguments.precision)
    mode = SpeculationMode.PROMPT_LOOKUP if arguments.draft_model is None else SpeculationMode.DRAFT
    sides = [bench.side("off", PLAIN), bench.side("adaptive", speculating(mode, draft_model=arguments.draft_model))]
    sides += [
        bench.side(f"fixed-{length}", speculating(mode, fixed=length, draft_model=arguments.draft_model))
        for length in arguments.fixed
    ]
    sides.append(bench.side(AGAIN, PLAIN))
    rows = []
    for kind in arguments.kinds:
        for batch in arguments.batches:
            count = arguments.requests or LEAST_REQUESTS * batch
            row = measure(bench, sides, kind, batch, arguments.rounds, count)
            rows.append(row)
            gains = "  ".join(told(row, side.name) for side in sides[1:])
            adaptive = row["adaptive"]
            with_drafts, without = adaptive["steps_with_drafts"], adaptive["steps_without"]
            print(
                f"{kind.value:10} batch {batch:2}: {gains}  acceptance length {adaptive['acceptance_length'] or 1.0:.2f},"
                f" steps {with_drafts} with drafts and {without} without,"
                f" {adaptive['identical_answers']}/{adaptive['answers']} alike",
                flush=True,
            )
            write(arguments.output, "speculation_gain", quiet, arguments, {"drafter": mode.value, "rows": rows})


if __name__ == "__main__":
    main()
