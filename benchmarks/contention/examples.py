"""The shipped requirements as these scripts use them: as they are, or with their limits stretched for a slower machine.

The limits of the examples were set for a machine of two cores with AMX. On one without, no load meets them, and nothing about
contention can be seen. ``--stretch 4`` multiplies every latency limit by four and leaves the rest as it is: the same requests,
the same shares, the same spread. Rates are always multiples of the knee, which is measured under the same limits.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from setpoint.requirement import LatencyMetric, Requirement, example_text, parse_requirement

# A quantity of time as the examples write it inside a map of limits: p95: 500ms.
LIMIT = re.compile(r"(\bp\d+(?:\.\d+)?:\s*)(\d+(?:\.\d+)?)(ms|s)\b")


class _Stretch:
    """The factor that this run of a script uses."""

    factor = 1.0


def stretch_limits(factor: float) -> None:
    """From now on every latency limit counts so many times. Ends the script with one sentence where that makes no sense."""
    if not 0.1 <= factor <= 100.0:
        raise SystemExit(f"--stretch: found {factor:g}; give a factor of 0.1 to 100, such as 4 on a machine a quarter as fast")
    _Stretch.factor = factor


def stretch() -> float:
    """The factor in use."""
    return _Stretch.factor


def stretched(text: str, factor: float) -> str:
    """A requirement's text with its limits times ``factor``."""
    return LIMIT.sub(lambda found: f"{found[1]}{factor * float(found[2]):g}{found[3]}", text)


def requirement_of(example: str) -> Requirement:
    """The shipped requirement of this name, limits stretched as asked."""
    return _read(example, stretch())


@cache
def _read(example: str, factor: float) -> Requirement:
    return parse_requirement(stretched(example_text(example), factor), example)


def longest_answer_s(example: str) -> float:
    """From its sending to the end of the longest answer, each moment at its limit: until then an answer may be in time."""
    asked = requirement_of(example)
    end_s, first_s, gap_s = (asked.slo.limit_s(each) for each in (LatencyMetric.E2E, LatencyMetric.TTFT, LatencyMetric.ITL))
    if end_s is not None:
        return end_s
    assert first_s is not None
    assert gap_s is not None
    most = asked.profile.output_tokens.max
    assert most is not None
    return first_s + (most - 1) * gap_s


@contextmanager
def requirement_file(example: str) -> Iterator[Path]:
    """A file of it, for a server to read."""
    with tempfile.TemporaryDirectory(prefix="setpoint-") as folder:
        file = Path(folder) / f"{example}.yaml"
        file.write_text(stretched(example_text(example), stretch()), encoding="utf-8")
        yield file
