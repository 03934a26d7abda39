"""``setpoint simulate --speculation``: what is asked for, what the report says of it, mistakes in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from setpoint.cli import app
from setpoint.loop.errors import BadInput
from setpoint.record import PhaseMeasures, Report

LOAD = ("--rate", "0.2/s", "--requests", "12", "--prompt-tokens", "128", "--output-tokens", "100", "--warmup", "0s")
PAIR = ("--model", "llama-3.1-70b", "--hardware", "h100-sxm", "--tensor-parallel", "4")
DRAFT = ("--speculation", "draft", "--draft-model", "llama-3.1-8b")
LOOKUP = ("--speculation", "prompt-lookup")


def simulated(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Report, PhaseMeasures]:
    app(["simulate", *PAIR, *LOAD, *words, "--json"], standalone_mode=False)
    report = Report.model_validate_json(capsys.readouterr().out)
    predicted = report.candidates[0].predicted
    assert predicted is not None
    return report, predicted.sustained


def test_drafts_speed_up_a_calm_load_and_their_cost_is_labelled(capsys: pytest.CaptureFixture[str]) -> None:
    plain_report, plain = simulated(capsys)
    report, drafted = simulated(capsys, *DRAFT, "--acceptance", "80%")
    assert plain.acceptance_length is None
    assert drafted.acceptance_length is not None
    assert 2.0 < drafted.acceptance_length < 5.0
    assert (drafted.tpot_s.mean or 1) < (plain.tpot_s.mean or 0) / 1.5
    assert drafted.output_tokens_per_s == pytest.approx(plain.output_tokens_per_s, rel=0.2), "the load is the same"
    told = (report.load or {})["speculation"]
    assert told["source"] in ("measured", "transferred", "physics")
    assert told["accepted_tokens"] == sum(told["accepted_per_position"])
    assert any("cost of drafting" in reason for reason in report.validity.reasons)
    assert "speculation" not in (plain_report.load or {})
    kv = [(each.load or {})["simulated"]["kv_tokens"] for each in (plain_report, report)]
    assert kv[1] < kv[0], "the draft model takes room"


def test_a_measured_profile_and_a_requirement_say_how_many_come_true(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "profile.json"
    row = {"name": "code", "survival": [0.9, 0.8, 0.7], "drafted_share": 0.6, "drafts": 90}
    profile.write_text(json.dumps({"acceptances": [row]}))
    report, _ = simulated(capsys, *LOOKUP, "--acceptance", str(profile))
    told = (report.load or {})["speculation"]
    assert (told["name"], told["drafted_share"]) == ("code", 0.6)
    assert report.candidates[0].config["max_draft_tokens"] == 3
    assert "source" not in told, "guesses from the text are free"
    profile.write_text(json.dumps({"drafter": "prompt-lookup", "acceptances": [row]}))
    with pytest.raises(BadInput, match="was measured with prompt-lookup, which says nothing of draft"):
        simulated(capsys, *DRAFT, "--acceptance", str(profile))
    file = tmp_path / "my.yaml"
    file.write_text(
        "name: chat\nprofile: {prompt_tokens: 128, output_tokens: 100, arrival: {rate: 1/s}}\n"
        "speculation: {drafters: draft, draft_model: llama-3.1-8b, acceptance: 70%, drafted_share: 38%}\n"
    )
    report, _ = simulated(capsys, str(file), "--speculation", "draft", "--engine", "vllm", "--draft-tokens", "3")
    assert report.candidates[0].config["draft_tokens"] == 3
    assert (report.load or {})["speculation"]["accepted_per_position"][2:] != []
    assert (report.load or {})["speculation"]["drafted_share"] == 1.0, "a draft model always has a guess"
    report, _ = simulated(capsys, str(file), *LOOKUP, "--acceptance", "70%")
    assert (report.load or {})["speculation"]["drafted_share"] == 0.38, "a typed chance says nothing of it"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--speculation", "eagle"), "--speculation eagle: allowed are off, prompt-lookup, draft"),
        (("--draft-model", "llama-3.1-8b"), "--draft-model: only read with --speculation"),
        (("--acceptance", "70%"), "--acceptance: only read with --speculation"),
        (LOOKUP, "give --acceptance"),
        ((*LOOKUP, "--acceptance", "often"), "--acceptance often: allowed"),
        ((*LOOKUP, "--acceptance", "70%", "--draft-model", "llama-3.1-8b"), "--draft-model: prompt-lookup has none"),
        (("--speculation", "draft", "--acceptance", "70%"), "give it with --draft-model"),
        (("--speculation", "draft", "--acceptance", "70%", "--draft-model", "qwen2.5-0.5b"), "same tokenizer"),
        (("--speculation", "draft", "--acceptance", "70%", "--draft-model", "llama-3.1-70b"), "name a smaller model"),
        (("--speculation", "draft", "--acceptance", "70%", "--draft-model", "no-such"), "--draft-model no-such"),
        ((*LOOKUP, "--acceptance", "0.9,0.5", "--draft-tokens", "4"), "--draft-tokens 4"),
        ((*LOOKUP, "--acceptance", "70%", "--engine", "vllm"), "--draft-tokens"),
        ((*LOOKUP, "--acceptance", "none.json"), "--acceptance none.json: cannot be read"),
    ],
)
def test_a_mistake_names_the_option_and_the_fix(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput) as raised:
        app(["simulate", *PAIR, *LOAD, *words], standalone_mode=False)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
