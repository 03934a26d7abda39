"""Speculation predicted for hardware that is not here: the known shape, the break-even acceptance, errors in one sentence."""

from __future__ import annotations

import json
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.drafting import draft_deployment, drafting_s, paired_kv_tokens, pass_timer
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import step_s, step_timer
from setpoint.loop.errors import BadInput
from setpoint.loop.speculation.asked import acceptance_of
from setpoint.loop.speculation.outcome import SpeculationProfile
from setpoint.loop.speculation.predicted import BATCHES, There, deployments, predicted_profile
from setpoint.loop.speculation.terminal import render_profile
from setpoint.policy.decisions import StepWork

LARGE, SMALL, H100 = "llama-3.1-70b", "llama-3.1-8b", There("h100-sxm")


@pytest.fixture(scope="module")
def known() -> SpeculationProfile:
    return predicted_profile(LARGE, SMALL, [acceptance_of(text, 15) for text in ("70%", "80%", "0%")], H100)


def test_the_gain_falls_with_the_batch_and_is_gone_in_a_crowd(known: SpeculationProfile) -> None:
    for acceptance in known.acceptances[:2]:
        gains = [each.best_gain for each in known.gains(acceptance)]
        assert gains[0] > 1.5, "alone it pays"
        assert all(later <= earlier + 1e-9 for earlier, later in pairwise(gains))
        assert known.costs[-1].requests == 256
        assert gains[-1] <= 1.05
        fixed = known.fixed_gain(acceptance, known.costs[-1], 4)
        assert fixed is not None
        assert fixed < 0.95, "always drafting costs in a crowd"
    assert all(each.best_draft_tokens == 0 for each in known.gains(known.acceptances[2])), "never without acceptance"


def test_batches_whose_contexts_do_not_fit_are_left_out_and_named() -> None:
    """Seen: figures for 256 requests of 32,000 tokens each, of which the cache holds nine."""
    found = predicted_profile(LARGE, SMALL, [acceptance_of("70%", 4)], H100, context_tokens=32_000)
    target, draft = deployments(LARGE, SMALL, H100)
    assert draft is not None
    room = paired_kv_tokens(target, draft, context_tokens=32_000)
    assert all(each.requests * 32_000 <= room for each in found.costs)
    assert [each.requests for each in found.costs] + list(found.left_out) == list(BATCHES)
    assert min(found.left_out) * 32_000 > room
    console = Console(record=True, width=100, file=StringIO())
    render_profile(found, console)
    assert "left out, as their contexts do not fit into the cache: batch " in console.export_text()
    with pytest.raises(BadInput, match=r"--context-tokens: .* too few for 1 requests with 1000000 each"):
        predicted_profile(LARGE, SMALL, [acceptance_of("70%", 4)], H100, context_tokens=1_000_000)


@pytest.mark.parametrize("draft_tokens", [1, 2, 4, 8])
def test_the_break_even_acceptance_is_the_root_of_the_closed_form(known: SpeculationProfile, draft_tokens: int) -> None:
    large, small = model_facts(LARGE), model_facts(SMALL)
    target = Deployment(large, accelerator("h100-sxm"), 4, "vllm", "bf16")
    verifies, guesses = step_timer(target), pass_timer(draft_deployment(target, small))
    for costs in known.costs:
        n, read = costs.requests, 1024 + draft_tokens + 1
        each = draft_tokens + 1
        plain_s = step_s(verifies, StepWork(n, n, n * 1025, n * 1025))
        widened_s = step_s(verifies, StepWork(n * each, n, n * read, n * each * read))
        drafted_s = sum(step_s(guesses, StepWork(n, n, n * (1025 + j), n * (1025 + j))) for j in range(draft_tokens))
        relative = (widened_s + drafted_s) / plain_s
        found = known.break_even(costs, draft_tokens)
        if relative > each:
            assert found is None
            continue
        # (1 - a^(k+1)) / (1 - a) over the relative cost is 1: a polynomial in a, whose one root in [0, 1] is the answer.
        roots = np.roots([1.0] * draft_tokens + [1.0 - relative])
        (root,) = [r.real for r in roots if abs(r.imag) < 1e-9 and 0 <= r.real <= 1]
        assert (1 - root**each) / (1 - root) / relative == pytest.approx(1.0)
        assert found == pytest.approx(root, abs=1e-6)


