"""The one place that imports OpenVINO, so that its telemetry is off before it can send anything, and its caches have bounds.

The runtime falls back to a silent stub when its telemetry package cannot be imported; marking that package as absent is the
switch that needs no file in the user's home and no consent dialog.

oneDNN, which OpenVINO's CPU device calls, reads how many kernels to keep from the environment, once (docs/decisions/0091).
"""

from __future__ import annotations

import os
import sys

from setpoint.engine.openvino.bounds import KERNELS_KEPT

if "openvino" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
if "ONEDNN_PRIMITIVE_CACHE_CAPACITY" not in os.environ:
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(KERNELS_KEPT)

import openvino as ov
import openvino_genai
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation

__all__ = ["openvino_genai", "ops", "ov", "paged_attention_transformation"]
