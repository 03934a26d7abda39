"""Answers that were let in with the first to their prompt and have not come yet: room is kept for them.

The first of ``n`` answers comes alone, and the others once its prompt is computed. Until then no column of the system shows
them, so whoever asks meanwhile is judged as if they were there. Bounded by the requests that wait or run.
"""

from __future__ import annotations

from collections.abc import Collection

from setpoint.policy.views import RequestView


class Companions:
    """``expect`` when a first answer is let in, ``came`` for each of the others, ``keep_only`` who is still there."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[int, int]] = {}  # By the first one's id: fingerprint, and how many are to come.

    @property
    def count(self) -> int:
        """How many are to come."""
        return sum(left for _, left in self._left.values())

    def expect(self, request: RequestView) -> None:
        """The others of ``request`` will come."""
        if request.answers > 1:
            self._left[request.request_id] = (request.fingerprint, request.answers - 1)

    def came(self, fingerprint: int) -> None:
        """One more answer to that prompt is here."""
        for first, (own, left) in self._left.items():
            if own == fingerprint:
                self._left[first] = (own, left - 1)
                break
        self._left = {first: each for first, each in self._left.items() if each[1] > 0}

    def keep_only(self, ids: Collection[int]) -> None:
        """Forget those whose first answer has gone."""
        if self._left:
            self._left = {first: each for first, each in self._left.items() if first in ids}
