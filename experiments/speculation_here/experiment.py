"""What guessing ahead gains for each kind of work and batch, from acceptance and costs measured on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from setpoint.report.charts.picture import Series, Strip

KINDS = ("template", "code", "questions", "story")
BATCHES = (1, 2, 4, 8, 16)
QUICK_KINDS, QUICK_BATCHES = ("template", "story"), (1, 16)
LONGEST_S = 280


def run(size: Size, seed: int) -> Outcome:
    """The project's own profiler; prompts and sampling have their own fixed seeds."""
    kinds, batches = (KINDS, BATCHES) if size is Size.FULL else (QUICK_KINDS, QUICK_BATCHES)
    command = [sys.executable, "-P", "-m", "setpoint", "profile-speculation", "smollm2-135m", "--json"]
    command += ["--batches", ",".join(map(str, batches))]
    for kind in kinds:
        command += ["--kind", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    if done.returncode:
        raise SystemExit(f"profile-speculation ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    found: list[dict[str, Any]] = json.loads(done.stdout)["acceptances"]
    rows = [
        (
            each["name"],
            f"{gain['requests']}",
            f"{each['survival'][0]:.0%}" if each["survival"] else "-",
            f"{each['drafted_share']:.0%}",
            f"{gain['best_draft_tokens']}",
            f"{gain['best_gain']:.2f}x",
            f"{gain['longest_gain']:.2f}x",
        )
        for each in found
        for gain in each["gains"]
    ]
    columns = (
        "work",
        "batch",
        "first guess stands",
        "steps with a guess",
        "best length",
        "gain at it",
        "gain of the longest always",
    )
    facts = {"model": "smollm2-135m", "drafter": "prompt-lookup", "drafts": {each["name"]: each["drafts"] for each in found}}
    return Outcome(expected(found), columns, rows, picture(found), facts)


def gain_of(found: list[dict[str, Any]], batch: int, pick: str) -> list[float]:
    """Of each kind of work at a batch."""
    return [gain[pick] for each in found for gain in each["gains"] if gain["requests"] == batch]


def expected(found: list[dict[str, Any]]) -> list[Expected]:
    """It pays for some work alone, not for all, and always guessing costs in a crowd."""
    alone, crowd = gain_of(found, 1, "best_gain"), gain_of(found, 16, "longest_gain")
    return [
        Expected("best gain of a kind of work at batch 1", max(alone), "at least", 1.2),
        Expected("gain of the kind that gains least at batch 1, of the best", min(alone) / max(alone), "at most", 0.85),
        Expected("always guessing the longest at batch 16, for the kind that fares worst", min(crowd), "at most", 0.95),
    ]


def picture(found: list[dict[str, Any]]) -> Picture:
    """The longest guess always, by kind and batch."""

    def lines(pick: str) -> list[Series]:
        return [
            Series(
                each["name"],
                np.array([gain["requests"] for gain in each["gains"]], dtype=np.float64),
                np.array([gain[pick] for gain in each["gains"]], dtype=np.float64),
            )
            for each in found
        ]

    return Picture(
        "What guessing ahead gains, SmolLM2-135M (measured costs and acceptance)",
        "requests in a step",
        [Strip("gain at the best length", lines("best_gain")), Strip("gain of the longest, always", lines("longest_gain"))],
        log_x=True,
    )


EXPERIMENT = Experiment(
    name="speculation_here",
    claim="Speculation's gains are uneven: by work, and by how many share a step",
    kind=Kind.MEASURED,
    where="SmolLM2-135M on setpoint's own engine, guesses by prompt lookup.",
    method="`setpoint profile-speculation` measures which guesses survive for four kinds of work, and what steps of "
    "each batch and length "
    "of guess take; the gain is reckoned from both.",
    shape="For one kind of work guessing gains at least 20 % at batch 1, for another at least 15 % less than that; and "
    "guessing the "
    "longest always costs at least 5 % at batch 16 for some work.",
    reading="Gains on the wall clock, with the controller choosing, are measured by `benchmarks/speculation/gain.py`.",
    run=run,
)
