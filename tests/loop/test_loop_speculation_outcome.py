"""What follows from a profile of speculation: gains against the closed form, the verdict in words, prompts from files."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from setpoint.engine.request import InvalidRequest
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.loop.errors import BadInput
from setpoint.loop.speculation.outcome import Acceptance, SpeculationProfile, StepCosts, gain, survival_of
from setpoint.loop.speculation.prompts import shipped_work, work_from_file
from setpoint.loop.speculation.terminal import render_profile
from setpoint.policy.survival import constant_acceptance, expected_tokens
from setpoint.workload.kinds import KINDS, WorkloadKind

ALONE = StepCosts(1, {0: 10e-3, 1: 11e-3, 4: 12e-3}, {})
CROWD = StepCosts(16, {0: 40e-3, 1: 60e-3, 4: 120e-3}, {})


def accepted(acceptance: float, share: float = 1.0) -> Acceptance:
    return Acceptance("work", constant_acceptance(acceptance, 4).survival, share, 100)


def profile(*acceptances: Acceptance) -> SpeculationProfile:
    return SpeculationProfile("model", "prompt-lookup", None, acceptances, (ALONE, CROWD), change_s=1e-3)


def test_a_draft_in_every_step_is_the_closed_form() -> None:
    assert gain(accepted(0.7), ALONE, 4, 1e-3) == pytest.approx(expected_tokens(0.7, 4) * 10 / 12)
    assert gain(accepted(0.7, share=0.0), ALONE, 4, 1e-3) == pytest.approx(1.0)


def test_a_draft_in_half_of_the_steps_also_pays_for_changes() -> None:
    expected = (0.5 * expected_tokens(0.7, 4) + 0.5) * 10 / (0.5 * 12 + 0.5 * 10 + 0.5)
    assert gain(accepted(0.7, share=0.5), ALONE, 4, 1e-3) == pytest.approx(expected)


def test_the_verdict_says_where_it_pays_and_what_it_would_cost() -> None:
    told = profile(accepted(0.7), accepted(0.05))
    alone, crowd = told.gains(told.acceptances[0])
    assert (alone.best_draft_tokens, crowd.best_draft_tokens) == (4, 1)
    assert told.verdict(told.acceptances[0]).startswith("pays up to batch 16: 2.3x at batch 1")
    assert told.verdict(told.acceptances[1]).startswith("does not pay at any batch measured; always drafting would cost")
    assert crowd.break_even == pytest.approx(0.5)
    console = Console(record=True, width=200, file=StringIO())
    render_profile(told, console)
    assert "pays up to batch 16" in console.export_text()
    assert json.loads(told.to_json())["acceptances"][1]["gains"][0]["best_draft_tokens"] == 0


def test_a_batch_that_pays_beyond_one_that_does_not_is_no_upper_end() -> None:
    """Seen: with batch 16 paying and batch 4 not, the verdict was "pays up to batch 16"."""
    between = StepCosts(4, {0: 10e-3, 1: 30e-3, 4: 90e-3}, {})
    told = SpeculationProfile("model", "prompt-lookup", None, (accepted(0.7),), (CROWD, between, ALONE), change_s=1e-3)
    words = told.verdict(told.acceptances[0])
    assert words.startswith("pays up to batch 1: 2.3x at batch 1; again 1.1x at batch 16; always drafting would cost")
    without = SpeculationProfile("model", "prompt-lookup", None, (accepted(0.7),), (between, CROWD), change_s=1e-3)
    assert without.verdict(without.acceptances[0]).startswith("does not pay at batch 4, but 1.1x at batch 16")


def test_measured_shares_never_rise() -> None:
    assert survival_of([8, 5, 5, 0], [10, 6, 4, 0]) == (0.8, 0.8, 0.8)


class Bytes:
    """A tokenizer whose tokens are bytes."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def render_chat(self, messages: list[dict[str, str]]) -> str:
        if messages[0]["role"] != "user":
            raise InvalidRequest("roles must alternate", "messages")
        return messages[0]["content"]


TOKENIZER = cast(ModelTokenizer, Bytes())


def test_shipped_prompts_differ_and_stay_the_same() -> None:
    once, again = (shipped_work(list(WorkloadKind), TOKENIZER, 8) for _ in range(2))
    assert once == again
    for kind, requests in once.items():
        assert len({request.prompt_ids for request in requests}) >= 6, kind
    assert {KINDS[kind].temperature for kind in WorkloadKind} == {0.0, 1.0}


def test_prompts_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "one"}\n\n{"messages": [{"role": "user", "content": "two"}]}\n')
    work = work_from_file(file, TOKENIZER, temperature=0.5, output_tokens=9, most_tokens=100)
    assert [bytes(request.prompt_ids) for request in work["mine"]] == [b"one", b"two"]
    assert work["mine"][0].sampling.max_tokens == 9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no prompt"),
        ("{}\n", "line 1"),
        ('{"prompt": "a"}\nb\n', "line 2"),
        ('\n{"messages": [{"role": "tool", "content": "a"}]}\n', "line 2: roles must alternate"),
        ('{"prompt": "a"}\n{"prompt": "' + 100 * "b" + '"}\n', "line 2 has 100 tokens, give 1 to 99"),
        ('{"messages": [{"role": "user", "content": ""}]}\n', "line 1 has 0 tokens"),
    ],
)
def test_files_that_are_no_prompts_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(text)
    with pytest.raises(BadInput, match=words) as told:
        work_from_file(file, TOKENIZER, temperature=0.0, output_tokens=9, most_tokens=100)
    assert str(file) in str(told.value)
    with pytest.raises(BadInput, match="cannot be read"):
        work_from_file(tmp_path / "none.jsonl", TOKENIZER, temperature=0.0, output_tokens=9, most_tokens=100)
