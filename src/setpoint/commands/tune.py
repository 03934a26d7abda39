"""``setpoint tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from setpoint.commands.options import EXIT_CODES
from setpoint.commands.showing import show
from setpoint.loop.errors import BadInput
from setpoint.loop.flags import MAX_SEED, option
from setpoint.loop.interrupts import EXIT_INTERRUPTED

TUNE_EXAMPLES = f"""Examples:

- `setpoint tune my.yaml` : the report goes to runs/NAME

- `setpoint tune my.yaml --budget 5m --output runs/my --duration 60s --seed 7`

- `setpoint tune my.yaml --output runs/my --resume` : go on where it was cut short, with the same load

- `setpoint tune my.yaml --only static-8 --only continuous-8 --json`

Ctrl-C keeps the measurements that are complete. {EXIT_CODES}
"""


def tune(
    requirement: Annotated[Path, typer.Argument(metavar="REQUIREMENT.yaml", help="What the application needs.")],
    output: Annotated[Path | None, option("DIR", "Run folder; default: runs/NAME.")] = None,
    duration: Annotated[
        str | None, option("TIME", "Length of each sustained phase, such as 60s; default: what the percentiles take.")
    ] = None,
    seed: Annotated[int | None, option("N", "Seed of arrivals, lengths and prompts; default: 0.", min=0, max=MAX_SEED)] = None,
    budget: Annotated[
        str | None,
        option("TIME", "Begin no measurement that would not end within this from now, such as 5m; default: no bound."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what is kept in the run folder, with its seed and its phases.")
    ] = False,
    only: Annotated[list[str] | None, option("CANDIDATE", "Measure only this candidate; may be repeated.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Measure each of a short fixed list instead.")] = False,
    calibration: Annotated[
        Path | None,
        option("RUN|FILE", "What to believe of the machine at first: a run folder, or what 'hardware calibrate' wrote."),
    ] = None,
    acceptance: Annotated[
        str | None,
        option(
            "SHARE",
            "How many guesses come true: 75%, 0.9,0.7,0.5, or FILE.json[#WORK] of a profile; default: the requirement's.",
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> int:
    """The loop: forecast, serve, measure, calibrate, until nothing better is left; the report shows why."""
    from setpoint.loop.candidates import candidates_for
    from setpoint.loop.folder import default_folder
    from setpoint.loop.shorthand import minutes_or_seconds, seconds
    from setpoint.loop.speculation.candidates import with_acceptance
    from setpoint.loop.tune import TuneOptions
    from setpoint.loop.tune import tune as run_tune
    from setpoint.loop.tuning.going_on import TypedLoad, load_for
    from setpoint.loop.tuning.space import space_for
    from setpoint.requirement import load_requirement

    needed = with_acceptance(load_requirement(requirement), acceptance)
    space = dict(candidates_for(needed) if grid else space_for(needed))
    for name in only or ():
        if name not in space:
            raise BadInput(f"--only {name}: not a candidate; the candidates are {', '.join(space)}")
    chosen = {name: config for name, config in space.items() if not only or name in only}
    folder = output or default_folder(needed.name)
    fixed = grid or bool(only)
    sustained_s = seconds("duration", duration, positive=True) if duration is not None else None
    budget_s = minutes_or_seconds("budget", budget) if budget is not None else None
    typed = TypedLoad(seed=seed, sustained_s=sustained_s, budget_s=None if fixed else budget_s)
    load = load_for(needed, typed, kept_in=folder if resume else None)
    options = TuneOptions(
        output=folder,
        schedule=load.schedule,
        seed=load.seed,
        fixed=fixed,
        budget_s=budget_s,
        resume=resume,
        calibration=calibration,
        acceptance=acceptance,
    )
    tuned = run_tune(requirement, chosen, options)
    show(tuned.report, folder, json_output=json_output)
    return EXIT_INTERRUPTED if tuned.interrupted else tuned.report.exit_code()
