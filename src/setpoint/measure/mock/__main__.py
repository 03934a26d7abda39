"""``python -m setpoint.measure.mock``: serve until told to stop; the first line printed is the port."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from setpoint.measure.event_loop import run
from setpoint.measure.mock.options import Behaviour, MockOptions, parse_behaviours
from setpoint.measure.mock.server import serve_mock
from setpoint.measure.pool import descriptors_for
from setpoint.requirement.units import parse_duration_s

CONNECTIONS_MAX = 16_384
STDIN = 0
STDIN_BYTES = 4096


def main(arguments: list[str] | None = None) -> int:
    """Serve; returns the exit code: 0 stopped, 2 an option that cannot be."""
    parsed = vars(_parser().parse_args(arguments))
    with_lifeline, dump = parsed.pop("until_stdin_closes"), parsed.pop("dump")
    try:
        options = _options(parsed)
        descriptors_for(CONNECTIONS_MAX)
        run(_serve(options, with_lifeline=with_lifeline, dump=dump))
    except (ValueError, OSError) as wrong:
        print(f"mock: {wrong}", file=sys.stderr)
        return 2
    return 0


async def _serve(options: MockOptions, *, with_lifeline: bool, dump: Path | None) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if with_lifeline:
        loop.add_reader(STDIN, _watch_stdin, over)
    gc.disable()  # Nothing here makes cycles that matter; a collection would be a pause that nobody asked for.
    async with serve_mock(options) as mock:
        print(mock.url.rpartition(":")[2], flush=True)
        await over.wait()
        if dump is not None:
            dump.write_text(json.dumps(mock.log().to_fields()), encoding="utf-8")


def _watch_stdin(over: asyncio.Event) -> None:
    if not os.read(STDIN, STDIN_BYTES):
        over.set()


def _options(parsed: dict[str, Any]) -> MockOptions:
    """The options of the command line: one JSON object, or the flags."""
    as_json = parsed.pop("options")
    return MockOptions.from_json(as_json) if as_json else MockOptions(**parsed)


def _parser() -> argparse.ArgumentParser:
    default = MockOptions()
    parser = argparse.ArgumentParser(
        prog="python -m setpoint.measure.mock",
        description="An OpenAI-compatible server without a model, whose every write happens at a known time. "
        "GET /mock/log is what it did; POST /mock/reset forgets it.",
    )
    add = parser.add_argument
    add("--host", default=default.host, help="address to listen at (%(default)s)")
    add("--port", type=int, default=0, help="port to listen at; 0 takes a free one (%(default)s)")
    add("--model", default=default.model, help="the model it claims to serve (%(default)s)")
    add("--seed", type=int, default=0, help="seed of everything drawn (%(default)s)")
    add(
        "--behaviour",
        dest="behaviours",
        type=_checked(parse_behaviours),
        default=default.behaviours,
        metavar="NAME[*N],...",
        help=f"dealt to requests in turn, for example plain*3,http_503; of {', '.join(Behaviour)}",
    )
    duration = _checked(parse_duration_s)
    add("--ttft", dest="ttft_s", type=duration, default=default.ttft_s, help="to the first token (50ms)")
    add("--itl", dest="itl_s", type=duration, default=default.itl_s, help="between tokens (10ms)")
    add("--ttft-cv", type=float, default=0.0, help="coefficient of variation of the time to the first token (%(default)s)")
    add("--itl-cv", type=float, default=0.0, help="coefficient of variation of the gaps (%(default)s)")
    add(
        "--tokens-per-chunk", type=int, default=default.tokens_per_chunk, help="of multi_token and several_events (%(default)s)"
    )
    add("--stall", dest="stall_s", type=duration, default=default.stall_s, help="the additional gap of stalled (500ms)")
    add("--retry-after", dest="retry_after_s", type=duration, default=default.retry_after_s, help="of http_429, http_503 (1s)")
    add("--slots", type=int, help="at most so many served at once, the others wait in order")
    add("--processors", type=int, help="so many streams run at full speed; more share it evenly")
    add("--queue-max", type=int, default=default.queue_max, help="requests that may wait; more get 503 (%(default)s)")
    add(
        "--frozen",
        dest="frozen_s",
        type=_checked(_parse_span),
        metavar="FROM-TO",
        help="the whole server does nothing meanwhile, counted from the first request, for example 1s-4s",
    )
    add("--tick", dest="tick_s", type=duration, default=default.tick_s, help="sends due within this go out together (0.5ms)")
    add("--log-max", type=int, default=default.log_max, help="requests kept in the log (%(default)s)")
    add("--dump", type=Path, metavar="FILE", help="write the log there when stopped")
    add("--options", metavar="JSON", help="all options as one JSON object (MockOptions.to_json), in place of flags")
    add("--until-stdin-closes", action="store_true", help="stop when standard input closes")
    return parser


def _parse_span(text: str) -> tuple[float, float]:
    begin, separator, end = text.partition("-")
    if not separator:
        raise ValueError("FROM-TO, for example 1s-4s")
    return parse_duration_s(begin), parse_duration_s(end)


def _checked(parse: Any) -> Any:
    """A parser whose ``ValueError`` argparse shows as it is."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as wrong:
            raise argparse.ArgumentTypeError(str(wrong)) from wrong

    return parsed


if __name__ == "__main__":
    sys.exit(main())
