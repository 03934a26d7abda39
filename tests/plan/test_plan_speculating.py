"""Speculation in a plan: variants of finalists, what is said of them, exports that engines read."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from plan_world import CHAT, measured_steps, planned, requirement, shape

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.drafting import draft_deployment, paired_kv_tokens, pass_timer
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import TRANSFERRED_STEPS_ERROR, PhysicalTimer, step_timer
from setpoint.loop.errors import BadInput
from setpoint.loop.planned import PlanOptions, wishes_of
from setpoint.loop.speculation.candidates import speculating_configs
from setpoint.plan.asked import Wishes, asked_of
from setpoint.plan.exports.commands import sglang_command, vllm_command
from setpoint.plan.exports.deployable import Deployable
from setpoint.plan.exports.ray_serve import ray_serve_config
from setpoint.plan.exports.serve_config import serve_config
from setpoint.plan.limits import limits_of
from setpoint.plan.report import plan_document, spoken
from setpoint.plan.search import Arm
from setpoint.plan.simulated_trial import run_trial
from setpoint.plan.speculating import Costs
from setpoint.plan.speculation_words import speculates
from setpoint.plan.topology import Guesses, Scheduler, Serving, Topology
from setpoint.plan.trial import Job
from setpoint.plan.words import guessed
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.survival import constant_acceptance
from setpoint.requirement import Requirement, Speculation

CALM = {"llama-3.1-8b": "llama-3.1-70b", "40/s": "0.5/s"}
PAIRED = Speculation(drafters=("draft",), draft_model="llama-3.1-8b", acceptance=(0.8,))
SURVIVAL = constant_acceptance(0.8, 15).survival


def asked(speculation: Speculation | None = PAIRED) -> Requirement:
    return requirement(CHAT, **CALM).model_copy(update={"speculation": speculation})


def test_finalists_get_variants_whose_gain_and_limit_are_told() -> None:
    plan, _ = planned(asked(), hardware=("h100-sxm",), parallel=(4,))
    names = [each.name for each in plan.ranked if speculates(each)]
    assert any("+draft-" in name for name in names), "vLLM drafts a fixed number"
    assert any(name.endswith("+draft") for name in names), "setpoint as many as pay"
    outlook = plan.outlooks[0]
    gains = [each.gain for each in outlook.gains]
    assert gains == sorted(gains, reverse=True)
    assert outlook.pays_up_to is not None
    assert outlook.pays_up_to < 256
    said = " ".join(spoken(plan)["speculation"])
    assert f"pay up to batch {outlook.pays_up_to}" in said
    assert "drafting" in said
    assert "error" in said
    document = plan_document(plan)
    assert document["speculation"][0]["costs"][1]["source"] in ("measured", "transferred", "physics")
    json.dumps(document["speculation"])


def test_nothing_is_tried_unasked_or_without_acceptance() -> None:
    plan, _ = planned(asked(None), hardware=("h100-sxm",), parallel=(4,))
    assert (plan.outlooks, spoken(plan)["speculation"]) == ((), [])
    unknown = PAIRED.model_copy(update={"acceptance": None})
    plan, _ = planned(asked(unknown), hardware=("h100-sxm",), parallel=(4,))
    assert not any(map(speculates, plan.ranked))
    assert "give --acceptance" in spoken(plan)["speculation"][0]
    plan, _ = planned(asked(), hardware=("h100-sxm",), parallel=(4,), no_speculation=True)
    assert plan.outlooks == ()


def test_guesses_that_never_come_true_get_no_variant() -> None:
    plan, _ = planned(asked(PAIRED.model_copy(update={"acceptance": (0.05,)})), hardware=("h100-sxm",), parallel=(4,))
    assert not any(map(speculates, plan.ranked))
    assert "do not pay even alone" in spoken(plan)["speculation"][0]


def test_a_limit_on_means_that_guesses_could_meet_does_not_prune() -> None:
    tight = requirement(CHAT.replace("itl: {p95: 50ms}", "tpot: {p95: 8ms}"), **CALM)
    plain, _ = planned(tight, hardware=("h100-sxm",), parallel=(4,))
    assert [each.bound for each in plain.pruned] == ["latency"]
    guessing, _ = planned(tight.model_copy(update={"speculation": PAIRED}), hardware=("h100-sxm",), parallel=(4,))
    assert guessing.pruned == ()
    gap = tight.model_copy(update={"slo": requirement(CHAT.replace("50ms", "8ms")).slo, "speculation": PAIRED})
    single, _ = planned(gap, hardware=("h100-sxm",), parallel=(4,))
    assert [each.bound for each in single.pruned] == ["latency"], "a gap between two steps is none the shorter for guesses"


def test_a_gain_is_the_closed_form_over_the_two_timers() -> None:
    target = Deployment(model_facts("llama-3.1-70b"), accelerator("h100-sxm"), 4, "vllm", "bf16")
    costs = Costs(step_timer(target), pass_timer(draft_deployment(target, model_facts("llama-3.1-8b"))), 700)
    profile = constant_acceptance(0.8, 15)
    found = costs.gain_at(8, profile, 1.0)
    plain_s = replace(costs, passes=None).widened_s(8, 0)
    lengths = {k: profile.expected_tokens(k) * plain_s / costs.widened_s(8, k) for k in range(1, 16)}
    assert found.draft_tokens == max(lengths, key=lambda k: lengths[k])
    assert found.gain == pytest.approx(max(lengths.values()))
    half = costs.gain_at(8, profile, 0.5)
    assert 1.0 < half.gain < found.gain


def variant(length: int | None = 3, mode: SpeculationMode = SpeculationMode.DRAFT, name: str = "owner/small") -> Deployable:
    make = shape(model="llama-3.1-70b", parallel=4)
    draft = draft_deployment(make.deployment, model_facts("llama-3.1-8b")) if mode is SpeculationMode.DRAFT else None
    config = ServingConfig(
        mode=BatchingMode.CONTINUOUS if length else BatchingMode.SETPOINT,
        max_running=128,
        token_budget=256,
        speculation=mode,
        draft_model=name if draft else None,
        draft_tokens=length,
    )
    scheduler = Scheduler.VLLM if length else Scheduler.SETPOINT
    room = make.kv_tokens if draft is None else paired_kv_tokens(make.deployment, draft)
    serving = Serving(scheduler, config, Guesses(SURVIVAL, 1.0, draft, 2))
    topology = Topology.single(replace(make, kv_tokens=room), serving, 1)
    return Deployable(topology, "meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b", "bf16", 4096, "sp-1")


def words_of(text: str) -> list[str]:
    return shlex.split(next(line for line in text.splitlines() if line and not line.startswith("#")))


def test_vllm_is_told_in_json_and_ray_in_a_mapping() -> None:
    words = words_of(vllm_command(variant()))
    told = json.loads(words[words.index("--speculative-config") + 1])
    assert told == {
        "method": "draft_model",
        "model": "owner/small",
        "num_speculative_tokens": 3,
        "draft_tensor_parallel_size": 4,
    }
    assert words[words.index("--max-num-batched-tokens") + 1] == str(128 * 4), "room for every draft"
    lookup = words_of(vllm_command(variant(mode=SpeculationMode.PROMPT_LOOKUP)))
    assert json.loads(lookup[lookup.index("--speculative-config") + 1])["method"] == "ngram"
    (application,) = yaml.safe_load(ray_serve_config(variant()))["applications"]
    assert application["args"]["llm_configs"][0]["engine_kwargs"]["speculative_config"] == told


def test_sglang_is_told_by_flags() -> None:
    words = words_of(sglang_command(variant()))
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options["--speculative-algorithm"] == "STANDALONE"
    assert options["--speculative-draft-model-path"] == "owner/small"
    assert (options["--speculative-num-steps"], options["--speculative-num-draft-tokens"]) == ("3", "4")
    assert "NGRAM" in sglang_command(variant(mode=SpeculationMode.PROMPT_LOOKUP))


def test_setpoints_own_configuration_decides_by_itself_and_engines_get_the_likely_length() -> None:
    found = variant(length=None, name="llama-3.1-8b")
    own = serve_config(found)
    assert (own.speculation, own.draft_model, own.draft_tokens) == (SpeculationMode.DRAFT, "llama-3.1-8b", None)
    text = vllm_command(found)
    words = words_of(text)
    assert json.loads(words[words.index("--speculative-config") + 1])["num_speculative_tokens"] == 2
    assert "llama-3.1-8b guesses, and is a name of setpoint's catalogue" in text
    assert "always guesses as many tokens" in text


def test_a_trial_with_drafts_is_faster_at_a_calm_load() -> None:
    pool = variant().topology.pool
    plain = Serving(pool.serving.scheduler, pool.serving.config.model_copy(update={"speculation": SpeculationMode.OFF}))
    wanted = asked().model_copy(update={"slo": requirement(CHAT.replace("itl: {p95: 50ms}", "tpot: {p95: 50ms}")).slo})
    trials = [run_trial(wanted, Job(pool.shape, serving, 0.5, 40, 4, 0)) for serving in (plain, pool.serving)]
    (place,) = [place for place, limit in enumerate(limits_of(wanted)) if limit.metric == "tpot"]
    tpot = [float(trial.excess[place, trial.excess.shape[1] // 2]) for trial in trials]
    assert tpot[1] < tpot[0] / 1.4
    assert math.isfinite(trials[1].latency_s)


def test_a_draft_model_that_does_not_fit_is_refused_before_anything_is_simulated() -> None:
    wrong = Speculation(drafters=("draft",), draft_model="qwen2.5-0.5b", acceptance=(0.8,))
    with pytest.raises(HardwareError, match="same tokenizer"):
        planned(asked(wrong), hardware=("h100-sxm",), parallel=(4,))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"speculation": ("eagle",)}, "--speculation eagle: allowed"),
        ({"speculation": ("draft",), "acceptance": "70%"}, "give it with --draft-model"),
        ({"speculation": ("prompt-lookup",)}, "give --acceptance"),
        ({"speculation": ("prompt-lookup",), "draft_model": "x", "acceptance": "70%"}, "prompt-lookup has none"),
        ({"speculation": ("off,draft",)}, "found off beside a drafter"),
        ({"acceptance": "70%"}, "--acceptance: only read with --speculation"),
        ({"draft_model": "llama-3.1-8b"}, "--draft-model: only read with --speculation"),
    ],
)
def test_a_mistake_names_the_option(options: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput) as raised:
        wishes_of(PlanOptions(**options))  # type: ignore[arg-type]
    assert said in str(raised.value)


def test_options_go_over_the_requirement() -> None:
    wishes = wishes_of(PlanOptions(acceptance="0.9,0.6"), PAIRED)
    assert wishes.speculation == PAIRED.model_copy(update={"acceptance": (0.9, 0.6)})
    assert wishes_of(PlanOptions(speculation=("off",)), PAIRED).no_speculation
    both = wishes_of(PlanOptions(speculation=("prompt-lookup",), acceptance="60%"), PAIRED).speculation
    assert both is not None
    assert (both.drafters, both.draft_model) == (("prompt-lookup",), None)


def test_the_share_of_steps_that_find_a_guess_reaches_the_plan(tmp_path: Path) -> None:
    """Of a requirement, or of a profile; what a draft model guesses does not depend on it."""
    profile = tmp_path / "profile.json"
    row = {"name": "questions", "survival": [0.8, 0.6], "drafted_share": 0.38, "drafts": 40}
    profile.write_text(json.dumps({"acceptances": [row]}))
    wished = wishes_of(PlanOptions(acceptance=str(profile)), PAIRED).speculation
    assert wished == PAIRED.model_copy(update={"acceptance": (0.8, 0.6), "drafted_share": 0.38})
    kept = wishes_of(PlanOptions(speculation=("draft",)), wished).speculation
    assert kept == wished
    typed = wishes_of(PlanOptions(acceptance="0.9,0.6"), wished).speculation
    assert typed == PAIRED.model_copy(update={"acceptance": (0.9, 0.6), "drafted_share": 0.38})
    allowed = asked_of(asked(wished), Wishes(hardware=("h100-sxm",))).allowed
    assert allowed is not None
    assert allowed.share == 0.38
    assert allowed.share_of(SpeculationMode.PROMPT_LOOKUP) == 0.38
    assert allowed.share_of(SpeculationMode.DRAFT) == 1.0


def test_a_profile_is_for_the_drafter_that_it_was_measured_with(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    row = {"name": "questions", "survival": [0.8, 0.6], "drafted_share": 0.38, "drafts": 40}
    profile.write_text(json.dumps({"drafter": "prompt-lookup", "acceptances": [row]}))
    given = str(profile)
    both = PAIRED.model_copy(update={"drafters": ("prompt-lookup", "draft")})
    wished = wishes_of(PlanOptions(acceptance=given), both).speculation
    assert wished is not None
    assert (wished.drafters, wished.draft_model, wished.acceptance) == (("prompt-lookup",), None, (0.8, 0.6))
    assert wishes_of(PlanOptions(speculation=("prompt-lookup",), acceptance=given), both).speculation == wished
    with pytest.raises(BadInput, match="was measured with prompt-lookup, which says nothing of draft"):
        wishes_of(PlanOptions(acceptance=given), PAIRED)
    with pytest.raises(BadInput, match="was measured with prompt-lookup, give no other in --speculation"):
        wishes_of(PlanOptions(speculation=("prompt-lookup", "draft"), acceptance=given), both)


def test_configurations_that_a_requirement_allows() -> None:
    base = ServingConfig(draft_tokens=4)
    assert speculating_configs(asked(None), base) == []
    (found,) = speculating_configs(asked(), base)
    assert (found.speculation, found.draft_model, found.draft_tokens) == (SpeculationMode.DRAFT, "llama-3.1-8b", None)


def test_a_draft_model_that_cannot_be_dealt_out_is_told() -> None:
    make = shape(model="qwen3-8b", parallel=4)
    draft = draft_deployment(make.deployment, model_facts("qwen2.5-0.5b"))
    assert draft.tensor_parallel == 1
    pool = variant().topology.pool
    serving = replace(pool.serving, guesses=Guesses(SURVIVAL, 1.0, draft, 2))
    plan = replace(variant(), topology=Topology.single(make, serving, 1))
    assert any("qwen2.5-0.5b cannot be dealt out to 4 devices" in note for note in plan.notes())
    assert not any("cannot be dealt out" in note for note in variant().notes())


def test_a_draft_model_whose_cost_is_a_guess_makes_nothing_sure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: steps of the model were measured, those of its draft model guessed, and the plan with drafts was sure."""
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path))
    measured_steps("llama-3.1-70b", 0.05, step_s=2e-2)
    plan, _ = planned(asked(), hardware=("mi300x",), parallel=(1,))
    drafting = [each for each in plan.ranked if speculates(each)]
    assert drafting
    for each in drafting:
        assert each.option.guess
        assert not each.headroom.sure(0.0)
        assert 0.05 < each.option.step_error < TRANSFERRED_STEPS_ERROR
        assert "draft model" in guessed(each.option)
    assert plan.chosen is not None
    assert not speculates(plan.chosen), "steps without drafts were measured"
    assert not plan.chosen.option.guess


