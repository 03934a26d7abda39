"""The pages on measuring: every option is explained, the workflow to copy is one that runs, the claims are claims."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from setpoint.cli import app
from setpoint.loop.asserts import parse_assertion
from setpoint.loop.goal import parse_goal

ROOT = Path(__file__).resolve().parents[2]
MEASURING = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
CI = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
WORKFLOW = ROOT / "docs" / "github-actions.yml"


def options(name: str) -> set[str]:
    """Every name of every option of a command."""
    command: Any = typer.main.get_command(app)
    named = (option for each in command.commands[name].params for option in (*each.opts, *each.secondary_opts))
    return {option for option in named if option.startswith("--")} - {"--help"}


@pytest.mark.parametrize("option", sorted(options("measure")))
def test_every_option_of_measure_is_explained(option: str) -> None:
    assert re.search(rf"`{option}[ `|]", MEASURING), f"{option} is not in docs/measuring.md"


def test_no_option_is_explained_that_is_not_there() -> None:
    known = options("measure") | options("compare") | options("serve")
    named = set(re.findall(r"`(--[a-z-]+)", MEASURING + CI))
    assert named <= known, named - known


def test_every_claim_and_goal_of_the_pages_can_be_made() -> None:
    text = MEASURING + CI + WORKFLOW.read_text(encoding="utf-8")
    claims = re.findall(r"--assert '([^']+)'", text)
    assert len(claims) > 8
    for claim in claims:
        parse_assertion(claim)
    goals = re.findall(r"--until '([^']+)'", text)
    assert goals
    for goal in goals:
        parse_goal(goal)


def test_the_workflow_is_one_and_its_commands_parse() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    # YAML 1.1 reads the key "on" as true.
    assert workflow.get("on", workflow.get(True)) == ["push"]
    (job,) = workflow["jobs"].values()
    assert job["runs-on"]
    steps = job["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    group: Any = typer.main.get_command(app)
    commands = [line for step in steps for line in step.get("run", "").splitlines() if line.strip().startswith("setpoint ")]
    assert [shlex.split(line)[1] for line in commands] == ["serve", "measure"]
    for line in commands:
        _, name, *words = shlex.split(line.removesuffix("&"))
        group.commands[name].make_context(name, words)


def test_what_the_workflow_keeps_is_what_it_wrote() -> None:
    steps = next(iter(yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()))["steps"]
    (measured,) = (step["run"] for step in steps if step.get("name") == "Measure")
    words = shlex.split(measured)
    written = {words[words.index(option) + 1] for option in ("--junit", "--csv", "--output")}
    assert set(steps[-1]["with"]["path"].split()) == written
