"""Writes a commented requirement file from a few simple parameters, for ``setpoint init``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import yaml

from setpoint.requirement.loader import parse_requirement
from setpoint.requirement.problems import escaped

TokenSpec = int | Mapping[str, int | float | Sequence[int | float]]
"""Tokens as in YAML: ``128``, ``{"min": 10, "max": 50}`` or ``{"median": 120, "p95": 400, "max": 800}``."""

LimitSpec = Mapping[str, Mapping[str, str | float] | str | float]
"""SLOs as in YAML: ``{"ttft": {"p95": "300ms"}, "spread": {"e2e": 3}, "goodput_fraction": "95%"}``."""

_WIDTH = 46
_COMMENT_WIDTH = 116

_SLO_COMMENTS = {
    "ttft": "time to first token, from the intended send",
    "itl": "gap between two tokens, over all gaps of all requests",
    "tpot": "mean time per output token of a request",
    "e2e": "time to the last token, from the intended send",
    "queue_wait": "time from arrival at the server to its first step",
    "spread": "P99 / P50 at most this",
    "goodput_fraction": "at least this share of offered requests meets every limit",
    "shed_fraction": "at most this share of offered requests is refused",
}

_PROFILE_COMMENTS = {
    "prompt_tokens": "tokens of a prompt",
    "output_tokens": "tokens of an answer",
    "shared_prefix_tokens": "first tokens that every prompt has in common",
    "prefix_hit_rate": "share of prompt tokens that a cache has seen before",
    "sessions": "conversations of several turns",
    "mix": "kinds of requests, each with its weight",
    "streaming": "whether somebody reads the tokens as they come",
    "arrival": "the load that lasts",
    "burst": "a peak on top of it: total rate, and how long",
}


def render_requirement(
    *,
    name: str,
    description: str = "",
    model: str = "smollm2-135m",
    prompt_tokens: TokenSpec = 128,
    output_tokens: TokenSpec = 64,
    shared_prefix_tokens: int = 0,
    streaming: bool = True,
    rate: str = "1/s",
    process: str = "poisson",
    arrival: Mapping[str, object] | None = None,
    prefix_hit_rate: str | None = None,
    sessions: Mapping[str, object] | None = None,
    mix: Sequence[Mapping[str, object]] = (),
    burst_rate: str | None = None,
    burst_duration: str = "10s",
    slo: LimitSpec | None = None,
    slo_burst: LimitSpec | None = None,
    objective: str = "max_goodput",
    usd_per_hour: float | None = None,
    remarks: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The text of a requirement file with a comment on every line; quantities are given as a user writes them.

    arrival: all of it as in YAML, instead of ``process`` and ``rate``. remarks: sentences that become comment lines before
    the key they are filed under (``prompt_tokens``, ``arrival``, ``slo``, ...), ``""`` for the top of the file.

    The text is parsed before it is returned, so it always loads again. Raises ``RequirementError`` (file name
    ``requirement``) where a parameter is not allowed.
    """
    lines = [
        "# What the application needs. setpoint tune finds the serving configuration that meets it.",
        _line(0, "name", name, "how reports call this requirement"),
    ]
    if description:
        lines.append(_line(0, "description", description, "for the reader"))
    shared: dict[str, object] = {"shared_prefix_tokens": shared_prefix_tokens}
    profile: dict[str, object] = {
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        **(shared if prefix_hit_rate is None else {"prefix_hit_rate": prefix_hit_rate}),
        "sessions": sessions,
        "mix": list(mix) or None,
        "streaming": streaming,
        "arrival": arrival or {"process": process, "rate": rate},
        "burst": None if burst_rate is None else {"rate": burst_rate, "duration": burst_duration},
    }
    lines += [
        _line(0, "model", model, "demo model, GGUF file, OpenVINO folder or hub repository"),
        "",
        _line(0, "profile", None, "what requests look like"),
    ]
    lines += [_line(1, key, value, _PROFILE_COMMENTS[key]) for key, value in profile.items() if value is not None]
    lines += _limit_lines("slo", slo, "limits under the sustained load")
    lines += _limit_lines("slo_burst", slo_burst, "limits during the burst")
    lines += ["", _line(0, "objective", objective, "max_goodput, max_throughput, min_latency or min_cost")]
    if usd_per_hour is not None:
        lines.append(_line(0, "price", {"usd_per_hour": usd_per_hour}, "what the hardware costs"))
    lines = _with_remarks(lines, remarks or {})
    text = "\n".join(lines) + "\n"
    parse_requirement(text, "requirement")
    return text


def _with_remarks(lines: list[str], remarks: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines with comment lines before the keys that there are remarks about."""
    every = [lines[0], *_comments("", remarks.get("", ()))]
    for line in lines[1:]:
        key = line.split(":")[0]
        every += [*_comments(key[: len(key) - len(key.lstrip())], remarks.get(key.strip(), ()) if key else ()), line]
    return every


def _comments(indent: str, sentences: Sequence[str]) -> list[str]:
    first, later = f"{indent}# ", f"{indent}#   "
    lines: list[str] = []
    for sentence in sentences:
        text = escaped(" ".join(sentence.split()))
        lines += textwrap.wrap(text, _COMMENT_WIDTH, initial_indent=first, subsequent_indent=later)
    return lines


def _limit_lines(section: str, limits: LimitSpec | None, comment: str) -> list[str]:
    if not limits:
        return []
    entries = [_line(1, key, limit, _SLO_COMMENTS.get(key, "")) for key, limit in limits.items()]
    return ["", _line(0, section, None, comment), *entries]


def _line(level: int, key: str, value: object, comment: str) -> str:
    """``key: value  # comment``; a value of ``None`` opens a mapping."""
    entry = f"{'  ' * level}{_flow(key)}:" + ("" if value is None else f" {_flow(value)}")
    return f"{entry:<{_WIDTH}}  # {comment}" if comment else entry


def _flow(value: object) -> str:
    """``value`` as YAML on one line."""
    plain = _plain(value)
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=2**31, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: object) -> object:
    """``value`` as what PyYAML writes without tags and on one line."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_plain(entry) for entry in value]
    return value
