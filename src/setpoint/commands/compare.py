"""``setpoint compare``."""

from __future__ import annotations

from typing import Annotated

import typer

COMPARE_EXAMPLES = """Examples:

- `setpoint compare runs/before runs/after` : what changed, with confidence

- `setpoint compare previous latest` : the last two of one requirement; ids of `setpoint runs` do as well

- `setpoint compare runs/a1 runs/b1 runs/a2 runs/b2` : two sides measured in turn, which is fairer on a shared machine

Exit codes: 0 nothing is shown to be worse in the second, 1 something is, allowing for the number of figures compared,
2 bad input.
"""


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="Folders or ids of runs: before and after, or A1 B1 A2 B2 ...; latest, previous."
        ),
    ],
    json_output: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> int:
    """What changed between two runs, with confidence; "no difference shown" is an answer."""
    from rich.console import Console

    from setpoint.commands.showing import written
    from setpoint.loop.compare import compare_folders
    from setpoint.loop.store.listing import folder_of
    from setpoint.record import EXIT_MET, EXIT_MISSED
    from setpoint.report.compare_table import render_comparison
    from setpoint.report.comparison import Better

    compared = compare_folders([folder_of(each) for each in runs])
    written(lambda: print(compared.to_json()) if json_output else render_comparison(compared, Console()))
    worse = any(figure.verdict is Better.A and figure.stands_alone for figure in compared.figures)
    return EXIT_MISSED if worse else EXIT_MET
