"""Whom to measure, from what was typed."""

from __future__ import annotations

from collections.abc import Sequence

from setpoint.loop.errors import BadInput
from setpoint.measure.options import Endpoint
from setpoint.measure.target import Target, TargetError

MAX_URL_CHARS = 100


def target_from(url: str, model: str | None, api_key: str | None, header_lines: Sequence[str]) -> Target:
    """The target at ``url``. Raises ``BadInput`` or ``TargetError`` for what cannot be used."""
    try:
        target = Target(url, model=model or "", api_key=api_key, headers=_headers(header_lines))
        host = target.address.host
        ascii_host = host.encode("idna").decode()
        if not host.isascii():
            raise BadInput(f"url: {host!r} has letters that no request can carry; write it as {ascii_host}")
    except TargetError:
        raise
    except ValueError as error:
        shown = url if len(url) <= MAX_URL_CHARS else f"{url[:MAX_URL_CHARS]}..."
        raise BadInput(f"url: {shown!r} cannot be read: {error}; write it as http://HOST:PORT") from error
    return target


def endpoint_named(name: str) -> Endpoint:
    """The endpoint called ``name``. Raises ``BadInput``."""
    try:
        return Endpoint(name)
    except ValueError:
        raise BadInput(f"--endpoint {name}: allowed are {', '.join(Endpoint)}") from None


def _headers(lines: Sequence[str]) -> dict[str, str]:
    pairs = [line.partition(":") for line in lines]
    for name, colon, _ in pairs:
        if not colon or not name.strip():
            raise BadInput(f"--header {name!r}: write it as 'Name: value'")
    return {name.strip(): value.strip() for name, _, value in pairs}
