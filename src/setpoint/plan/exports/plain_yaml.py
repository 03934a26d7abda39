"""YAML as people write it by hand: keys in their order, and no anchors where the same mapping occurs twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

WIDTH = 120


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Always: what is the same is written again."""
        return True


def plain_yaml(documents: Sequence[Any]) -> str:
    """The documents as text, separated where there are several."""
    return str(yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=WIDTH))
