"""``setpoint tune`` from a wrong idea of the machine: a kept calibration with every coefficient off by a factor.

    .venv/bin/python benchmarks/loop/wrong_start.py REQUIREMENT.yaml --output runs/wrong --factor 2 [--duration 30s]

Writes ``OUTPUT-wrong.json``: what is believed of this machine (``--of``: what that run taught), as a calibration of steps with
every number times the factor and an error of 10 % that it does not keep; then runs ``setpoint tune --calibration`` on it.
Compare with a run without.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from setpoint.hardware.calibrations import SCHEMA
from setpoint.hardware.step_fit import KNOTS
from setpoint.loop.tuning.prior import prior_machine
from setpoint.requirement import load_requirement

STATED_ERROR = 0.1


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Tune from a wrong calibration.")
    parser.add_argument("requirement", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="run folder")
    parser.add_argument("--factor", type=float, required=True, help="every coefficient times this")
    parser.add_argument("--of", type=Path, default=None, help="run folder whose steps are the right calibration")
    parser.add_argument("--duration", default=None, help="length of the sustained phase, as of setpoint tune")
    told = parser.parse_args()
    file = told.output.with_name(f"{told.output.name}-wrong.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(wrong(told.requirement, told.of, told.factor), indent=1) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "setpoint", "tune", str(told.requirement), "--output", str(told.output)]
    command += ["--calibration", str(file), *(["--duration", told.duration] if told.duration else [])]
    return subprocess.run(command, check=False).returncode


def wrong(requirement: Path, of: Path | None, factor: float) -> dict[str, object]:
    """A calibration file's content."""
    believed = prior_machine(load_requirement(requirement), of, print).coefficients
    fit = {
        "step_s": believed["base_s"] * factor,
        "prompt_s": 0.0,
        "token_s": [believed["token_s"] * factor] * len(KNOTS),
        "sequence_s": believed["sequence_s"] * factor,
        "kv_token_s": believed["kv_token_s"] * factor,
        "product_s": believed["product_s"] * factor,
    }
    return {
        "schema": SCHEMA,
        "kind": "steps",
        "name": f"wrong-by-{factor:g}",
        "note": "made wrong on purpose",
        "accelerator": "this-machine",
        "engine": "setpoint",
        "model": "any",
        "weight_precision": "any",
        "fit": fit,
        "relative_error": STATED_ERROR,
    }


if __name__ == "__main__":
    sys.exit(main())
