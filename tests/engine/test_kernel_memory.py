"""New shapes of steps do not make the process grow for ever: OpenVINO and oneDNN forget kernels (docs/decisions/0091)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from setpoint.engine.openvino.bounds import KERNELS_KEPT

pytestmark = pytest.mark.model

# Steps of one prompt each, of lengths never seen before: resident bytes that the second half of them adds.
GROWTH = """
import sys, time
import psutil
from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.models import DEMO_MODEL, resolve_model
from setpoint.engine.openvino import executor
from setpoint.engine.openvino.small_steps import SMALL_STEP_TOKENS
from setpoint.engine.request import GenerationRequest
from setpoint.engine.sequence import Sequence

executor.KERNELS_KEPT = int(sys.argv[1])
options = executor.ExecutorOptions(kv_cache_tokens=1024)
engine = executor.OpenVinoExecutor(resolve_model(DEMO_MODEL).folder, options, time.monotonic)
sequence = Sequence(0, GenerationRequest(prompt_ids=tuple(range(100, 300))), arrived_s=0.0, max_tokens=1)
sequence.blocks = list(range(8))
resident = []
# Longest first, of small steps too, which may have kernels of their own: buffers have their size before the first reading.
for tokens in (SMALL_STEP_TOKENS, *range(100, 20, -1)):
    engine.collect(engine.submit(make_batch([BatchItem(sequence, 0, tokens, True)])))
    resident.append(psutil.Process().memory_info().rss)
print(resident[-1] - resident[len(resident) // 2])
"""


def growth_bytes(kept: int) -> int:
    environment = os.environ | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(kept)}
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(kept)], check=True, capture_output=True, text=True, env=environment
    )
    return int(done.stdout)


def test_kernels_beyond_the_bound_are_forgotten() -> None:
    few, many = growth_bytes(8), growth_bytes(5_000)
    if many < 4 * 2**20:
        pytest.skip("kernels of this CPU do not depend on the shape of a step")
    assert few < many / 4


def test_onednn_has_the_bound_unless_the_user_set_another() -> None:
    shown = "import os, setpoint.engine.openvino.runtime; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    for given, expected in ((None, str(KERNELS_KEPT)), ("7", "7")):
        environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
        environment |= {} if given is None else {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": given}
        done = subprocess.run([sys.executable, "-c", shown], check=True, capture_output=True, text=True, env=environment)
        assert done.stdout.strip() == expected
