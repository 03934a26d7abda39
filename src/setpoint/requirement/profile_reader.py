"""Reads ``profile``: what requests look like, in one kind or in a mix, and how they arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from setpoint.requirement.arrival_reader import read_arrival, read_burst
from setpoint.requirement.document import is_null
from setpoint.requirement.profile import MixPart, RequestProfile, RequestShape
from setpoint.requirement.reading import Value
from setpoint.requirement.sessions_reader import read_sessions
from setpoint.requirement.tokens_reader import read_number, read_tokens, read_whole_number
from setpoint.requirement.units import FLAGS, FRACTIONS, parse_flag, parse_fraction

MIX_PARTS = "a kind of request, such as {name: chat, weight: 3, prompt_tokens: 200, output_tokens: 100}"

_SHAPE_READERS: dict[str, Callable[[Value], Any]] = {
    "prompt_tokens": read_tokens,
    "output_tokens": read_tokens,
    "shared_prefix_tokens": read_whole_number,
    "prefix_groups": read_whole_number,
    "prefix_hit_rate": lambda entry: entry.scalar(parse_fraction, FRACTIONS),
    "sessions": read_sessions,
}
_NEEDED = ("prompt_tokens", "output_tokens")


def read_profile(value: Value) -> RequestProfile | None:
    """The request profile, or ``None`` after noting what is wrong."""
    readers: dict[str, Callable[[Value], Any]] = {
        **_SHAPE_READERS,
        "streaming": lambda entry: entry.scalar(parse_flag, FLAGS),
        "arrival": read_arrival,
    }
    mixed = value.is_mapping and any(key.value == "mix" and not is_null(entry) for key, entry in value.node.value)
    required = ("arrival",) if mixed else (*_NEEDED, "arrival")
    fields = value.fields((*readers, "burst", "mix"), required=required)
    if not value.is_mapping:
        return None
    found = {name: reader(fields[name]) for name, reader in readers.items() if name in fields}
    if "burst" in fields:
        found["burst"] = read_burst(fields["burst"], found.get("arrival"))
    if "mix" in fields:
        own = {name: found[name] for name in RequestShape.model_fields if name in found}
        found["mix"] = _read_mix(fields["mix"], own)
        if found["mix"]:
            heaviest = max(found["mix"], key=lambda part: part.weight)
            found |= {name: getattr(heaviest, name) for name in _NEEDED if name not in own}
    return value.build(RequestProfile, found)


def _read_mix(value: Value, own: dict[str, Any]) -> tuple[MixPart, ...] | None:
    """The parts of a mix; what a part leaves out is as in ``own``, the fields of the profile itself."""
    parts = [_read_part(entry, own) for entry in value.entries(MIX_PARTS)]
    good = tuple(part for part in parts if part is not None)
    return good if len(good) == len(parts) > 0 else None


def _read_part(value: Value, own: dict[str, Any]) -> MixPart | None:
    readers: dict[str, Callable[[Value], Any]] = {
        "name": lambda entry: entry.text("a short name"),
        "weight": read_number,
        **_SHAPE_READERS,
    }
    found = value.read(readers, required=("name", *(name for name in _NEEDED if name not in own)))
    if found is None:
        return None
    prefix = {"shared_prefix_tokens", "prefix_hit_rate"}
    inherited = {name: entry for name, entry in own.items() if not (name in prefix and prefix & found.keys())}
    if found.get("shared_prefix_tokens") == 0 and found.get("prefix_hit_rate") is None:
        inherited.pop("prefix_groups", None)  # Groups of no prefix.
    return value.build(MixPart, inherited | found)
