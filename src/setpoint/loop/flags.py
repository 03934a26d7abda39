"""The options of ``setpoint measure``, in groups: what was typed, not yet read. ``None`` leaves what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

TARGET, LOAD, ARRIVALS, TRACE, REQUESTS = "Target", "Load", "Arrivals that change", "Replay of a trace", "Requests"
LENGTH, VERDICT, CLIENT, OUTPUT = "How long", "Verdict", "The client itself", "Output"
PANELS = (TARGET, LOAD, REQUESTS, LENGTH, VERDICT, OUTPUT, ARRIVALS, TRACE, CLIENT)
CONFIG_KINDS = "RUN|FILE|JSON"
SEED_HELP = "Seed of arrivals, lengths and prompts."
MAX_SEED = (1 << 63) - 1
"""Seeds of prefixes are columns of 64-bit numbers."""


def option(metavar: str | None, words: str, panel: str | None = None, *, name: str | None = None, **more: Any) -> Any:
    """An option: a short word for its value, what it is for, and its panel; ``name`` where the field is called otherwise."""
    names = () if name is None else (name,)
    return typer.Option(*names, metavar=metavar, help=words, rich_help_panel=panel, **more)


@dataclass(frozen=True, slots=True)
class TargetFlags:
    """Whom to measure."""

    model: Annotated[str | None, option("NAME", "Model to ask for; default: the only one.", TARGET)] = None
    endpoint: Annotated[str, option("NAME", "completions or chat.", TARGET)] = "completions"
    api_key: Annotated[str | None, option("KEY", "Bearer token for a URL.", TARGET, envvar="SETPOINT_API_KEY")] = None
    header: Annotated[list[str] | None, option("'NAME: VALUE'", "Sent with every request; may be repeated.", TARGET)] = None
    extra_body: Annotated[str | None, option("JSON", "More fields of every request, as a JSON object.", TARGET)] = None
    max_completion_tokens: Annotated[
        bool,
        typer.Option(
            "--max-completion-tokens", help="Send the planned length under that name, not max_tokens.", rich_help_panel=TARGET
        ),
    ] = False
    tokenizer: Annotated[
        str | None,
        option("WHAT", "What counts prompt tokens: auto asks the server, estimate, or a model.", TARGET),
    ] = None
    metrics_url: Annotated[list[str] | None, option("URL", "The server's metrics, if elsewhere; may be repeated.", TARGET)] = (
        None
    )
    requirement: Annotated[Path | None, option("FILE", "Profile and SLOs for a URL; options change it.", TARGET)] = None
    config: Annotated[str | None, option(CONFIG_KINDS, "With a requirement: what to serve it with.", TARGET)] = None


@dataclass(frozen=True, slots=True)
class LoadFlags:
    """What is asked of the server, and when."""

    rate: Annotated[str | None, option("RATE", "Offered load, such as 2/s, 2.5 or 90/min; default: 1/s.", LOAD)] = None
    arrival: Annotated[str | None, option("NAME", "constant, poisson (default), gamma, ramp, step or on_off.", LOAD)] = None
    cv: Annotated[float | None, option("X", "Coefficient of variation of gamma arrivals.", LOAD)] = None
    concurrency: Annotated[int | None, option("K", "Closed loop instead: K requests always under way.", LOAD, min=1)] = None
    burst_rate: Annotated[str | None, option("RATE", "Then a burst of this total rate, such as 10/s or 3x.", LOAD)] = None
    burst_duration: Annotated[str | None, option("TIME", "Length of the burst; default: 10s.", LOAD)] = None
    to_rate: Annotated[str | None, option("RATE", "ramp: the rate at the end.", ARRIVALS)] = None
    steps: Annotated[str | None, option("LIST", "step: rates and how long, such as 2/s:30s,4/s:30s.", ARRIVALS)] = None
    on: Annotated[str | None, option("TIME", "on_off: how long it is on.", ARRIVALS)] = None
    off: Annotated[str | None, option("TIME", "on_off: how long it is off.", ARRIVALS)] = None
    off_rate: Annotated[str | None, option("RATE", "on_off: the rate while it is off; default: none.", ARRIVALS)] = None
    prompt_tokens: Annotated[
        str | None, option("TOKENS", "128, 64-256, 32,64,128 or median=100,p95=300; default: 128.", REQUESTS)
    ] = None
    output_tokens: Annotated[str | None, option("TOKENS", "The same for answers; default: 64.", REQUESTS)] = None
    shared_prefix_tokens: Annotated[int | None, option("N", "First tokens all prompts share.", REQUESTS, min=0)] = None
    prefix_groups: Annotated[int | None, option("N", "So many different prefixes instead of one.", REQUESTS, min=1)] = None
    prefix_hit_rate: Annotated[
        str | None, option("SHARE", "Instead: the share of prompt tokens to be found in a cache.", REQUESTS)
    ] = None
    turns: Annotated[str | None, option("TOKENS", "Conversations of so many turns, such as 4 or 2-6.", REQUESTS)] = None
    think_time: Annotated[str | None, option("TIME", "Between an answer and the next turn.", REQUESTS)] = None
    streaming: Annotated[
        bool | None, typer.Option("--streaming/--no-streaming", help="Ask for token streams.", rich_help_panel=REQUESTS)
    ] = None


@dataclass(frozen=True, slots=True)
class TraceFlags:
    """Requests as somebody's production saw them, instead of a profile."""

    trace: Annotated[Path | None, option("FILE", "Replay this file's arrivals and lengths.", TRACE)] = None
    trace_format: Annotated[
        str | None, option("NAME", "azure, mooncake, burstgpt, sharegpt or setpoint; default: what it looks like.", TRACE)
    ] = None
    speed_up: Annotated[float | None, option("X", "Replay so many times faster; default: 1.", TRACE)] = None
    trace_start: Annotated[str | None, option("TIME", "Leave out what comes before this time of the trace.", TRACE)] = None


