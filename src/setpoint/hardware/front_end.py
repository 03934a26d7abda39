"""What a first token takes beside the engine's steps: network, tokenizing, the hand-over to the engine and back.

Tables of benchmarks give mean times to the first token, and what no step accounts for in them is a coefficient of its own,
``front_s`` of ``closed_loop.Harness`` (with its factor ``first``). It shows where few clients ask. When it is wrong: a router
or a gateway before the engine adds its own; benchmarks on the machine itself have no network; long texts take longer.
"""

from __future__ import annotations

from setpoint.hardware.accelerator import CPU
from setpoint.hardware.calibrations import effects_calibration
from setpoint.hardware.closed_loop import Harness
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.effects import deployment_harness


def front_end_s(deployment: Deployment) -> float:
    """Seconds from the send of a request until its engine may see it, with what its first token takes on the way back.

    0 on a CPU: there runs of this machine tell (``simulate/calibrated.py``). Raises ``HardwareError`` if a calibration of the
    user's cannot be read.
    """
    if deployment.accelerator.kind == CPU:
        return 0.0
    calibration = effects_calibration()
    around = Harness() if calibration is None else deployment_harness(calibration.effects, deployment)
    return float(around.front_s * around.first)