def test_the_error_of_drafting_counts_for_its_share_of_a_step() -> None:
    make = shape(model="llama-3.1-70b", parallel=4)
    timer = step_timer(make.deployment)
    passes = pass_timer(draft_deployment(make.deployment, model_facts("llama-3.1-8b")))
    assert isinstance(timer, PhysicalTimer)
    assert isinstance(passes, PhysicalTimer)
    known, wide = replace(timer, relative_error=0.1, guess=False), replace(passes, relative_error=0.4, guess=True)
    costs = Costs(known, wide, 700)
    share = costs.passes_share(8, 3)
    assert share == pytest.approx(1 - replace(costs, passes=None).widened_s(8, 3) / costs.widened_s(8, 3))
    arm = Arm(make, variant().topology.pool.serving, known, 1.0, passes=wide, passes_share=share)
    assert arm.step_error == pytest.approx(0.1 + 0.3 * share)
    assert arm.guess
    surer = replace(arm, passes=replace(wide, relative_error=0.02, guess=False))
    assert (surer.step_error, surer.guess) == (0.1, False), "a prompt alone has no guesses"
    assert replace(arm, passes=None).step_error == 0.1


def test_the_best_that_speculates_or_does_not_is_known_before_it_is_a_guess() -> None:
    """Seen: the first of the ranking was named, and that it is a guess was not said."""
    two, prices = ("h100-sxm", "mi300x"), {"h100-sxm": 50.0, "mi300x": 1.0}
    plan, _ = planned(asked(), hardware=two, parallel=(4,), prices=prices)
    speculating = next(each for each in plan.ranked if speculates(each) and not each.option.guess)
    plain = next(each for each in plan.ranked if not speculates(each) and not each.option.guess)
    for chosen in (speculating, plain):
        said = spoken(replace(plan, chosen=chosen))["speculation"][-1]
        assert "h100-sxm" in said
        assert "guess" not in said
    guesses = tuple(each for each in plan.ranked if each.option.guess)
    assert "is itself a guess." in spoken(replace(plan, ranked=guesses))["speculation"][-1]
