"""The planner over a runner of formulas: ranking, bounds, headroom, answers, infeasible requirements, files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from plan_world import CHAT, FormulaRunner, asks, measured_steps, planned, requirement
from rich.console import Console

from setpoint.commands.plan import PLAN_EXAMPLES
from setpoint.hardware.accelerator import UnknownAccelerator, accelerator
from setpoint.hardware.calibrations import UNSEEN_VENDOR_ERROR
from setpoint.hardware.model_facts import UnknownModel
from setpoint.plan.answers import cheaper_but_unsure, if_doubled, limit_costs, measure_next, recommendation, why_this
from setpoint.plan.economy import Goal
from setpoint.plan.errors import PlanError
from setpoint.plan.page import render_page
from setpoint.plan.planner import Standing, make_plan
from setpoint.plan.report import EXIT_CODES, deployable, plan_document, plan_json
from setpoint.plan.sketch import longest_request
from setpoint.plan.space import shapes_of
from setpoint.plan.terminal import render_plan
from setpoint.plan.topology import Scheduler, Topology
from setpoint.record import Report

TWO = ("h100-sxm", "mi300x")


def test_the_chosen_is_the_cheapest_that_is_sure() -> None:
    plan, _ = planned(requirement(), hardware=TWO)
    assert plan.standing is Standing.SURE
    assert plan.chosen is not None
    sure = [each for each in plan.ranked if each.holds and each.headroom.sure(0.9)]
    assert plan.chosen.topology.usd_per_h == min(each.topology.usd_per_h or math.inf for each in sure)
    assert {each.option.shape.hardware for each in plan.ranked} == set(TWO)


def test_the_same_plan_again_is_the_same_bytes() -> None:
    first, second = (plan_json(plan_document(planned(requirement(), hardware=TWO)[0])) for _ in range(2))
    assert first == second


def test_a_price_changes_the_choice() -> None:
    two = ("h100-sxm", "a100-80")
    dear, _ = planned(requirement(), hardware=two, prices={"h100-sxm": 50.0, "a100-80": 1.0})
    cheap, _ = planned(requirement(), hardware=two, prices={"h100-sxm": 0.5, "a100-80": 50.0})
    assert dear.chosen is not None
    assert cheap.chosen is not None
    assert dear.chosen.option.shape.hardware == "a100-80"
    assert cheap.chosen.option.shape.hardware == "h100-sxm"


def test_more_load_takes_no_fewer_devices() -> None:
    costs = []
    for rate in ("20/s", "80/s", "320/s"):
        plan, _ = planned(requirement(CHAT, **{"40/s": rate}), hardware=("h100-sxm",))
        assert plan.chosen is not None
        costs.append(plan.chosen.topology.gpus)
    assert costs == sorted(costs)
    assert costs[-1] > costs[0]


def test_devices_are_bounded() -> None:
    plan, runner = planned(requirement(CHAT, **{"40/s": "4000/s"}), hardware=("h100-sxm",), max_gpus=2)
    assert plan.standing is Standing.INFEASIBLE
    assert EXIT_CODES[plan.standing] == 1
    assert runner.jobs == []
    assert "Allow more devices" in recommendation(plan)


def test_what_cannot_hold_the_weights_is_told() -> None:
    plan, runner = planned(requirement(CHAT, **{"llama-3.1-8b": "llama-3.1-405b"}), hardware=("l4",))
    assert (plan.standing, plan.chosen, runner.jobs) == (Standing.INFEASIBLE, None, [])
    assert {each.bound for each in plan.pruned} == {"capacity"}
    assert "narrower weights (--quantization fp8)" in recommendation(plan)


def test_a_limit_below_what_a_request_alone_takes_is_told() -> None:
    plan, _ = planned(requirement(CHAT, **{"itl: {p95: 50ms}": "itl: {p95: 10us}"}), hardware=TWO)
    assert plan.standing is Standing.INFEASIBLE
    words = recommendation(plan)
    assert "comes nearest" in words
    assert "Relax ITL P95 from 0.01 ms to" in words


def test_a_plan_inside_its_error_bar_says_so() -> None:
    """At a limit just above what the fewest allowed devices reach, nothing is sure."""
    text = CHAT.replace("itl: {p95: 50ms}", "itl: {p95: 9.5ms}")
    plan, _ = planned(requirement(text), hardware=("h100-sxm",), max_gpus=4, parallel=(1,))
    assert plan.standing is Standing.WITHIN_ERROR
    assert EXIT_CODES[plan.standing] == 3
    assert "inside its own error bar" in recommendation(plan)
    assert plan.chosen is not None
    assert plan.chosen.headroom.met_probability < 0.9
    assert measure_next(plan) is not None


def test_why_a_plan_is_not_sure_is_said_at_its_head() -> None:
    near = CHAT.replace("itl: {p95: 50ms}", "itl: {p95: 9.5ms}")
    within, _ = planned(requirement(near), hardware=("h100-sxm",), max_gpus=4, parallel=(1,))
    guess, _ = planned(requirement(), hardware=("mi300x",), parallel=(1,))
    for plan, said in ((within, "inside its error bar"), (guess, "on an error that is a guess")):
        assert plan.standing is Standing.WITHIN_ERROR
        console = Console(record=True, width=160, file=open("/dev/null", "w"))  # noqa: SIM115
        render_plan(plan, console)
        assert f"({said})" in console.export_text()
        assert f"Met as predicted, but {said}" in render_page(plan, plan_document(plan))
    assert "inside its error bar or on hardware whose error is a guess" in PLAN_EXAMPLES


@pytest.mark.parametrize("goal", list(Goal))
def test_what_nothing_like_it_was_measured_of_is_never_sure(goal: Goal) -> None:
    """Seen: a plan on MI300X, for which steps are predicted five times too fast, was sure with replicas enough."""
    plan, _ = planned(requirement(), hardware=("mi300x",), max_gpus=64, goal=goal)
    assert plan.standing is Standing.WITHIN_ERROR
    assert EXIT_CODES[plan.standing] == 3
    assert plan.chosen is not None
    assert (plan.chosen.option.source, plan.chosen.option.step_error) == ("transferred", UNSEEN_VENDOR_ERROR)
    assert all(each.headroom.within_error for each in plan.ranked if each.holds)
    likely = [each for each in plan.ranked if each.holds and each.headroom.met_probability >= plan.asked.confidence]
    assert plan.chosen is likely[0]
    if goal is Goal.COST:
        assert plan.chosen.topology.usd_per_h == min(each.topology.usd_per_h or math.inf for each in likely)
    assert "itself a guess" in recommendation(plan)
    assert "measure mi300x with vllm" in (measure_next(plan) or "")


def test_of_guesses_alone_the_cheapest_that_is_likely_enough_is_taken() -> None:
    """Seen: one that would hold with 99 % at eight times the price was recommended over one with 93 %."""
    plan, _ = planned(requirement(), hardware=("mi300x", "mi325x"), prices={"mi300x": 1.0, "mi325x": 8.0})
    assert plan.standing is Standing.WITHIN_ERROR
    likely = [each for each in plan.ranked if each.holds and each.headroom.met_probability >= plan.asked.confidence]
    assert {each.option.shape.hardware for each in likely} == {"mi300x", "mi325x"}
    for found in (plan.chosen, plan.doubled):
        assert found is not None
        assert found.option.shape.hardware == "mi300x"
        assert found.headroom.met_probability >= plan.asked.confidence
    assert plan.chosen is likely[0]
    assert likely[0].topology.usd_per_h == min(each.topology.usd_per_h or math.inf for each in likely)
    assert likely[0].trial is not None, "what is recommended was looked at closely"


def test_a_guess_is_passed_over_at_any_price_for_what_is_sure() -> None:
    plan, _ = planned(requirement(), hardware=TWO, prices={"h100-sxm": 50.0, "mi300x": 1.0})
    assert plan.standing is Standing.SURE
    assert plan.chosen is not None
    assert plan.doubled is not None
    assert plan.chosen.option.shape.hardware == plan.doubled.option.shape.hardware == "h100-sxm"
    assert plan.ranked[0].option.shape.hardware == "mi300x"
    passed_over = cheaper_but_unsure(plan) or ""
    assert "mi300x" in passed_over
    assert "itself a guess" in passed_over
    assert plan.shadow
    for price in plan.shadow:
        assert price.usd_per_h is not None
        assert price.usd_per_h >= 50.0, "compared with what is recommended, not with a guess"
        assert "mi300x" not in (price.moved_name or "")


def test_what_was_measured_there_is_no_guess_however_large_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: steps that a user had measured to 60 % were called a guess, and those of every other model then known to 30 %."""
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path))
    measured_steps("llama-3.1-8b", 0.6, step_s=5e-3)
    own, _ = planned(requirement(), hardware=("mi300x",), parallel=(1,))
    assert own.chosen is not None
    assert (own.chosen.option.source, own.chosen.option.step_error) == ("measured", 0.6)
    assert own.standing is Standing.SURE
    assert "itself a guess" not in recommendation(own)
    other, _ = planned(requirement(CHAT, **{"llama-3.1-8b": "qwen3-8b"}), hardware=("mi300x",), parallel=(1,))
    assert other.chosen is not None
    assert other.chosen.option.step_error < UNSEEN_VENDOR_ERROR
    assert other.standing is Standing.WITHIN_ERROR
    assert "itself a guess" in recommendation(other)
    assert [each["step_error_is_guess"] for each in plan_document(other)["ranked"]] == [True] * len(other.ranked)


