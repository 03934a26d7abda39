"""The arg-max that runs inside the graph, against NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from setpoint.engine.openvino.graph import LEAST_PART, MOST_PART, arg_max
from setpoint.engine.openvino.runtime import ops, ov

# Widths with a part of a good size, a prime, one below the least part, one whose only divisors are too small.
WIDTHS = (49152, 128256, 50257, 31, 2 * 50261, LEAST_PART * MOST_PART, MOST_PART)


def compiled(width: int) -> Any:
    rows = ops.parameter([-1, width], np.float32, name="rows")
    model = ov.Model([ops.result(arg_max(rows, width))], [rows], "arg_max")
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize("width", WIDTHS)
def test_place_of_the_greatest_is_found_whatever_the_width(width: int) -> None:
    generator = np.random.default_rng(width)
    model = compiled(width)
    for count in (1, 3, 17):
        rows = generator.standard_normal((count, width), dtype=np.float32)
        rows[0, -1] = 100.0  # the last place of the last part
        rows[-1, 0] = 200.0  # the first place of the first
        found = model([rows])[0]
        assert found.dtype == np.int32
        assert found.tolist() == rows.argmax(axis=1)[:, None].tolist()


def test_rows_of_negative_numbers_and_minus_infinity() -> None:
    rows = np.full((2, 49152), -np.inf, dtype=np.float32)
    rows[0, 777], rows[1, 40000] = -3.0, -1e30
    assert compiled(49152)([rows])[0].tolist() == [[777], [40000]]
