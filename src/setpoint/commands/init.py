"""``setpoint init``."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from setpoint.loop.errors import BadInput
from setpoint.loop.flags import option
from setpoint.loop.init import InitAnswers
from setpoint.loop.shorthand import seconds

SEEN = "From what production shows"
INIT_EXAMPLES = """Examples:

- `setpoint init my.yaml` : asks a few questions

- `setpoint init my.yaml --example coding-assistant` : starts from a shipped example

- `setpoint init my.yaml --rate 3/s --prompt-tokens 200 --output-tokens 80 --ttft-p95 300ms --itl-p99 60ms`

- `setpoint init my.yaml --from-trace requests.csv --ttft-p95 300ms` : lengths, arrivals and sharing as the trace has them

- `setpoint init my.yaml --from-metrics http://127.0.0.1:8000/metrics` : what a server in use shows of its requests
"""


def init(
    answers: InitAnswers,
    file: Annotated[Path, typer.Argument(help="The requirement file to write.")] = Path("requirement.yaml"),
    example: Annotated[str | None, option("NAME", "Copy a shipped example.")] = None,
    from_trace: Annotated[Path | None, option("FILE", "A trace, in a format that measure replays.", SEEN)] = None,
    trace_format: Annotated[str | None, option("NAME", "Its format; default: what it looks like.", SEEN)] = None,
    from_metrics: Annotated[str | None, option("URL", "The metrics of a server in use, looked at twice.", SEEN)] = None,
    interval: Annotated[str | None, option("TIME", "Between the two looks; default: 10s.", SEEN)] = None,
    api_key: Annotated[str | None, option("KEY", "Bearer token for the metrics.", SEEN, envvar="SETPOINT_API_KEY")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> int:
    """Write a commented requirement file: from a few questions, from options, or from what production shows."""
    from setpoint.loop.init import init_text, seen_text

    if os.path.lexists(file) and not force:
        raise BadInput(f"{file}: exists already; choose another name or add --force")
    _refuse_contradictions(example, from_trace, trace_format, from_metrics, interval)
    if from_trace is not None or from_metrics is not None:
        interval_s = seconds("interval", interval, positive=True) if interval is not None else None
        text = seen_text(
            answers,
            from_trace=from_trace,
            trace_format=trace_format,
            from_metrics=from_metrics,
            interval_s=interval_s,
            api_key=api_key,
        )
    else:
        text = init_text(answers, example=example, ask=sys.stdin.isatty() and answers.empty and example is None)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file}: cannot be written: {error.strerror}") from error
    print(f"wrote {file}; next: setpoint tune {shlex.quote(str(file))}")
    return 0


def _refuse_contradictions(
    example: str | None,
    from_trace: Path | None,
    trace_format: str | None,
    from_metrics: str | None,
    interval: str | None,
) -> None:
    """Raises ``BadInput``."""
    sources = {"--example": example, "--from-trace": from_trace, "--from-metrics": from_metrics}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise BadInput(f"{given[1]}: one source is enough; leave out {given[0]}")
    if trace_format is not None and from_trace is None:
        raise BadInput("--trace-format: there is no trace; add --from-trace FILE")
    if interval is not None and from_metrics is None:
        raise BadInput("--interval: there are no metrics to look at; add --from-metrics URL")
