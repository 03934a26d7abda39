"""The command line: which commands there are, and a user's mistakes turned into one line and exit code 2.

Nothing heavy is imported before a command runs: ``--help`` must not wait for an engine, nor the first request of a
measurement for a table.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from setpoint import __version__
from setpoint.commands import (
    batch,
    compare,
    explain,
    hardware,
    init,
    measure,
    plan,
    profile_speculation,
    runs,
    serve,
    simulate,
    tune,
)
from setpoint.commands.options import with_groups
from setpoint.loop.errors import BadInput, ServerDied
from setpoint.loop.flags import PANELS
from setpoint.loop.interrupts import EXIT_INTERRUPTED

app = typer.Typer(
    help="You set the latency. The loop holds it. Serve large language models at a declared operating point.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Start with: `setpoint measure http://127.0.0.1:8000` for a server that runs already, or `setpoint init my.yaml`, "
    "then `setpoint tune my.yaml`.",
)
app.command(epilog=serve.SERVE_EXAMPLES)(with_groups(serve.serve, serve.PANELS))
app.command(epilog=tune.TUNE_EXAMPLES)(tune.tune)
app.command(epilog=plan.PLAN_EXAMPLES)(with_groups(plan.plan, plan.PANELS))
app.command(help=measure.HELP, epilog=measure.EPILOG)(with_groups(measure.measure, PANELS))
app.command(help=simulate.HELP, epilog=simulate.EPILOG)(with_groups(simulate.simulate, simulate.PANELS))
app.command(epilog=batch.BATCH_EXAMPLES)(batch.batch)
app.command(epilog=compare.COMPARE_EXAMPLES)(compare.compare)
app.command(epilog=profile_speculation.PROFILE_EXAMPLES)(profile_speculation.profile_speculation)
app.command(epilog=explain.EXPLAIN_EXAMPLES)(explain.explain)
app.command(epilog=init.INIT_EXAMPLES)(with_groups(init.init))
app.add_typer(hardware.app, name="hardware")
app.add_typer(runs.app, name="runs")

# The base of what Typer raises for a wrong option. Typer has Click inside it or beside it, depending on its version.
USAGE_ERROR: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> None:
    """Entry point: exit codes 0 met, 1 missed, 2 bad input, 3 inconclusive, 4 invalid run, 130 interrupted."""
    try:
        code = app(standalone_mode=False) or 0
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except USAGE_ERROR as error:
        error.show()  # type: ignore[attr-defined]
        code = _exit_code(error)
    except (*_spoilt_runs(), *_user_mistakes()) as error:
        print(f"setpoint: {error}", file=sys.stderr)
        code = _exit_code(error)
    if code == EXIT_INTERRUPTED:
        print("stopped", file=sys.stderr)
    sys.exit(code)


def _exit_code(error: Exception) -> int:
    from setpoint.record import EXIT_BAD_INPUT, EXIT_INVALID

    return EXIT_INVALID if isinstance(error, _spoilt_runs()) else EXIT_BAD_INPUT


def _spoilt_runs() -> tuple[type[Exception], ...]:
    """What makes a run invalid so thoroughly that there is no report of it."""
    from setpoint.measure.mock.process import MockError
    from setpoint.measure.worker import WorkerError

    return (ServerDied, WorkerError, MockError)


def _user_mistakes() -> tuple[type[Exception], ...]:
    """Errors that need no traceback; ``OSError`` is what the machine refuses: a full disk, a name that is too long."""
    from setpoint.engine.request import EngineFailed
    from setpoint.hardware.errors import HardwareError
    from setpoint.loop.store.errors import StoreError
    from setpoint.measure.probe import ProbeError
    from setpoint.measure.target import TargetError
    from setpoint.plan.errors import PlanError
    from setpoint.report.files import RunFolderError
    from setpoint.requirement import RequirementError

    return (
        BadInput,
        RequirementError,
        EngineFailed,
        HardwareError,
        PlanError,
        ProbeError,
        TargetError,
        RunFolderError,
        StoreError,
        OSError,
    )


def _version(wanted: bool) -> None:
    if wanted:
        print(f"setpoint {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
