"""``setpoint profile-speculation``: what it takes of a requirement, before a model is looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from setpoint.cli import app
from setpoint.engine.models import ResolvedModel
from setpoint.loop.errors import BadInput
from setpoint.loop.speculation.profile import ProfileOptions
from setpoint.policy.configuration import ServingConfig, SpeculationMode

PAIRED = """name: chat
model: llama-3.1-70b
profile: {prompt_tokens: 600, output_tokens: 200, arrival: {rate: 1/s}}
speculation: {drafters: [prompt-lookup, draft], draft_model: llama-3.1-8b, acceptance: 70%}
"""
H100 = ("--hardware", "h100-sxm", "--batches", "1", "--json")


class Begun(Exception):
    """A profiler would have been made, for this configuration."""

    def __init__(self, config: ServingConfig) -> None:
        super().__init__(config)
        self.config = config


def begins(model: ResolvedModel, options: ProfileOptions) -> NoReturn:
    """Stands for ``Profiler``."""
    raise Begun(options.config)


@pytest.fixture
def requirement(tmp_path: Path) -> Path:
    """A requirement with a draft model."""
    file = tmp_path / "my.yaml"
    file.write_text(PAIRED)
    return file


def begun(monkeypatch: pytest.MonkeyPatch, *words: str) -> ServingConfig:
    """What would be profiled here."""
    model = ResolvedModel("llama-3.1-70b", Path(), 4096)
    monkeypatch.setattr("setpoint.loop.speculation.profile.Profiler", begins)
    monkeypatch.setattr("setpoint.engine.models.resolve_model", lambda *_, **__: model)
    with pytest.raises(Begun) as raised:
        app(["profile-speculation", *words], standalone_mode=False)
    return raised.value.config


def predicted(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The profile for hardware that is not here."""
    app(["profile-speculation", *words, *H100], standalone_mode=False)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_draft_model_of_a_requirement_is_profiled(monkeypatch: pytest.MonkeyPatch, requirement: Path) -> None:
    """Seen: prompt lookup was profiled in its place."""
    config = begun(monkeypatch, str(requirement))
    assert (config.speculation, config.draft_model) == (SpeculationMode.DRAFT, "llama-3.1-8b")
    other = begun(monkeypatch, str(requirement), "--draft-model", "other")
    assert other.draft_model == "other"
    alone = begun(monkeypatch, "llama-3.1-70b")
    assert (alone.speculation, alone.draft_model) == (SpeculationMode.PROMPT_LOOKUP, None)


def test_a_prediction_takes_the_draft_model_the_context_and_the_acceptance(
    capsys: pytest.CaptureFixture[str], requirement: Path
) -> None:
    told = predicted(capsys, str(requirement))
    assert (told["model"], told["draft_model"], told["context_tokens"]) == ("llama-3.1-70b", "llama-3.1-8b", 700)
    assert [each["name"] for each in told["acceptances"]] == ["0.7"]
    typed = predicted(capsys, str(requirement), "--acceptance", "50%")
    assert [each["survival"][0] for each in typed["acceptances"]] == [0.5]


def test_a_draft_model_has_a_guess_in_every_step(capsys: pytest.CaptureFixture[str], requirement: Path) -> None:
    """Seen: the share of steps in which a text holds a guess was taken for a draft model's too."""
    stated = PAIRED.replace("acceptance: 70%", "acceptance: 70%, drafted_share: 38%")
    alone = stated.replace("[prompt-lookup, draft], draft_model: llama-3.1-8b", "prompt-lookup")
    for text, share in ((stated, 1.0), (alone, 0.38)):
        requirement.write_text(text)
        assert [each["drafted_share"] for each in predicted(capsys, str(requirement))["acceptances"]] == [share]
        typed = predicted(capsys, str(requirement), "--acceptance", "50%")
        assert [each["drafted_share"] for each in typed["acceptances"]] == [share], "a typed chance says nothing of it"


def test_a_profile_of_another_drafter_is_refused(requirement: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    row = {"name": "code", "survival": [0.8, 0.6], "drafted_share": 0.4, "drafts": 40}
    profile.write_text(json.dumps({"drafter": "prompt-lookup", "acceptances": [row]}))
    with pytest.raises(BadInput, match="was measured with prompt-lookup, which says nothing of draft"):
        app(["profile-speculation", str(requirement), *H100, "--acceptance", str(profile)], standalone_mode=False)


def test_without_acceptance_nothing_is_predicted(requirement: Path) -> None:
    requirement.write_text(PAIRED.replace(", acceptance: 70%", ""))
    with pytest.raises(BadInput, match="acceptance cannot be predicted, give --acceptance"):
        app(["profile-speculation", str(requirement), *H100], standalone_mode=False)
