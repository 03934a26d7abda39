"""``setpoint measure``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from setpoint.loop.errors import BadInput
from setpoint.loop.flags import (
    ClientFlags,
    LengthFlags,
    LoadFlags,
    OutputFlags,
    TargetFlags,
    TraceFlags,
    VerdictFlags,
)
from setpoint.loop.interrupts import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from setpoint.policy.configuration import ServingConfig

HELP = """Measure a server: how late are tokens, how many requests are good, and up to which load.

Any OpenAI-compatible server will do, and for a first look its address is enough. Examples:

- `setpoint measure http://127.0.0.1:8000` : 1 request/s for half a minute

- `setpoint measure URL --rate 4/s --duration 60s --output runs/a` : and a report to look at

- `setpoint measure URL --rate 4/s --assert 'ttft_p99<500ms' --assert 'goodput>=0.99'` : a verdict for CI

- `setpoint measure URL --find-knee --assert 'ttft_p95<1s'` : the highest rate that still does

- `setpoint measure URL --trace production.csv --speed-up 2` : what production saw, twice as fast

- `setpoint measure my.yaml --config runs/my` : serve a requirement ourselves, measure, stop

Requests go out when they are due, whatever became of those before (unless `--concurrency` closes the loop). Latency counts
from that moment, so waiting counts wherever it happens.
"""

EPILOG = """Exit codes: 0 every limit is met (or there is none and nothing failed), 1 one is missed, 2 bad input,
3 inconclusive: measure longer, 4 invalid run: the client itself was too slow, or nothing answered, 130 stopped by Ctrl-C: what
was measured by then is reported.
"""


def measure(
    subject: Annotated[str, typer.Argument(metavar="URL|REQUIREMENT.yaml", help="A running server, or a requirement.")],
    target: TargetFlags,
    load: LoadFlags,
    trace: TraceFlags,
    length: LengthFlags,
    client: ClientFlags,
    verdict: VerdictFlags,
    output: OutputFlags,
) -> int:
    """See ``HELP``. The exit code is the verdict."""
    from setpoint.commands.showing import show
    from setpoint.loop.asked import asked_of
    from setpoint.loop.exports import deliver, require_writable
    from setpoint.loop.measure import measure_own, measure_url
    from setpoint.loop.subject import is_requirement
    from setpoint.loop.targets import target_from

    own = is_requirement(subject)
    _refuse_misplaced(own, target, client)
    require_writable(output)
    asked = asked_of(Path(subject) if own else target.requirement, target, load, trace, length, client, verdict, output)
    if own:
        report = measure_own(Path(subject), asked.requirement, _config(target), asked.options)
    else:
        at = target_from(subject, target.model, target.api_key, target.header or [])
        report = measure_url(at, asked.requirement, asked.options)
    deliver(report, output)
    show(report, output.output, json_output=output.json_output)
    stopped = (report.knee or report.load or {}).get("interrupted")
    return EXIT_INTERRUPTED if stopped else report.exit_code()


def _config(target: TargetFlags) -> ServingConfig | None:
    from setpoint.loop.configs import read_config

    return read_config(target.config) if target.config is not None else None


def _refuse_misplaced(own: bool, target: TargetFlags, client: ClientFlags) -> None:
    """An option that would be ignored is a mistake. Raises ``BadInput``."""
    for_url = {"requirement": target.requirement, "model": target.model, "header": target.header}
    for_own = {"config": target.config}
    given = [name for name, value in (for_url if own else for_own).items() if value]
    if given:
        other = "a URL" if own else "a requirement file"
        raise BadInput(f"--{given[0]}: belongs to measuring {other}; leave it out here")
