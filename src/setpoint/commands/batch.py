"""``setpoint batch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from setpoint.loop.errors import BadInput
from setpoint.loop.flags import CONFIG_KINDS, option

if TYPE_CHECKING:
    from setpoint.loop.offline.batch import BatchOptions
    from setpoint.loop.offline.summary import Summary

RUNNING, OWN, HOW = "A server that runs", "An engine of its own", "How"
BATCH_EXAMPLES = """Examples:

- `setpoint batch in.jsonl out.jsonl --server http://127.0.0.1:8000` : beside its other traffic, as class batch

- `setpoint batch in.jsonl out.jsonl --serve smollm2-135m` : starts an engine, and stops it at the end

- `setpoint batch in.jsonl out.jsonl --server URL --model my-model --concurrency 16 --errors failed.jsonl`

A line of the input is `{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}`. After Ctrl-C,
a kill or a crash the same command goes on where it was, and asks again what the server failed to do (5xx, timeouts, lost
connections; not what it called wrong by a 4xx).

Exit codes: 0 all done, 1 some failed or are left, 2 bad input, 4 its own engine keeps dying, 130 interrupted.
"""


def batch(
    input_file: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Requests, in the format of OpenAI's batch API.")],
    output_file: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Answers; what is settled is not asked again.")],
    server: Annotated[str | None, option("URL", "Any OpenAI-compatible server.", RUNNING)] = None,
    model: Annotated[str | None, option("NAME", "Ask for this model, whatever the requests name.", RUNNING)] = None,
    api_key: Annotated[str | None, option("KEY", "Bearer token.", RUNNING, envvar="SETPOINT_API_KEY")] = None,
    header: Annotated[list[str] | None, option("'NAME: VALUE'", "Sent with every request; may be repeated.", RUNNING)] = None,
    serve: Annotated[str | None, option("REQUIREMENT|MODEL", "Serve this, as setpoint serve does.", OWN)] = None,
    config: Annotated[str | None, option(CONFIG_KINDS, "What to serve it with; default: most throughput.", OWN)] = None,
    concurrency: Annotated[str, option("auto|N", "Requests under way at once.", HOW)] = "auto",
    timeout: Annotated[str, option("TIME", "Most time for one answer.", HOW)] = "1h",
    give_up_after: Annotated[str, option("TIME", "Stop when nothing was answered for so long.", HOW)] = "1h",
    errors: Annotated[Path | None, option("FILE", "Also write the failed ones there.", HOW)] = None,
    overwrite: Annotated[bool, option(None, "Start anew, drop what is there.", HOW, name="--overwrite")] = False,
    json_output: Annotated[bool, option(None, "Print a JSON summary at the end.", HOW, name="--json")] = False,
) -> int:
    """A file of requests into a file of answers, resumable at any moment."""
    from setpoint.commands.showing import written
    from setpoint.loop.offline.batch import BatchOptions
    from setpoint.loop.shorthand import seconds

    options = BatchOptions(
        input=input_file,
        output=output_file,
        errors=errors,
        overwrite=overwrite,
        concurrency=_concurrency(concurrency),
        timeout_s=seconds("timeout", timeout, positive=True),
        give_up_s=seconds("give-up-after", give_up_after, positive=True),
    )
    if server is not None:
        _refuse_misplaced("--server", "--serve", {"serve": serve, "config": config})
        summary = _at(server, model, api_key, header or [], options)
    elif serve is not None:
        _refuse_misplaced("--serve", "--server", {"model": model, "header": header})
        summary = _on_own(serve, config, options)
    else:
        raise BadInput("--server: found none; name a server that runs, or what to serve with --serve")
    written(lambda: print(summary.to_json() if json_output else summary.words()))
    return summary.exit_code


def _on_own(subject: str, config: str | None, options: BatchOptions) -> Summary:
    from setpoint.loop.configs import read_config
    from setpoint.loop.offline.batch import batch_own

    return batch_own(subject, read_config(config) if config is not None else None, options)


def _at(url: str, model: str | None, api_key: str | None, header: list[str], options: BatchOptions) -> Summary:
    from setpoint.loop.offline.batch import batch_at
    from setpoint.loop.targets import target_from

    return batch_at(target_from(url, model, api_key, header), options)


def _refuse_misplaced(given: str, other: str, options: dict[str, object]) -> None:
    """An option that would be ignored is a mistake. Raises ``BadInput``."""
    for name, value in options.items():
        if value is not None:
            raise BadInput(
                f"--{name}: not together with {given}" + ("" if other == f"--{name}" else f"; it belongs to {other}")
            )


def _concurrency(text: str) -> int | None:
    """``None`` for ``auto``. Raises ``BadInput``."""
    from setpoint.loop.offline.batch import CONCURRENCY_MAX

    if text == "auto":
        return None
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= CONCURRENCY_MAX:
        return int(text)
    raise BadInput(f"--concurrency {text}: allowed: auto, or a number from 1 to {CONCURRENCY_MAX}")
