"""A load that goes from 1 to 16 concurrent requests and back: adaptive draft lengths beside every fixed one, alternating.

    python benchmarks/speculation/load_shift.py --output benchmarks/results/speculation_load_shift.json

The figure is the total time for the same requests, half of them predictable (forms and code), half not (questions and stories).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from sides import PLAIN, Bench, Job, rounds_of, speculating, wait_until_quiet, write

from setpoint.engine.models import DEMO_MODEL
from setpoint.policy.configuration import SpeculationMode
from setpoint.workload.kinds import KINDS

# (concurrent requests, requests)
SHIFT = ((1, 4), (4, 8), (16, 32), (4, 8), (1, 4))
FIXED = (0, 1, 2, 4, 8)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--draft-model", help="a draft model instead of prompt lookup")
    parser.add_argument("--fixed", nargs="*", type=int, default=list(FIXED))
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def jobs_of(bench: Bench, number: int) -> list[Job]:
    """The requests of one round: kinds in turn, the concurrency of ``SHIFT``."""
    total = sum(count for _, count in SHIFT)
    each = -(-total // len(KINDS))
    by_kind = [bench.requests(kind, each, first=number * each) for kind in KINDS]
    mixed = [request for group in zip(*by_kind, strict=True) for request in group][:total]
    allowed = [concurrent for concurrent, count in SHIFT for _ in range(count)]
    return [Job(request, concurrent - 1) for request, concurrent in zip(mixed, allowed, strict=True)]


def main() -> None:
    arguments = parse()
    quiet = wait_until_quiet()
    bench = Bench(arguments.model)
    mode = SpeculationMode.PROMPT_LOOKUP if arguments.draft_model is None else SpeculationMode.DRAFT
    sides = [bench.side("adaptive", speculating(mode, draft_model=arguments.draft_model))]
    for length in arguments.fixed:
        config = speculating(mode, fixed=length, draft_model=arguments.draft_model) if length else PLAIN
        sides.append(bench.side(f"fixed-{length}", config))
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for number, turn in enumerate(rounds_of(sides, arguments.rounds + 1)):
        for side in turn:
            timed = bench.run(side, jobs_of(bench, number))
            if number:
                seconds[side.name].append(timed.seconds)
        if number:
            print("  ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items()), flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    # Rounds are compared pairwise: the machine's speed drifts from round to round and is the same within one.
    against = {
        name: statistics.median(a / b for a, b in zip(seconds["adaptive"], values, strict=True))
        for name, values in seconds.items()
        if name != "adaptive"
    }
    result = {"drafter": mode.value, "shift": SHIFT, "seconds": seconds, "median_s": medians, "adaptive_over": against}
    write(arguments.output, "speculation_load_shift", quiet, arguments, result)
    print("adaptive over the others: " + "  ".join(f"{name} {ratio:.3f}" for name, ratio in against.items()))


if __name__ == "__main__":
    main()
