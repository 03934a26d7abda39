"""How much structure a body may have: parsing two megabytes of text takes a millisecond, of a million numbers a tenth of a
second, and for that time nobody's tokens are sent.

The weight of a body is its commas outside of strings, its quotes that are not escaped, and six for each bracket or brace
opened; it bounds the objects that parsing makes. A list of token ids weighs one an id, a message about sixteen.
"""

from __future__ import annotations

import re
from typing import Final

from setpoint.server.errors import invalid

MAX_WEIGHT: Final = 150_000
BRACKET_WEIGHT: Final = 6
# A string, or the beginning of one that never ends: what is found is always passed over once, so the search is linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def _quotes(raw: bytes) -> int:
    return raw.count(b'"') - raw.count(b'\\"')


def _weight(text: bytes) -> int:
    return text.count(b",") + BRACKET_WEIGHT * (text.count(b"[") + text.count(b"{"))


def require_bounded(raw: bytes, most: int = MAX_WEIGHT) -> None:
    """Raise ``ApiError`` 400 for a body of more weight than ``most``. Whether it is JSON at all is not looked at."""
    quotes = _quotes(raw)
    too_many = quotes > most or (quotes + _weight(raw) > most and quotes + _weight(_STRING.sub(b"", raw)) > most)
    if too_many:
        raise invalid("The body has too many values and objects; a prompt is best sent as text.", None, code="body_too_complex")
