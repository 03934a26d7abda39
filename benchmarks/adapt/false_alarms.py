"""How often drift is reported where there is none, over simulated hours of traffic that does not change.

    python benchmarks/adapt/false_alarms.py --hours 20 --stated 60
    python benchmarks/adapt/false_alarms.py --hours 20

Requests and steps are independent of each other, as the stated rate assumes. Each hour has its own seed, and with it its own
reference. Exit code 1 if there are more alarms than are stated. About 3 s an hour.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np

from setpoint.engine.request import FinishReason, RequestStats
from setpoint.loop.adapt.profile import Asked
from setpoint.loop.adapt.rails import Rails
from setpoint.loop.adapt.watching import DriftWatch
from setpoint.policy.decisions import StepWork

RATES_RPS = (0.5, 1.0, 2.0, 4.0)
WORK, STEP_S, STEPS_PER_S = StepWork(4, 4, 400, 400), 0.02, 3


def hour(stated: float, seed: int) -> Counter[str]:
    """Drifts told in an hour, by quantity."""
    dice = np.random.default_rng(seed)
    look_s, rate_rps = Rails().look_s, RATES_RPS[seed % len(RATES_RPS)]
    watch = DriftWatch(false_alarms_per_hour=stated, look_s=look_s)
    watch.machine([(WORK, STEP_S)] * 64)
    found: Counter[str] = Counter()
    next_s, serial = 0.0, 0
    for now_s in np.arange(look_s, 3600.0, look_s).tolist():
        while next_s < now_s:
            serial += 1
            prompt, output = (max(1, int(each)) for each in dice.lognormal((4.0, 4.5), 0.6))
            watch.asked(Asked(str(serial), next_s, prompt, int(prompt * dice.uniform(0.4, 1.0)) + 1, 512))
            streaming = bool(dice.uniform() < 0.7)
            watch.ended(
                RequestStats(str(serial), next_s, next_s, next_s, next_s, prompt, 0, output, 0, FinishReason.STOP, streaming)
            )
            next_s += float(dice.exponential(1 / rate_rps))
        for start_s in np.linspace(now_s - look_s, now_s, int(STEPS_PER_S * look_s), endpoint=False).tolist():
            watch.step(WORK, start_s, start_s + STEP_S * float(dice.lognormal(0.0, 0.1)))
        found.update(drift.quantity for drift in watch.look(now_s))
    return found


def main() -> None:
    """Count, print, judge."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--hours", type=int, default=20)
    options.add_argument("--stated", type=float, default=Rails().false_alarms_per_hour, help="false alarms an hour")
    given = options.parse_args()
    found = sum((hour(given.stated, seed) for seed in range(given.hours)), Counter[str]())
    print(f"{found.total()} alarms in {given.hours} hours, at most {given.stated * given.hours:g} stated: {dict(found)}")
    sys.exit(found.total() > given.stated * given.hours)


if __name__ == "__main__":
    main()
