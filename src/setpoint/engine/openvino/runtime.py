"""The one place that imports OpenVINO, so that its telemetry is off before it can send anything.

The runtime falls back to a silent stub when its telemetry package cannot be imported; marking that package as absent is the
switch that needs no file in the user's home and no consent dialog.
"""

from __future__ import annotations

import sys

if "openvino" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov
import openvino_genai
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation

__all__ = ["openvino_genai", "ops", "ov", "paged_attention_transformation"]
