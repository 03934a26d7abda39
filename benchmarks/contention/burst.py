"""Bursts: 10 s at five times a steady load of 0.6x the knee, pooled. Are the admitted in time, and how fast is it over?

    python benchmarks/contention/burst.py --knee 30

After each burst the tail of E2E (or of TTFT, where answers are streamed) is taken in windows of 1 s, the same window after
every burst pooled, and compared with the interval of windows of the steady load before the first burst. A window counts as
back when its P99 and that of those after it lie within the steady windows' range. At most 8.5 minutes; quick: one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from driving import CONFIGS, Load, put, serving
from examples import requirement_of
from figures import Rows, client_account, latencies, load_figures, quantile, rows_of
from script import Criterion, Script

from setpoint.statistics import FloatArray

STEADY, FACTOR = 0.6, 5.0
BURSTS, BURST_S, RECOVERY_S, STEADY_S = 20, 10.0, 12.0, 45.0
WINDOW_S = 1.0
BACK_WITHIN_S = 5.0
MOST_LATE = 0.01


def tail_s(rows: Rows) -> float | None:
    """P99 of what the limit is on, over the admitted."""
    ttft, e2e = latencies(rows)
    return quantile(ttft if np.isfinite(ttft).any() else e2e, 0.99)


def steady_interval_s(rows: Rows, per_window: int, seed: int) -> tuple[float, float]:
    """95 % interval of the P99 of ``per_window`` admitted requests of the steady load: what a pooled window would show if
    nothing had happened. By moving blocks of consecutive requests, for neighbours are alike."""
    ttft, e2e = latencies(rows)
    values = ttft if np.isfinite(ttft).any() else e2e
    dice = np.random.default_rng(seed)
    block = max(1, min(8, len(values)))
    found = []
    for _ in range(1000):
        starts = dice.integers(0, max(1, len(values) - block + 1), size=max(1, -(-per_window // block)))
        sample: FloatArray = np.concatenate([values[at : at + block] for at in starts])[:per_window]
        found.append(quantile(sample, 0.99) or 0.0)
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def pooled_windows(rows: Rows, ends_s: list[float], most_s: float) -> list[dict[str, Any]]:
    """The window at each distance from a burst's end, over all bursts."""
    found = []
    for number in range(int(most_s / WINDOW_S)):
        inside = np.zeros(len(rows.good), dtype=np.bool_)
        for end_s in ends_s:
            inside |= (rows.at_s >= end_s + number * WINDOW_S) & (rows.at_s < end_s + (number + 1) * WINDOW_S)
        part = rows.where(inside)
        found.append({"after_s": number * WINDOW_S, "admitted": int(part.admitted.sum()), "p99_s": tail_s(part)})
    return found


def back_after_s(windows: list[dict[str, Any]], high_s: float) -> float | None:
    """End of the first window from which on the tail stays at or below ``high_s``; ``None`` if it never does.

    One window in twenty is above the 95 % interval though nothing is the matter: one after the first that is back is forgiven.
    """
    over = [each["p99_s"] is None or each["p99_s"] > high_s for each in windows]
    for number in range(len(windows)):
        if not over[number] and sum(over[number:]) <= 1:
            return float(windows[number]["after_s"] + WINDOW_S)
    return None


def main() -> None:
    script = Script("burst", __doc__ or "", example="recommendation")
    given = script.options()
    knee_rps = script.knee_rps(given.example)
    bursts, steady_s = (1, 15.0) if given.quick else (BURSTS, STEADY_S)
    load = Load(
        given.example,
        STEADY * knee_rps,
        steady_s,
        warmup_s=8.0,
        seed=given.seed,
        burst_rps=STEADY * FACTOR * knee_rps,
        bursts=bursts,
        burst_s=BURST_S,
        recovery_s=RECOVERY_S,
    )
    script.announce([load.length_s])
    run = serving(given.example, CONFIGS[given.example], lambda target: put(target, load))
    script.done(f"{bursts} bursts")
    rows = rows_of(run)
    slos = requirement_of(given.example).slo
    parts = {name: rows.where(rows.phase == name) for name in ("sustained", "burst", "recovery")}
    ends_s = [span.end_s for span in run.plan.phases if span.phase == "burst"]
    windows = pooled_windows(rows, ends_s, RECOVERY_S)
    low_s, high_s = steady_interval_s(parts["sustained"], max(1, windows[-1]["admitted"]), given.seed)
    seconds = {"sustained": steady_s, "burst": bursts * BURST_S, "recovery": bursts * RECOVERY_S}
    after = rows.where(rows.phase != "warmup")
    late = after.admitted & ~after.good
    criteria = [
        Criterion(
            "late of the admitted, share",
            "at_most",
            MOST_LATE,
            float(late.sum() / after.admitted.sum()) if after.admitted.any() else None,
            int(after.admitted.sum()),
        ),
        Criterion("P99 back in its steady interval after, s", "at_most", BACK_WITHIN_S, back_after_s(windows, high_s), bursts),
    ]
    facts = {
        "example": given.example,
        "knee_rps": knee_rps,
        "bursts": bursts,
        "steady_interval_s": [low_s, high_s],
        "windows": windows,
        "phases": {name: load_figures(part, seconds[name], slos) for name, part in parts.items()},
        "client": client_account(run),
    }
    script.keep(criteria, facts)


if __name__ == "__main__":
    main()
