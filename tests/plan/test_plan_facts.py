"""The facts that the project starts from come out of the planner, labelled with where their coefficients come from."""

from __future__ import annotations

from setpoint.plan.economy import Goal
from setpoint.plan.fact_tables import FACTS, page
from setpoint.plan.facts import (
    CARDS,
    CHAT,
    GAP_LIMITS_S,
    LARGE,
    SHAVED_S,
    batches,
    best_for,
    largest_batches,
    latency_s,
    pressed,
    shaved,
)
from setpoint.plan.processes import ProcessRunner
from setpoint.plan.simulated_trial import TrialOf
from setpoint.requirement import parse_requirement

LABELS = {"measured", "transferred", "physics"}


def test_one_request_leaves_an_a100_idle_and_32_use_it() -> None:
    found = {each.batch: each for each in batches("a100-80")}
    assert found[1].utilisation < 0.05
    assert found[32].utilisation > 0.2
    assert found[32].tokens_per_s > 15 * found[1].tokens_per_s
    assert found[128].utilisation < 2 * found[32].utilisation  # ... and beyond that there is little left to gain.


def test_cards_differ_in_what_binds_them() -> None:
    """At some limit memory size binds the H100 while bandwidth binds the other two, which have less of it or more memory."""
    by_gap = {gap_s: {each.hardware: each.bound for each in largest_batches(gap_s)} for gap_s in GAP_LIMITS_S}
    wanted = {"a100-80": "bandwidth", "h100-sxm": "capacity", "mi300x": "bandwidth"}
    assert wanted in by_gap.values()
    assert set(CARDS) == set(wanted)


def test_a_large_memory_stays_flat_where_80_gb_preempt() -> None:
    small, large = pressed("h100-sxm", 24576), pressed("mi300x", 24576)
    assert small.preemptions > 0
    assert small.token_p99_s > 1.3 * small.token_p50_s
    assert large.preemptions == 0
    assert large.token_p99_s < 1.05 * large.token_p50_s
    assert pressed("h100-sxm", 4096).preemptions == 0


def test_one_workload_gets_another_configuration_for_latency_than_for_tokens_per_usd() -> None:
    with ProcessRunner(TrialOf(parse_requirement(CHAT, "facts")), 1) as runner:
        quick, cheap = (best_for(goal, runner) for goal in (Goal.LATENCY, Goal.TOKENS_PER_USD))
    assert quick.option.shape.name == cheap.option.shape.name
    assert quick.option.serving.name != cheap.option.serving.name
    assert quick.option.serving.config.token_budget > cheap.option.serving.config.token_budget
    assert latency_s(quick) < latency_s(cheap)
    assert cheap.at_scale_usd is not None
    assert quick.at_scale_usd is not None
    assert cheap.at_scale_usd < quick.at_scale_usd


def test_200_ms_less_can_cost_three_times_as_much_a_token() -> None:
    with ProcessRunner(TrialOf(parse_requirement(LARGE, "facts")), 1) as runner:
        found = {round(each.limit_s, 3): each.usd_per_million for each in shaved(runner)}
    factors = [
        tighter / usd
        for limit_s, usd in found.items()
        if usd and (tighter := found.get(round(limit_s - SHAVED_S, 3))) is not None
    ]
    assert max(factors) > 2.5
    assert all(factor >= 0.999 for factor in factors)


def test_a_page_of_facts_is_tables_with_their_commands() -> None:
    text = page(["bound"])
    assert "python -m setpoint.plan.fact_tables bound" in text
    assert text.count("| h100-sxm |") == len(GAP_LIMITS_S)


def test_every_line_says_where_it_comes_from() -> None:
    for name in ("utilisation", "bound"):
        fact = FACTS[name]()
        assert {row[-1] for row in fact.rows} <= LABELS
        assert fact.columns[-1] == "source"
