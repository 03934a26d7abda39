"""The shipped examples load, say what they are for, and explain every line."""

from __future__ import annotations

import pytest

from setpoint.requirement import Objective, RequestProfile, example_names, example_text, parse_requirement

NAMES = ["coding-assistant", "document-classification", "night-batch", "recommendation"]


def profile_of(name: str) -> RequestProfile:
    return parse_requirement(example_text(name), name).profile


def test_names() -> None:
    assert example_names() == NAMES


def test_an_unknown_example_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="coding-assistant, document-classification"):
        example_text("coding")


@pytest.mark.parametrize("name", NAMES)
def test_example_loads_under_its_own_name(name: str) -> None:
    requirement = parse_requirement(example_text(name), f"{name}.yaml")
    assert requirement.name == name
    assert requirement.description
    assert requirement.price is not None


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_an_example_is_explained(name: str) -> None:
    for line in example_text(name).splitlines():
        assert not line or "#" in line or line.startswith("description:"), line
        assert len(line) <= 120


def test_examples_are_the_four_kinds_of_application() -> None:
    assert profile_of("coding-assistant").streaming
    classification = profile_of("document-classification")
    assert not classification.streaming
    assert classification.shared_prefix_tokens >= 256
    assert classification.output_tokens.largest <= 4
    recommendation = parse_requirement(example_text("recommendation"), "recommendation")
    assert recommendation.slo.spread
    assert not recommendation.profile.streaming
    batch = parse_requirement(example_text("night-batch"), "night-batch")
    assert not batch.slo.declared()
    assert batch.objective in (Objective.MAX_THROUGHPUT, Objective.MIN_COST)
