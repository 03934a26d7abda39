"""Which rows of a table a calibration is fitted on: at most a share of each group, spread over its settings, by a seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import log2

import numpy as np

from setpoint.hardware.measurements import Measurement, Setting

SHARE = 0.2
# Of those furthest from the rows chosen so far, which share is drawn from.
LOOSENESS = 0.1
# How much a doubling (or, of precision and version, a difference) counts in the distance between two settings.
WEIGHTS = {
    "concurrency": 0.5,
    "prompt": 0.67,
    "output": 0.67,
    "tensor": 0.8,
    "ranks": 1.0,
    "experts": 0.7,
    "precision": 2.5,
    "version": 1.5,
}


def chosen_rows(measurements: Sequence[Measurement], *, share: float = SHARE, seed: int = 0) -> list[int]:
    """Places of the rows to fit on, in order: of each group at most ``share`` of all its rows, refused ones counted.

    Rows of one group with equal measurements are one measurement listed more than once; they are chosen together and all count.
    """
    random = np.random.default_rng(seed)
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(measurements):
        groups[row.group].append(place)
    chosen: list[int] = []
    for _, places in sorted(groups.items()):
        usable: dict[tuple[float, float], list[int]] = defaultdict(list)
        for place in places:
            row = measurements[place]
            if row.setting is not None and row.ttft_s and row.tpot_s:
                usable[row.ttft_s, row.tpot_s].append(place)
        chosen += _spread(measurements, list(usable.values()), int(share * len(places) + 1e-9), random)
    return sorted(chosen)


def _spread(measurements: Sequence[Measurement], sets: list[list[int]], left: int, random: np.random.Generator) -> list[int]:
    """Sets of equal rows, ``left`` rows at most: one of each precision and version, then those furthest from all before."""
    if not sets or left < 1:
        return []
    settings = [setting for each in sets if (setting := measurements[each[0]].setting) is not None]
    points = _points(settings)
    distance = np.full(len(sets), np.inf)
    kinds = [(each.deployment.weight_precision, each.version) for each in settings]
    seen: set[tuple[str, str]] = set()
    taken: list[int] = []
    candidates = [number for number, each in enumerate(sets) if len(each) <= left]
    while candidates:
        fresh = [number for number in candidates if kinds[number] not in seen]
        furthest = sorted(candidates, key=lambda number: -distance[number])
        pick = int(random.choice(fresh or furthest[: 1 + int((len(furthest) - 1) * LOOSENESS)]))
        seen.add(kinds[pick])
        taken += sets[pick]
        left -= len(sets[pick])
        distance = np.minimum(distance, np.linalg.norm(points - points[pick], axis=1))
        distance[pick] = -1.0
        candidates = [number for number, each in enumerate(sets) if distance[number] > 0 and len(each) <= left]
    return taken


def _points(settings: Sequence[Setting]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    names: dict[str, int] = {}
    rows = []
    for each in settings:
        deployment = each.deployment
        rows.append(
            [
                WEIGHTS["concurrency"] * log2(each.concurrency),
                WEIGHTS["prompt"] * log2(each.prompt_tokens),
                WEIGHTS["output"] * log2(each.output_tokens),
                WEIGHTS["tensor"] * log2(deployment.tensor_parallel),
                WEIGHTS["ranks"] * log2(deployment.data_parallel),
                WEIGHTS["experts"] * log2(deployment.expert_parallel),
                WEIGHTS["precision"] * names.setdefault(deployment.weight_precision, len(names)),
                WEIGHTS["version"] * names.setdefault(f"version {each.version}", len(names)),
            ]
        )
    return np.array(rows)
