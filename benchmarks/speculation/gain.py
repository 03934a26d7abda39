"""What speculation gains and costs, by kind of work and batch: wall clock with and without, alternating in one session.

    python benchmarks/speculation/gain.py --output benchmarks/results/speculation_gain.json
    python benchmarks/speculation/gain.py --draft-model draft.gguf --kinds questions --batches 1

Both sides answer the same requests. At the engine's own precision the CPU's activations are rounded with the shape of the
batch, so that even without drafts an answer may change with its company; ``--precision f32`` has no such rounding, and there
every answer must be identical. Fixed draft lengths (``--fixed 1 2 4``) are compared beside what the controller chooses.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sides import PLAIN, Bench, Job, Side, Timed, alike, median_ratio, rounds_of, speculating, wait_until_quiet, write

from setpoint.engine.models import DEMO_MODEL
from setpoint.policy.configuration import SpeculationMode
from setpoint.workload.kinds import KINDS, WorkloadKind

LEAST_REQUESTS = 3


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--draft-model", help="compare a draft model instead of prompt lookup")
    parser.add_argument("--kinds", nargs="+", type=WorkloadKind, default=list(KINDS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--fixed", nargs="*", type=int, default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision")
    return parser.parse_args()


def measure(bench: Bench, sides: list[Side], kind: WorkloadKind, batch: int, rounds: int) -> dict[str, Any]:
    """One row: the median speed-up of every side over the first."""
    # Unseen requests in every round: what is learned of a workload counts, what is learned of a request does not.
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    runs: dict[str, list[Timed]] = {side.name: [] for side in sides}
    count = LEAST_REQUESTS * batch
    for number, turn in enumerate(rounds_of(sides, rounds + 1)):
        jobs = [Job(request, batch - 1) for request in bench.requests(kind, count, first=number * count)]
        for side in turn:
            timed = bench.run(side, jobs)
            if number:  # the first round is for getting warm
                seconds[side.name].append(timed.seconds)
                runs[side.name].append(timed)
    base = sides[0].name
    row: dict[str, Any] = {"kind": kind.value, "batch": batch, "tokens_per_s": runs[base][0].tokens / min(seconds[base])}
    for side in sides[1:]:
        own = runs[side.name]
        drafts, accepted = sum(run.drafts for run in own), sum(run.accepted for run in own)
        row[side.name] = {
            "speed_up": median_ratio(seconds[base], seconds[side.name]),
            "rounds": [a / b for a, b in zip(seconds[base], seconds[side.name], strict=True)],
            "identical_answers": sum(alike(a, b) for a, b in zip(runs[base], own, strict=True)),
            "answers": count * rounds,
            "acceptance_length": 1 + accepted / drafts if drafts else None,
            "drafted": sum(run.drafted for run in own),
            "accepted": accepted,
            "draft_share_of_time": sum(run.draft_seconds for run in own) / sum(seconds[side.name]),
        }
    return row


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
    rows = []
    for kind in arguments.kinds:
        for batch in arguments.batches:
            row = measure(bench, sides, kind, batch, arguments.rounds)
            rows.append(row)
            told = "  ".join(f"{side.name} {row[side.name]['speed_up']:.2f}x" for side in sides[1:])
            alike_now, count = row["adaptive"]["identical_answers"], row["adaptive"]["answers"]
            length = row["adaptive"]["acceptance_length"] or 1.0
            print(
                f"{kind.value:10} batch {batch:2}: {told}  acceptance length {length:.2f}, {alike_now}/{count} alike",
                flush=True,
            )
            write(arguments.output, "speculation_gain", quiet, arguments, {"drafter": mode.value, "rows": rows})


if __name__ == "__main__":
    main()
