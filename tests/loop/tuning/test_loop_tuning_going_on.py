"""A tuning goes on from what is kept, whatever else the command line says that leaves the load as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tuning_world import NEEDED, VirtualMachine, requirement

from setpoint.cli import app
from setpoint.commands import tune as command
from setpoint.loop import tune as loop
from setpoint.loop.errors import BadInput
from setpoint.loop.schedule import lengthened, schedule_for
from setpoint.loop.tune import Tuned, TuneOptions
from setpoint.loop.tuning.keeping import Keeper
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Report, Validity
from setpoint.requirement import load_requirement

NAME = "continuous-8"
NOTHING = Report(kind="tune", requirement=None, machine={}, candidates=[], chosen=None, why="", validity=Validity(valid=True))


@dataclass
class OneMore:
    """Stands for the loop: takes up what is kept as it does, and measures ``NAME`` once more on a machine that is not there.

    given: the options of each call. taken: how many measurements each took up.
    """

    given: list[TuneOptions] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)

    def __call__(self, file: Path, candidates: Mapping[str, ServingConfig], options: TuneOptions) -> Tuned:
        needed = load_requirement(file)
        keeper = Keeper(options.output, needed, options.schedule, options.seed)
        self.taken.append(len(loop._kept(keeper, candidates, options)))
        self.given.append(options)
        keeper.keep(VirtualMachine(needed)(NAME, candidates[NAME]))
        return Tuned(NOTHING)


@dataclass
class Line:
    """The command line in a folder with a requirement, and what came of it."""

    folder: Path
    went: OneMore = field(default_factory=OneMore)

    def tune(self, words: str, *, text: str = NEEDED) -> TuneOptions:
        """What ``setpoint tune`` makes of ``words``."""
        file = self.folder / "my.yaml"
        file.write_text(text, encoding="utf-8")
        app(["tune", str(file), "--output", str(self.folder / "run"), *words.split()], standalone_mode=False)
        return self.went.given[-1]


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    made = Line(tmp_path)
    monkeypatch.setattr(loop, "tune", made.went)
    monkeypatch.setattr(command, "show", lambda *_, **__: None)
    return made


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("--budget 5m", "--budget 10m --resume"),
        ("--budget 5m", "--resume"),
        ("", "--budget 10m --resume"),
        ("--budget 5m --duration 120 --seed 7", "--resume"),
        ("--budget 5m --duration 60s --seed 7", "--duration 1min --seed 7 --resume --budget 1m"),
        (f"--only {NAME} --seed 3", "--resume"),
        ("--budget 5m --seed 3", "--grid --resume"),
    ],
)
def test_what_was_measured_is_taken_up_and_its_load_kept(line: Line, first: str, then: str) -> None:
    before, after = line.tune(first), line.tune(then)
    assert line.went.taken == [0, 1]
    assert (after.seed, after.schedule) == (before.seed, before.schedule)
    line.tune("--resume")
    assert line.went.taken == [0, 1, 2]


def test_a_budget_makes_phases_longer_only_where_none_is_fixed(line: Line) -> None:
    needed = requirement()
    short = schedule_for(needed)
    alone, longer = line.tune("--budget 10m"), line.tune("--budget 5m")
    assert alone.schedule == lengthened(short, needed, 600.0)
    assert longer.schedule == lengthened(short, needed, 300.0)
    assert short.sustained_s < longer.schedule.sustained_s < alone.schedule.sustained_s
    on = line.tune("--budget 10m --resume")
    assert (on.schedule, on.budget_s) == (longer.schedule, 600.0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--seed 0", r"--seed 0: what is kept in .*run was measured with seed 7; leave --seed out to go on from it"),
        ("--duration 60", r"--duration 60: what is kept in .*run was measured with sustained phases of 120 s; leave --dur"),
    ],
)
def test_an_option_that_contradicts_what_is_kept_is_one_sentence(line: Line, words: str, says: str) -> None:
    line.tune("--duration 120 --seed 7")
    with pytest.raises(BadInput, match=says):
        line.tune(f"{words} --resume")
    assert line.went.taken == [0]
    assert line.tune(words).seed == 0


def test_where_nothing_kept_answers_the_requirement_the_options_decide(line: Line) -> None:
    assert line.tune("--seed 5 --duration 30 --resume").seed == 5
    other = line.tune("--duration 60 --resume", text=NEEDED.replace("400ms", "300ms"))
    assert (other.seed, other.schedule.sustained_s) == (0, 60.0)
    assert line.went.taken == [0, 0]
    again = line.tune("--resume")
    assert (again.seed, again.schedule.sustained_s) == (5, 30.0)
    assert line.went.taken == [0, 0, 1]
