"""What passes between a run and its worker processes: frames, eight bytes of length and then a pickle.

    parent -> worker   Job                      what to send, where, how
    worker -> parent   Ready                    how long getting ready took
    parent -> worker   Start                    the instant of ``time.monotonic``, the same clock in all processes
    worker -> parent   Progress (some)          live figures; left out rather than waited for
    worker -> parent   LoadResult | Refused     the end

Only a process and its own children talk so: what is unpickled was pickled by the same program.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from setpoint.measure.options import LoadOptions
from setpoint.measure.target import Target

if TYPE_CHECKING:
    from setpoint.workload.plan import LoadPlan

FRAME_BYTES_MAX = 1 << 36
LENGTH = struct.Struct(">Q")

AnyDataclass = TypeVar("AnyDataclass", Target, LoadOptions)


@dataclass(frozen=True, slots=True)
class Job:
    """One worker's share."""

    target: Target
    plan: LoadPlan
    options: LoadOptions


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker can start; ``setup_s`` is what looking up the host and clearing up took."""

    setup_s: float


@dataclass(frozen=True, slots=True)
class Start:
    """The instant of ``time.monotonic`` at which the plan's zero lies."""

    start_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The plan cannot be sent at all: the message of the ``ValueError``."""

    reason: str


def frame(value: object) -> bytes:
    """A value as bytes that ``value_of`` reads after the eight of its length."""
    packed = pickle.dumps(value, protocol=5)
    return LENGTH.pack(len(packed)) + packed


def length_of(head: bytes) -> int:
    """The length of a frame from its first eight bytes. Raises ``ValueError`` for what cannot be one."""
    (length,) = LENGTH.unpack(head)
    if length > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {length} bytes")
    return int(length)


def value_of(packed: bytes) -> Any:
    """The value of a frame without its length."""
    return pickle.loads(packed)


def portable(value: AnyDataclass) -> AnyDataclass:
    """The same with plain dictionaries in place of read-only views, which cannot be pickled."""
    plain: dict[str, Any] = {}
    for field in fields(value):
        held = getattr(value, field.name)
        if isinstance(held, MappingProxyType):
            plain[field.name] = dict(held)
    return replace(value, **plain)