def test_latency_as_the_goal_takes_what_is_allowed() -> None:
    cheap, _ = planned(requirement(), hardware=("h100-sxm",), max_gpus=8)
    quick, _ = planned(requirement(), hardware=("h100-sxm",), max_gpus=8, goal=Goal.LATENCY)
    assert cheap.chosen is not None
    assert quick.chosen is not None
    assert quick.chosen.latency_s <= cheap.chosen.latency_s
    assert quick.chosen.topology.gpus == 8


def test_power_as_the_goal_ranks_by_watts() -> None:
    plan, _ = planned(requirement(), hardware=TWO, goal=Goal.POWER)
    watts = [each.topology.power_w for each in plan.ranked]
    assert watts == sorted(watts)


def test_quantised_weights_are_only_chosen_from_where_asked() -> None:
    plain, _ = planned(requirement(), hardware=("h100-sxm",))
    both, _ = planned(requirement(), hardware=("h100-sxm",), quantization=("bf16", "fp8"))
    assert {each.option.shape.deployment.weight_precision for each in plain.ranked} == {"bf16"}
    assert "fp8" in {each.option.shape.deployment.weight_precision for each in both.ranked}


def test_the_answers_are_sentences() -> None:
    plan, _ = planned(requirement(), hardware=("h100-sxm", "mi300x", "l4"))
    why = why_this(plan)
    assert any("l4" in sentence for sentence in why)
    assert any(sentence.startswith("TTFT P95 500 ms:") for sentence in limit_costs(plan))
    assert "Twice the load" in (if_doubled(plan) or "")
    for sentence in [recommendation(plan), *why, *limit_costs(plan)]:
        assert sentence.endswith((".", "%."))
        assert "nan" not in sentence


