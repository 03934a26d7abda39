"""Measurements that are kept are found again for the same question, and for no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tuning_world import NEEDED, SCHEDULE, SPACE, VirtualMachine, requirement

from setpoint.loop.tuning import keeping
from setpoint.loop.tuning.keeping import Keeper, SharedLoad, kept_load
from setpoint.loop.tuning.space import space_for
from setpoint.loop.tuning.trial import Trial

NAME = "continuous-16"


def kept(folder: Path) -> tuple[Keeper, Trial]:
    keeper = Keeper(folder, requirement(), SCHEDULE, 0)
    trial = VirtualMachine(requirement())(NAME, SPACE[NAME])
    keeper.keep(trial)
    return keeper, trial


def test_what_was_kept_is_the_measurement(tmp_path: Path) -> None:
    keeper, trial = kept(tmp_path)
    (found,) = keeper.kept(SPACE, print)
    assert found.resumed
    assert (found.name, found.config, found.run.slo) == (trial.name, trial.config, trial.run.slo)
    assert found.run.measured == trial.run.measured
    assert found.run.steps == trial.run.steps
    assert found.run.decisions == trial.run.decisions
    assert found.run.requests == trial.run.requests
    keeper.keep(replace(trial, name="static-8", config=SPACE["static-8"]))
    assert [each.name for each in keeper.kept(SPACE, print)] == [NAME, "static-8"]


def test_another_question_finds_nothing_and_says_why(tmp_path: Path) -> None:
    keeper, _ = kept(tmp_path)
    said: list[str] = []
    other = requirement().model_copy(update={"name": "other"})
    assert Keeper(tmp_path, other, SCHEDULE, 0).kept(SPACE, said.append) == []
    assert Keeper(tmp_path, requirement(), SCHEDULE, 1).kept(SPACE, said.append) == []
    assert Keeper(tmp_path, requirement(), replace(SCHEDULE, warmup_s=9.0), 0).kept(SPACE, said.append) == []
    assert keeper.kept({NAME: SPACE["static-8"]}, said.append) == []
    assert [each.rpartition(" ")[2] for each in said] == ["requirement", "seed", "schedule", "configurations"]
    info = next((tmp_path / "measured").glob("*/run.json"))
    info.write_text(json.dumps(json.loads(info.read_text()) | {"sources": "other"}))
    assert keeper.kept(SPACE, said.append) == []
    assert said[-1].endswith("with other sources")


def test_what_is_said_of_guesses_makes_it_no_other_question(tmp_path: Path) -> None:
    """Seen: --resume without the --acceptance of before threw away every measurement, though only forecasts read it."""
    stated = requirement(NEEDED + "speculation: {drafters: [prompt-lookup], acceptance: [0.9, 0.8], drafted_share: 38%}\n")
    space = {**SPACE, **space_for(stated)}
    keeper = Keeper(tmp_path, stated, SCHEDULE, 0)
    for name in (NAME, "setpoint-16-lookup"):
        keeper.keep(replace(VirtualMachine(requirement())(NAME, SPACE[NAME]), name=name, config=space[name]))
    unstated = requirement(NEEDED + "speculation: {drafters: [prompt-lookup]}\n")
    assert kept_load(tmp_path, unstated) == SharedLoad(0, SCHEDULE)
    said: list[str] = []
    again = Keeper(tmp_path, unstated, SCHEDULE, 0)
    assert [each.name for each in again.kept(space, said.append)] == [NAME, "setpoint-16-lookup"]
    assert [each.name for each in again.kept({**SPACE, **space_for(unstated)}, said.append)] == [NAME]
    assert [each.rpartition(" ")[2] for each in said] == ["configurations"], "what drafts is no candidate without acceptance"


def test_what_was_measured_on_another_machine_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, _ = kept(tmp_path)
    assert kept_load(tmp_path, requirement()) == SharedLoad(0, SCHEDULE)
    monkeypatch.setattr(keeping, "here", lambda: "a copy of the folder's new place")
    said: list[str] = []
    assert keeper.kept(SPACE, said.append) == []
    assert said[0].startswith(f"01-{NAME} is not taken up again: it was measured on another machine (")
    assert said[0].endswith("; this one is a copy of the folder's new place)")
    assert kept_load(tmp_path, requirement()) is None


def test_the_load_of_what_is_kept_is_that_of_the_same_requirement(tmp_path: Path) -> None:
    kept(tmp_path)
    assert kept_load(tmp_path, requirement().model_copy(update={"name": "other"})) is None
    assert kept_load(tmp_path / "nothing", requirement()) is None
    info = next((tmp_path / "measured").glob("*/run.json"))
    whole = json.loads(info.read_text())
    info.write_text(json.dumps(whole | {"schedule": {"minutes": 1}}))
    assert kept_load(tmp_path, requirement()) is None
    info.write_text(json.dumps(whole | {"seed": 9}))
    assert kept_load(tmp_path, requirement()) == SharedLoad(9, SCHEDULE)


def test_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    keeper, _ = kept(tmp_path)
    next((tmp_path / "measured").glob("*/requests.parquet")).write_bytes(b"no")
    said: list[str] = []
    assert keeper.kept(SPACE, said.append) == []
    assert "cannot be read" in said[0]


def test_forgetting_takes_all_away(tmp_path: Path) -> None:
    keeper, _ = kept(tmp_path)
    keeper.forget()
    assert keeper.kept(SPACE, print) == []
    keeper.forget()
