"""``setpoint runs``: the index of runs, trends of a requirement, and calibrations that runs left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Runs that were made on this machine or put into its index: list, show, compare over time, forget.",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Examples:\n\n- `setpoint runs` : the latest\n\n"
    "- `setpoint runs --requirement coding-assistant --verdict missed --since 3d`\n\n"
    "- `setpoint runs --reindex runs` : (again) from the folders\n\n- `setpoint runs trend coding-assistant`\n\n"
    "- `setpoint runs prune` : out with those whose folder is gone",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Run = Annotated[str, typer.Argument(metavar="ID", help="Of a run, or its beginning; latest, previous.")]
Kind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="tune, measure, simulate or plan.")]


@app.callback(invoke_without_command=True)
def runs(
    context: typer.Context,
    requirement: Annotated[str | None, typer.Option(metavar="NAME", help="Of a requirement, or a part of it.")] = None,
    kind: Kind = None,
    machine: Annotated[
        str | None, typer.Option(metavar="NAME", help="this-machine, or a part of what ran or was simulated.")
    ] = None,
    verdict: Annotated[str | None, typer.Option(metavar="VERDICT", help="met, missed, inconclusive or invalid.")] = None,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="2026-11-02, or how long ago: 12h, 3d.")] = None,
    most: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="Show at most so many.")] = 20,
    reindex: Annotated[
        Path | None, typer.Option("--reindex", metavar="DIR", help="First put in every run below this folder.")
    ] = None,
    json_output: Json = False,
) -> int:
    """List runs, the latest first. Every command that writes a run folder adds to the index by itself."""
    if context.invoked_subcommand is not None:
        return 0
    import time

    from setpoint.loop.console import say
    from setpoint.loop.store.listing import filters, listed
    from setpoint.loop.store.register import reindex as put_in
    from setpoint.loop.store.terminal import render_runs

    wanted = filters(requirement, kind, machine, verdict, since, time.time())
    index = _index()
    if reindex is not None:
        done = put_in(index, reindex)
        say(f"{done.runs} runs below {reindex}, {done.new} of them new")
        for folder, why in done.refused[:5]:
            say(f"left out: {folder}: {why}")
        if len(done.refused) > 5:
            say(f"and {len(done.refused) - 5} more left out")
    entries = index.entries()
    found = listed(entries, wanted, most)
    total = sum(wanted.holds(each) for each in entries)
    _shown(
        [{**entry.as_dict(), "state": state.value} for entry, state in found],
        json_output,
        lambda console: render_runs(found, total, console),
    )
    return 0


@app.command()
def show(run: Run, json_output: Json = False) -> int:
    """What the index knows of one run, also when its folder is gone."""
    from setpoint.loop.store.listing import found_run, state_of
    from setpoint.loop.store.terminal import render_run

    entry = found_run(_index(), run)
    state = state_of(entry)
    _shown({**entry.as_dict(), "state": state.value}, json_output, lambda console: render_run(entry, state, console))
    return 0


@app.command()
def trend(
    requirement: Annotated[str, typer.Argument(metavar="REQUIREMENT", help="Its name, or its file.")],
    of: Annotated[str | None, typer.Option("--of", metavar="NAME", help="ttft, itl or e2e; default: ttft.")] = None,
    burst: Annotated[bool, typer.Option("--burst", help="Of the burst, not of the sustained phase.")] = False,
    kind: Kind = None,
    json_output: Json = False,
) -> int:
    """P50, P99, goodput and verdict of a requirement's runs over time, and what changed between them."""
    from setpoint.loop.store.terminal import render_trend
    from setpoint.loop.store.trend import trend as trend_of

    found = trend_of(_index().entries(), requirement, quantity=of, phase="burst" if burst else "sustained", kind=kind)
    _shown(found.as_dict(), json_output, lambda console: render_trend(found, console))
    return 0


@app.command()
def calibrations(json_output: Json = False) -> int:
    """Step times that were learned on this machine: from which run, when, how sure, and whether they still hold."""
    from setpoint.hardware.calibrations import StepsCalibration
    from setpoint.hardware.calibrations import calibrations as every
    from setpoint.loop.store.terminal import render_calibrations

    found = [each for each in every() if isinstance(each, StepsCalibration)]
    described = [
        {
            "name": each.name,
            "relative_error": each.relative_error,
            "provenance": each.provenance.as_dict() if each.provenance else None,
            "note": each.note,
            "stale": each.stale(),
        }
        for each in found
    ]
    _shown(described, json_output, lambda console: render_calibrations(found, console))
    return 0


@app.command()
def forget(
    runs: Annotated[list[str], typer.Argument(metavar="ID...", help="Runs to take out of the index.")],
    delete_folders: Annotated[bool, typer.Option("--delete-folders", help="Delete their folders too.")] = False,
) -> int:
    """Take runs out of the index; their folders stay unless you ask."""
    from setpoint.loop.console import say
    from setpoint.loop.store.forgetting import delete_run
    from setpoint.loop.store.listing import found_run

    index = _index()
    found = [found_run(index, each) for each in runs]
    for entry in found:
        if delete_folders:
            delete_run(entry)
    index.forget(each.id for each in found)
    for entry in found:
        left = "stays" if not delete_folders else "keeps files of yours" if Path(entry.folder).exists() else "was deleted"
        say(f"forgot run {entry.id}; {entry.folder} {left}")
    return 0


@app.command()
def prune() -> int:
    """Take runs out of the index whose folder is gone or holds another run now."""
    from setpoint.loop.console import say
    from setpoint.loop.store.listing import lost

    index = _index()
    count = index.forget([each.id for each in lost(index.entries())])
    say(f"{count} runs whose folder is gone or holds another run were taken out; {len(index.entries())} stay")
    return 0


def _index() -> Any:
    from setpoint.loop.console import say
    from setpoint.loop.store.index import RunIndex

    return RunIndex(say=say)


def _shown(document: Any, json_output: bool, render: Any) -> None:
    from rich.console import Console

    from setpoint.commands.showing import written

    written(lambda: print(json.dumps(document, indent=1)) if json_output else render(Console(highlight=False)))
