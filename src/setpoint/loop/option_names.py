"""Which option of the command line a field of a requirement comes from, so that a mistake is named as it was typed."""

from __future__ import annotations

from collections.abc import Mapping

# The longest name that fits counts. The paths are those of the types, and of the file where it spells them otherwise.
PROFILE_OPTIONS: Mapping[str, str] = {
    "profile.prompt_tokens": "--prompt-tokens",
    "profile.output_tokens": "--output-tokens",
    "profile.shared_prefix_tokens": "--shared-prefix-tokens",
    "profile.prefix_groups": "--prefix-groups",
    "profile.prefix_hit_rate": "--prefix-hit-rate",
    "profile.sessions.turns": "--turns",
    "profile.sessions.think_time": "--think-time",
    "profile.streaming": "--streaming",
    "profile.arrival.rate": "--rate",
    "profile.arrival.process": "--arrival",
    "profile.arrival.cv": "--cv",
    "profile.arrival.to": "--to-rate",
    "profile.arrival.to_rps": "--to-rate",
    "profile.arrival.steps": "--steps",
    "profile.arrival.on": "--on",
    "profile.arrival.on_s": "--on",
    "profile.arrival.off": "--off",
    "profile.arrival.off_s": "--off",
    "profile.arrival.off_rate": "--off-rate",
    "profile.burst.duration": "--burst-duration",
    "profile.burst": "--burst-rate",
}
INIT_OPTIONS: Mapping[str, str] = {
    **PROFILE_OPTIONS,
    "name": "--name",
    "model": "--model",
    "slo.ttft": "--ttft-p95",
    "slo.itl": "--itl-p99",
    "slo.e2e": "--e2e-p95",
    "objective": "--objective",
    "price": "--usd-per-hour",
}


def option_for(field: str, options: Mapping[str, str] = PROFILE_OPTIONS) -> str:
    """The option that ``field`` comes from; the field itself where there is none."""
    fitting = [start for start in options if field.startswith(start)]
    return options[max(fitting, key=len)] if fitting else field
