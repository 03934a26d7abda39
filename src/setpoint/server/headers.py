"""What clients say in headers: the request's name, its limits, its class, its tenant."""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import replace
from typing import Final

from starlette.datastructures import Headers

from setpoint.policy.views import BATCH, INTERACTIVE, RequestLimits
from setpoint.server.errors import invalid

SLO_HEADERS: Final = {"x-slo-ttft-ms": "ttft_s", "x-slo-tpot-ms": "tpot_s", "x-slo-e2e-ms": "e2e_s"}
CLASSES: Final = {"interactive": INTERACTIVE, "batch": BATCH}
MAX_SLO_MS: Final = 86_400_000.0
FAIRNESS_HEADER: Final = "x-gateway-inference-fairness-id"
_FAIRNESS_ID = re.compile(r"[\x20-\x7e]{1,256}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(headers: Headers) -> str:
    """The client's ``x-request-id`` if it is 1 to 128 printable ASCII characters, else a fresh one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def request_limits(headers: Headers, defaults: RequestLimits) -> RequestLimits:
    """The server's limits with those of the ``x-slo-*-ms`` headers in their place. Raises ``ApiError`` 400."""
    given = {field: _milliseconds(name, headers[name]) for name, field in SLO_HEADERS.items() if name in headers}
    return replace(defaults, **given) if given else defaults


def _milliseconds(name: str, text: str) -> float:
    """Seconds from a header in milliseconds."""
    try:
        value_ms = float(text)
    except ValueError:
        value_ms = math.nan
    if not 0 < value_ms <= MAX_SLO_MS:
        message = f"{name}: found '{text[:64]}', must be a number of milliseconds above 0 and at most {MAX_SLO_MS:.0f}."
        raise invalid(message, name)
    return value_ms / 1000


def request_class(headers: Headers) -> int:
    """The class of ``x-setpoint-class``, interactive by default. Raises ``ApiError`` 400."""
    name = headers.get("x-setpoint-class", "interactive").strip().lower()
    if name not in CLASSES:
        message = f"x-setpoint-class: found '{name[:64]}', must be one of {', '.join(CLASSES)}."
        raise invalid(message, "x-setpoint-class")
    return CLASSES[name]


def tenant_name(headers: Headers, owner: str, *, header_trusted: bool) -> str:
    """Whose request it is, for fairness inside a class: the key's owner, or whom ``x-gateway-inference-fairness-id`` names.

    header_trusted: a gateway sets the header, which knows its callers better than we do. Else it is not even read: who may name
    itself is somebody new with every request. Raises ``ApiError`` 400.
    """
    given = headers.get(FAIRNESS_HEADER, "").strip() if header_trusted else ""
    if not given:
        return owner
    if not _FAIRNESS_ID.fullmatch(given):
        raise invalid(f"{FAIRNESS_HEADER}: must have 1 to 256 printable ASCII characters.", FAIRNESS_HEADER)
    return f"id:{given}"