@dataclass(frozen=True, slots=True)
class LengthFlags:
    """How long to measure."""

    duration: Annotated[
        str | None, option("TIME", "Length of the sustained phase, such as 30s; default: what percentiles take.", LENGTH)
    ] = None
    requests: Annotated[int | None, option("N", "Instead: so many requests.", LENGTH, min=1)] = None
    until: Annotated[
        str | None, option("GOAL", "Instead: until a percentile is known well enough, such as 'p99<10%'.", LENGTH)
    ] = None
    warmup: Annotated[str | None, option("TIME", "Warm-up before it, whose figures are dropped; default: 5s.", LENGTH)] = None
    seed: Annotated[int, option("N", SEED_HELP, LENGTH, min=0, max=MAX_SEED)] = 0


@dataclass(frozen=True, slots=True)
class ClientFlags:
    """How the load generator itself behaves."""

    max_in_flight: Annotated[int | None, option("K", "Client cap; what it holds back waits.", CLIENT, min=1)] = None
    ignore_eos: Annotated[
        bool,
        typer.Option(
            "--ignore-eos/--no-ignore-eos",
            help="Ask for exactly the planned number of output tokens.",
            rich_help_panel=CLIENT,
        ),
    ] = True
    retries: Annotated[int, option("N", "Send refused or broken-off requests again.", CLIENT, min=0, max=100)] = 0
    workers: Annotated[str | None, option("auto|N", "Processes that send; default: auto.", CLIENT)] = None
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Find this machine's own limit anew.", rich_help_panel=CLIENT)
    ] = False
    power_url: Annotated[str | None, option("URL", "A GPU exporter's /metrics: energy beside latency.", CLIENT)] = None


@dataclass(frozen=True, slots=True)
class VerdictFlags:
    """What decides the exit code."""

    assertions: Annotated[
        list[str] | None,
        option("EXPR", "Such as 'ttft_p99<500ms' or 'goodput>=0.99'; may be repeated.", VERDICT, name="--assert"),
    ] = None
    find_knee: Annotated[
        bool,
        typer.Option("--find-knee", help="Search the highest rate that still meets the limits.", rich_help_panel=VERDICT),
    ] = False


@dataclass(frozen=True, slots=True)
class OutputFlags:
    """Where the result goes."""

    output: Annotated[Path | None, option("DIR", "Run folder; default: none is written.", OUTPUT)] = None
    json_output: Annotated[bool, option(None, "Print report.json instead of the table.", OUTPUT, name="--json")] = False
    junit: Annotated[Path | None, option("FILE", "The verdict as JUnit XML.", OUTPUT)] = None
    csv: Annotated[Path | None, option("FILE", "The summary as CSV.", OUTPUT)] = None
    llmd: Annotated[Path | None, option("FILE", "The summary as an llm-d benchmark report (v0.2).", OUTPUT)] = None
    per_token: Annotated[
        bool, typer.Option("--per-token", help="Also tokens.parquet, a row a token.", rich_help_panel=OUTPUT)
    ] = False
