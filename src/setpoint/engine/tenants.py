"""Small numbers for the names of tenants, for policies know no names."""

from __future__ import annotations

from collections import OrderedDict

MOST_NAMES = 1024


class TenantNumbers:
    """Numbers from 0 (the empty name); when all are given out, the one longest unused changes hands."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._numbers: OrderedDict[str, int] = OrderedDict()

    def number(self, name: str) -> int:
        """The number of ``name``, the same as long as it is among the names of late."""
        if not name:
            return 0
        number = self._numbers.get(name)
        if number is None:
            number = len(self._numbers) + 1 if len(self._numbers) < self._most else self._numbers.popitem(last=False)[1]
            self._numbers[name] = number
        self._numbers.move_to_end(name)
        return number