def test_costs_say_where_they_come_from_and_reach_json(known: SpeculationProfile) -> None:
    assert [each.cost for each in known.sources] == ["verifying", "drafting"]
    assert {each.source for each in known.sources} <= {"measured", "transferred", "physics"}
    console = Console(record=True, width=100, file=StringIO())
    render_profile(known, console)
    text = console.export_text()
    assert "break even" in text
    assert "one standard deviation" in text
    told = json.loads(known.to_json())
    assert told["costs"][0]["break_even"]["4"] == known.break_even(known.costs[0], 4)
    assert told["context_tokens"] == 1024


def test_a_cost_that_is_a_guess_is_not_stated_as_a_deviation() -> None:
    """Seen: "right to about 45% (one standard deviation)" of hardware that nobody measured."""
    console = Console(record=True, width=160, file=StringIO())
    render_profile(predicted_profile(LARGE, SMALL, [acceptance_of("70%", 4)], There("mi300x", tensor_parallel=1)), console)
    text = console.export_text()
    assert text.count("(a guess)") == 2
    assert "standard deviation" not in text


def test_a_pass_is_a_step_without_the_hosts_share() -> None:
    target = Deployment(model_facts(LARGE), accelerator("h100-sxm"), 4, "vllm", "bf16")
    draft = draft_deployment(target, model_facts(SMALL))
    work = StepWork(8, 8, 8 * 500, 8 * 500)
    whole_s, pass_s = step_s(step_timer(draft), work), step_s(pass_timer(draft), work)
    assert 0 < pass_s < whole_s < pass_s + 2e-3
    assert drafting_s(pass_timer(draft), 8, 3, 499) == pytest.approx(3 * pass_s, rel=0.01)


def test_the_draft_model_takes_room_from_the_cache() -> None:
    target = Deployment(model_facts(LARGE), accelerator("h100-sxm"), 4, "vllm", "bf16")
    draft = draft_deployment(target, model_facts(SMALL))
    assert 0 < paired_kv_tokens(target, draft) < kv_capacity_tokens(target)
    assert deployments(LARGE, SMALL, H100)[0].tensor_parallel == 4, "140 GB do not fit on two"


@pytest.mark.parametrize(
    ("draft", "words"), [("qwen2.5-0.5b", "same tokenizer"), (LARGE, "name a smaller model"), ("no-such", "is not known")]
)
def test_a_draft_model_that_does_not_fit_is_refused(draft: str, words: str) -> None:
    with pytest.raises(HardwareError, match=words):
        predicted_profile(LARGE, draft, [acceptance_of("70%", 4)], H100)


def test_too_little_memory_names_what_to_change() -> None:
    with pytest.raises(HardwareError, match="raise --tensor-parallel"):
        predicted_profile(LARGE, SMALL, [acceptance_of("70%", 4)], There("h100-sxm", tensor_parallel=1))


def test_acceptance_is_a_chance_a_survival_or_a_measured_profile(tmp_path: Path) -> None:
    assert acceptance_of("50%", 3).survival == (0.5, 0.25, 0.125)
    assert acceptance_of("0.9,0.7,0.5", 15).survival == (0.9, 0.7, 0.5)
    file = tmp_path / "profile.json"
    rows = [{"name": name, "survival": [0.8, 0.6], "drafted_share": 0.5, "drafts": 40} for name in ("code", "story")]
    file.write_text(json.dumps({"acceptances": rows}))
    found = acceptance_of(f"{file}#story", 15)
    assert (found.name, found.survival, found.drafted_share, found.drafter) == ("story", (0.8, 0.6), 0.5, None)


def test_a_profile_that_was_written_is_read_with_its_drafter(known: SpeculationProfile, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(known.to_json())
    found = acceptance_of(f"{file}#{known.acceptances[0].name}", 15)
    assert (found.survival, found.drafter) == (known.acceptances[0].survival, "draft")


@pytest.mark.parametrize("text", ["", "x", "120%", "-1", "0.5,0.9", "1.2,0.3", "nan"])
def test_an_acceptance_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--acceptance"):
        acceptance_of(text, 4)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"acceptances": [{}]}', '{"acceptances": [{"survival": ["x"]}]}'])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "p.json"
    file.write_text(content)
    with pytest.raises(BadInput, match="--acceptance"):
        acceptance_of(str(file), 4)
    with pytest.raises(BadInput, match="--acceptance"):
        acceptance_of(f"{file}#none", 4)
