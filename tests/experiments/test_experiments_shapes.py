"""The expected shape of every simulated experiment is seen at its small size; a shape that is not there is told."""

from __future__ import annotations

import pytest

from gallery.catalogue import load, names
from gallery.description import Expected, Kind, Size

SIMULATED = [name for name in names() if load(name).kind is Kind.SIMULATED]
SEED = 1


@pytest.mark.parametrize("name", SIMULATED)
def test_the_expected_shape_is_seen(name: str) -> None:
    outcome = load(name).run(Size.QUICK, SEED)
    assert [(each.what, each.value, each.sense, each.bound) for each in outcome.expected if not each.holds] == []
    assert len(outcome.expected) >= 2
    assert all(len(row) == len(outcome.columns) for row in outcome.rows)


def test_the_claims_of_the_mission_are_there() -> None:
    wanted = {
        "utilisation",
        "batching_modes",
        "waiting",
        "shave_200ms",
        "profiles",
        "tail_spikes",
        "averages_hide",
        "sustained_burst",
        "kv_pressure",
        "hardware_bounds",
        "tuned_on_a100",
    }
    assert wanted <= set(SIMULATED)


@pytest.mark.parametrize(
    ("value", "sense", "holds"),
    [
        (2.0, "at least", True),
        (2.0, "at most", True),
        (1.9, "at least", False),
        (2.1, "at most", False),
        (None, "at most", False),
    ],
)
def test_a_shape_can_fail(value: float | None, sense: str, holds: bool) -> None:
    assert Expected("x", value, sense, 2.0).holds is holds  # type: ignore[arg-type]
