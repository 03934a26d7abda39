"""``setpoint explain``."""

from __future__ import annotations

from typing import Annotated

import typer

EXPLAIN_EXAMPLES = """Examples:

- `setpoint explain runs/coding-assistant` : why requests were shed or late, and what the policies did

- `setpoint explain runs/coding-assistant --candidate continuous-64` : another candidate of a tune run

- `setpoint explain runs/coding-assistant --request 8f3a-117` : one request's whole story (a part of its id will do)

- `setpoint explain runs/coding-assistant --json --no-replay` : for a program, without the replays

Exit codes: 0 explained, 2 bad input.
"""


def explain(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder that measure or tune wrote, or the run's id, or latest.")
    ],
    candidate: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a run with several; default: the chosen one.")
    ] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="Tell the story of this request alone.")] = None,
    replay: Annotated[bool, typer.Option(help="Replay the arrivals without the policy, on a virtual clock.")] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the explanation as JSON.")] = False,
) -> int:
    """Why requests were shed or late, whether each policy could have fired, and what the queue had been without it."""
    from rich.console import Console

    from setpoint.commands.showing import written
    from setpoint.loop.console import say
    from setpoint.loop.explain.explain import explain_request, explain_run
    from setpoint.loop.explain.terminal import render_explanation, render_story
    from setpoint.loop.store.listing import folder_of
    from setpoint.record import EXIT_MET

    folder = folder_of(run)
    if request is not None:
        told = explain_request(folder, candidate, request)
        written(lambda: print(told.to_json()) if json_output else render_story(told, Console(highlight=False)))
        return EXIT_MET
    found = explain_run(folder, candidate, replays=replay, say=say)
    written(lambda: print(found.to_json()) if json_output else render_explanation(found, Console(highlight=False)))
    return EXIT_MET
