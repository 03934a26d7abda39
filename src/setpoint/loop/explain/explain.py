"""``setpoint explain``: the three answers about a run, and one request's story."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from setpoint.loop.explain.causes import causes
from setpoint.loop.explain.explanation import Explanation, Story
from setpoint.loop.explain.life import StepCosts
from setpoint.loop.explain.policies import policy_findings
from setpoint.loop.explain.run import ExplainedRun, read_explained
from setpoint.loop.explain.story import story
from setpoint.loop.explain.without import counterfactual, why_no_replay
from setpoint.record import RequestClass
from setpoint.simulate.machine import MeasuredMachine, fitted_machine


def explain_run(
    folder: Path, candidate: str | None, *, replays: bool = True, say: Callable[[str], None] | None = None
) -> Explanation:
    """The three answers; ``replays=False`` leaves the third out. Raises ``BadInput`` or ``RunFolderError``."""
    run = read_explained(folder, candidate)
    cannot = _cannot(run)
    why_not = why_no_replay(run) if replays else None
    if why_not is not None:
        cannot.append(why_not)
    machine = None if run.steps is None else fitted_machine(run.steps.measured)
    if replays and why_not is None and say is not None:
        say(f"replaying {run.table.num_rows} requests on a virtual clock")
    return Explanation(
        run=str(folder),
        candidate=run.candidate.name,
        configuration=_configuration(run),
        phases=sorted({row["phase"] for row in run.rows}),
        offered=len(run.rows),
        classes={str(each): sum(row["request_class"] == each for row in run.rows) for each in RequestClass},
        causes=causes(run, _costs(run, machine)),
        policies=policy_findings(run),
        without=counterfactual(run, machine) if replays and why_not is None and machine is not None else None,
        cannot=cannot,
    )


def explain_request(folder: Path, candidate: str | None, request_id: str) -> Story:
    """One request's story. Raises ``BadInput`` or ``RunFolderError``."""
    run = read_explained(folder, candidate)
    machine = None if run.steps is None else fitted_machine(run.steps.measured)
    return story(run, request_id, _costs(run, machine))


def _costs(run: ExplainedRun, machine: MeasuredMachine | None) -> StepCosts | None:
    if run.steps is None or machine is None:
        return None
    _, token_s, *_ = machine.model.coefficients
    return StepCosts.of(run.steps, token_s)


def _configuration(run: ExplainedRun) -> str:
    if run.config is None:
        return "unknown: not a server of setpoint's"
    config = run.config
    words = f"{config.mode}, at most {config.max_running} running, {config.token_budget} tokens a step"
    if run.inferred:
        return f"{words} (read off the steps: the run does not tell it)"
    return f"{words}, at most {config.max_waiting} waiting"


def _cannot(run: ExplainedRun) -> list[str]:
    """What the record of this run does not allow to be said."""
    found = []
    if run.decisions is None:
        why = (
            "this server is not setpoint's"
            if run.steps is None and not run.no_step_ran
            else "it was measured before decisions were recorded"
        )
        found.append(f"Why the server refused or delayed a request cannot be told: the run has no decisions.parquet ({why}).")
    if run.no_step_ran:
        found.append("The engine ran no step in this run: every request was refused, dropped or failed before one.")
    elif run.steps is None:
        found.append("Slow steps cannot be told from wide ones: the run has no steps.parquet.")
    if run.missing_decisions:
        found.append(f"{run.missing_decisions} decisions were overwritten in the server before they were read.")
    if run.requirement is None:
        found.append("Which limit a late request missed cannot be told: the run has no requirement that this version can read.")
    return found
