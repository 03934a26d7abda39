"""Human units in, SI numbers out; anything else says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.requirement.units import (
    UnitError,
    parse_burst_rate_rps,
    parse_duration_s,
    parse_flag,
    parse_fraction,
    parse_number,
    parse_rate_rps,
    parse_ratio,
    parse_usd_per_hour,
    parse_whole_number,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_duration_s, "300ms", 0.3),
        (parse_duration_s, "2s", 2.0),
        (parse_duration_s, " 1.5 min ", 90.0),
        (parse_duration_s, "8h", 28_800.0),
        (parse_duration_s, "250us", 0.00025),
        (parse_duration_s, "1e-3s", 0.001),
        (parse_rate_rps, "2.5/s", 2.5),
        (parse_rate_rps, "90/min", 1.5),
        (parse_rate_rps, "1_800 / h", 0.5),
        (parse_fraction, "95%", 0.95),
        (parse_fraction, "0.95", 0.95),
        (parse_fraction, "1", 1.0),
        (parse_ratio, "3", 3.0),
        (parse_ratio, "2.5x", 2.5),
        (parse_usd_per_hour, "0.10", 0.1),
        (parse_usd_per_hour, "$0.10/h", 0.1),
        (parse_usd_per_hour, "$2 per hour", 2.0),
        (parse_flag, "True", True),
        (parse_flag, "no", False),
        (parse_whole_number, "10_000", 10_000),
        (parse_whole_number, "010", 10),
        (parse_number, "-.5", -0.5),
    ],
)
def test_quantities(parse: Callable[[str], float], text: str, value: float) -> None:
    assert parse(text) == pytest.approx(value)


def test_burst_rate_may_be_a_multiple() -> None:
    assert parse_burst_rate_rps("3x", 2.5) == pytest.approx(7.5)
    assert parse_burst_rate_rps("7.5/s", 2.5) == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("parse", "text", "hint"),
    [
        (parse_duration_s, "300", "300 has no unit: write 300ms or 300s"),
        (parse_duration_s, "5m", "write ms or min"),
        (parse_duration_s, "5 parsecs", "300ms"),
        (parse_duration_s, "", "300ms"),
        (parse_rate_rps, "2.5", "write 2.5/s"),
        (parse_rate_rps, "2.5/day", "2.5/s"),
        (parse_rate_rps, "3x", "2.5/s"),
        (parse_fraction, "95", "write 95%"),
        (parse_fraction, "95 percent", "95%"),
        (parse_usd_per_hour, "3 EUR", "$0.10/h"),
        (parse_flag, "maybe", "true or false"),
        (parse_whole_number, "6.5", "a whole number"),
        (parse_whole_number, "9" * 5000, "a whole number"),
        (parse_number, ".inf", "a number"),
        (parse_number, "1:30", "a number"),
    ],
)
def test_what_is_allowed(parse: Callable[[str], float], text: str, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text)
    assert hint in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_a_unit_error(text: str) -> None:
    for parse in (parse_duration_s, parse_rate_rps, parse_fraction, parse_ratio, parse_usd_per_hour, parse_flag):
        with suppress(UnitError):
            assert parse(text) == parse(text.strip())


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_units_of_a_duration_agree(number: float) -> None:
    assert parse_duration_s(f"{number!r}s") == pytest.approx(parse_duration_s(f"{number * 1000!r}ms"))