def test_prices_of_limits_have_the_right_sign() -> None:
    plan, _ = planned(requirement(CHAT, **{"40/s": "900/s"}), hardware=TWO)
    assert plan.shadow
    for price in plan.shadow:
        if price.change is not None:
            assert (price.change <= 1e-9) == (price.moved_to > price.limit.limit) or price.change == 0
        if price.at_scale is not None and price.moved_to > price.limit.limit:
            assert price.at_scale <= 1e-9


def test_the_document_is_json_and_its_report_is_of_schema_1() -> None:
    plan, _ = planned(requirement(), hardware=TWO)
    document = json.loads(plan_json(plan_document(plan)))
    assert document["kind"] == "plan"
    assert document["chosen"] == document["ranked"][[r["name"] for r in document["ranked"]].index(document["chosen"])]["name"]
    assert all(each["kv"]["blocks"] > 0 for each in document["ranked"])
    assert Report.model_validate(document["report"]).kind == "simulate"
    assert {each["hardware"] for each in document["context_curves"]} == set(TWO)


def test_the_page_stands_alone() -> None:
    plan, _ = planned(requirement(CHAT, chat="<chat> & more"), hardware=TWO)
    page = render_page(plan, plan_document(plan))
    assert "<chat>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("<svg") >= 3
    for heading in ("Price against TTFT P95", "How near the limits are", "Latency against context length", "Shadow prices"):
        assert heading in page


