"""How many bytes of bodies one server holds that have not been parsed yet, those of all its connections together.

A bound on each body and one on connections leave their product, and that is gigabytes. What has arrived is counted and not what
was announced: whoever only says that a large body will come takes no room from others.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

from setpoint.server.errors import bodies_full, body_too_large

HELD_BODY: Final = "setpoint.held_body"


class BodyBudget:
    """The bytes that all bodies share, and the most of one of them; lives on one event loop."""

    def __init__(self, most_bytes: int, *, most_each_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.most_each_bytes = most_each_bytes
        self.held_bytes = 0

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if more is held than may be, or less than nothing."""
        assert 0 <= self.held_bytes <= self.most_bytes, f"{self.held_bytes} of {self.most_bytes} bytes are held"


class HeldBody:
    """What one request holds of the budget. Once a part of its body was not taken, the rest is not either."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._bytes = 0
        self._too_large = False
        self._no_room = False

    def take(self, count: int) -> bool:
        """Whether ``count`` bytes more are held from here on."""
        budget = self._budget
        if self._too_large or self._no_room:
            return False
        self._too_large = self._bytes + count > budget.most_each_bytes
        self._no_room = budget.held_bytes + count > budget.most_bytes
        if self._too_large or self._no_room:
            return False
        self._bytes += count
        budget.held_bytes += count
        return True

    def require_whole(self) -> None:
        """Raise ``ApiError`` 413 or 503 if a part of the body was not taken."""
        if self._too_large:
            raise body_too_large(self._budget.most_each_bytes)
        if self._no_room:
            raise bodies_full(self._budget.most_bytes)

    def release(self) -> None:
        """The bytes are parsed, or nobody will read them. Releasing again changes nothing."""
        self._budget.held_bytes -= self._bytes
        self._bytes = 0


_NOT_COUNTED: Final = HeldBody(BodyBudget(0, most_each_bytes=0))


def held_body(scope: Scope) -> HeldBody:
    """What the request holds; nothing where its connection does not count."""
    held: HeldBody = scope.get(HELD_BODY, _NOT_COUNTED)
    return held