def test_a_page_of_nothing_feasible() -> None:
    plan, _ = planned(requirement(CHAT, **{"llama-3.1-8b": "llama-3.1-405b"}), hardware=("l4",))
    page = render_page(plan, plan_document(plan))
    assert "Nothing meets the requirement" in page


def test_the_terminal_shows_the_ranking() -> None:
    plan, _ = planned(requirement(), hardware=TWO)
    console = Console(record=True, width=160, file=open("/dev/null", "w"))  # noqa: SIM115
    render_plan(plan, console)
    text = console.export_text()
    assert plan.chosen is not None
    assert "What each limit costs" in text
    assert plan.chosen.topology.pool.serving.name in text


@pytest.mark.parametrize(
    ("change", "wishes", "said"),
    [
        ({}, {"hardware": ("h10",)}, "h10"),
        ({"llama-3.1-8b": "llama-9"}, {}, "llama-9"),
    ],
)
def test_unknown_names_are_one_line(change: dict[str, str], wishes: dict[str, object], said: str) -> None:
    with pytest.raises((UnknownAccelerator, UnknownModel)) as caught:
        asks(requirement(CHAT, **change), **wishes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hardware_without_a_price_needs_one_for_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    free = replace(accelerator("h100-sxm"), price_usd_per_h=None)
    monkeypatch.setattr("setpoint.plan.asked.accelerator", lambda name: free)
    with pytest.raises(PlanError, match="--price h100-sxm=USD_PER_HOUR"):
        asks(requirement(), hardware=("h100-sxm",))
    assert asks(requirement(), hardware=("h100-sxm",), goal=Goal.POWER).choices.prices == {"h100-sxm": None}


def test_unnamed_hardware_is_the_cheapest_few_and_the_rest_is_told() -> None:
    """Seen: three AMD cards, which look cheap and are never sure, were among the six."""
    plan, runner = planned(requirement(), parallel=(1, 2))
    seen = {job.shape.hardware for job in runner.jobs}
    guesses = {name for name in seen if accelerator(name).vendor == "amd"}
    assert (len(seen - guesses), len(guesses)) == (6, 3)
    told = {each.shape.hardware for each in plan.pruned if each.bound == "cost"}
    assert "--hardware to have it looked at" in " ".join(why_this(plan))
    assert len(seen | told) > 10


def test_the_search_sees_every_hardware_and_few_jobs() -> None:
    asked = requirement()
    runner = FormulaRunner(asked)
    hardware = ("a100-80", "h100-sxm", "h200", "mi300x", "l40s")
    plan = make_plan(asks(asked, hardware=hardware, parallel=(1, 2, 4)), runner)
    assert {job.shape.hardware for job in runner.jobs} == set(hardware)
    assert plan.simulations == len(runner.jobs) < 400


def test_hardware_that_costs_nothing_is_planned() -> None:
    plan, _ = planned(requirement(), hardware=("h100-sxm",), prices={"h100-sxm": 0.0}, goal=Goal.LATENCY)
    assert plan.chosen is not None
    assert all(price.change is None for price in plan.shadow)


def test_a_cache_in_another_precision_is_another_shape() -> None:
    plan, _ = planned(requirement(), hardware=("h100-sxm",), parallel=(1,), quantization=("fp8",), kv_cache=("bf16", "fp8"))
    names = [each.name for each in plan.ranked]
    assert len(set(names)) == len(names)
    assert any("fp8+kv-fp8" in name for name in names)


def test_requests_longer_than_the_models_context_are_told() -> None:
    with pytest.raises(PlanError, match="model llama-3-8b: its context is 8,192 tokens"):
        planned(requirement(CHAT, **{"llama-3.1-8b": "llama-3-8b", "prompt_tokens: 500": "prompt_tokens: 10000"}))


def test_a_tail_that_the_model_does_not_take_is_told() -> None:
    """Seen: every card missed the limit by over 1,000, and half a million seconds would have been enough."""
    tail = "prompt_tokens: {median: 2000, p95: 9000, max: 20000}"
    asked = requirement(CHAT, **{"llama-3.1-8b": "llama-3-8b", "prompt_tokens: 500": tail})
    with pytest.raises(PlanError, match=r"model llama-3-8b: .* of the profile's prompts do not fit a context of 8,192 tokens"):
        planned(asked)


def test_this_machine_runs_no_other_scheduler() -> None:
    with pytest.raises(PlanError, match="this-machine runs setpoint's own engine"):
        asks(requirement(), hardware=("this-machine",), prices={"this-machine": 1.0}, schedulers=(Scheduler.VLLM,))
    asked = asks(requirement(), hardware=("this-machine", "h100-sxm"), schedulers=(Scheduler.VLLM,))
    assert [device.name for device in asked.choices.accelerators] == ["h100-sxm"]


def test_only_what_engines_can_split_is_planned() -> None:
    asked = asks(requirement(CHAT, **{"llama-3.1-8b": "phi-4-14b"}), hardware=("h100-sxm",))
    assert {each.deployment.tensor_parallel for each in shapes_of(asked.model, asked.choices)} == {1, 2}


def test_a_bound_on_the_price_needs_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    free = replace(accelerator("h100-sxm"), price_usd_per_h=None)
    monkeypatch.setattr("setpoint.plan.asked.accelerator", lambda name: free)
    bounded = requirement(CHAT + "plan: {max_usd_per_hour: $10/h}\n")
    with pytest.raises(PlanError, match=r"max_usd_per_hour bounds .* --price h100-sxm=USD_PER_HOUR") as caught:
        asks(bounded, hardware=("h100-sxm",), goal=Goal.POWER)
    assert "\n" not in str(caught.value)
    assert asks(bounded, hardware=("h100-sxm",), goal=Goal.POWER, prices={"h100-sxm": 2.0}).bounds.max_usd_per_h == 10.0


def test_twice_the_load_is_planned_by_the_rule_of_the_ranking() -> None:
    """Where latency is what is wanted all devices that are allowed are used, for twice the load as well."""
    plan, _ = planned(requirement(), hardware=("h100-sxm",), max_gpus=16, goal=Goal.LATENCY)
    assert plan.chosen is not None
    assert plan.doubled is not None
    assert plan.chosen.topology.gpus == plan.doubled.topology.gpus == 16


def test_hardware_without_a_price_is_not_hardware_that_costs_nothing() -> None:
    """What costs nothing comes before everything that costs something, whatever it carries."""
    plan, runner = planned(requirement(), prices={"a10g": 0.0}, parallel=(1,))
    assert "a10g" in {job.shape.hardware for job in runner.jobs}
    assert plan.ranked[0].option.shape.hardware == "a10g"
    told = [each for each in plan.pruned if each.bound == "cost"]
    assert any("many times as much a request as a10g" in each.words for each in told)
    assert all(math.isfinite(each.excess) for each in told)
    render_page(plan, plan_document(plan))


def test_the_longest_request_that_is_served_is_the_profiles_and_fits_the_cache() -> None:
    text = {"prompt_tokens: 500": "prompt_tokens: {median: 500, p95: 900, max: 6000}"}
    plan, _ = planned(requirement(CHAT, **text), hardware=("h100-sxm",))
    assert plan.chosen is not None
    assert plan.load.largest_context < 5000
    assert deployable(plan, plan.chosen).max_model_tokens == 7 * 1024
    option = plan.chosen.option
    small = Topology.single(replace(option.shape, kv_tokens=5003), option.serving, 1)
    assert deployable(plan, replace(plan.chosen, topology=small)).max_model_tokens == 4752  # whole blocks in 95 % of it


def test_the_longest_request_of_conversations_has_all_that_was_said() -> None:
    text = {"output_tokens: 200": "output_tokens: 200\n  sessions: {turns: {min: 1, max: 4}, added_tokens: 50}"}
    assert longest_request(requirement(CHAT, **text).profile) == 500 + 200 + 3 * (50 + 200)
