"""What a ``/metrics`` page (Prometheus text) of any known kind of server says, under one set of names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client.parser import text_string_to_metric_families

from setpoint.measure.server_kinds import (
    KINDS,
    MODEL_LABELS,
    PREFIX,
    SAME_STATE_LABELS,
    SHARES,
    Meanings,
    ServerKind,
    Term,
)

_NAME_END = re.compile(r"[{ \t]")
_WANTED = {
    kind: frozenset(name for terms in meanings.values() for term in terms for name in term.names)
    for kind, meanings in KINDS.items()
}
_Key = tuple[ServerKind, str]


@dataclass(frozen=True, slots=True)
class _Sample:
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class PageReading:
    """One page. values: quantities by the names of ``server_kinds``; counters as they stand.

    kinds: whose names the page has, engines first.
    """

    values: dict[str, float]
    kinds: tuple[ServerKind, ...]


def read_page(text: str, model: str = "") -> PageReading:
    """The known quantities of one page; lines that are not known are not even parsed.

    ``model``: where samples are labelled with models and this is one of them, the others are left out; otherwise what
    several models and engines do is added up. Of shares (KV usage) the largest counts. Raises ``ValueError`` if a known
    line is not Prometheus text.
    """
    found = _samples(text)
    kinds = tuple(kind for kind in ServerKind if any(key[0] == kind for key in found))
    values: dict[str, float] = {}
    for kind in kinds:
        for quantity, value in _quantities(kind, KINDS[kind], found, model).items():
            values.setdefault(quantity, value)
    return PageReading(values, kinds)


def read_metrics(text: str, model: str = "") -> dict[str, float]:
    """The quantities of one page alone; see ``read_page``."""
    return read_page(text, model).values


def _samples(text: str) -> dict[_Key, list[_Sample]]:
    """Samples of the page by kind of server and bare name."""
    lines = [line for line in text.splitlines() if _key(_NAME_END.split(line, maxsplit=1)[0]) is not None]
    found: dict[_Key, list[_Sample]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            key = _key(sample.name)
            if key is not None and math.isfinite(sample.value):
                found.setdefault(key, []).append(_Sample(sample.labels, float(sample.value)))
    return found


@lru_cache(maxsize=4096)
def _key(name: str) -> _Key | None:
    """Kind and bare name of a metric that some quantity is made of; ``None`` for all others and for comments."""
    parts = PREFIX.match(name)
    if parts is None:
        return None
    kind, bare = ServerKind(parts[1]), parts[2].removesuffix("_total")
    return (kind, bare) if bare in _WANTED[kind] else None


def _quantities(kind: ServerKind, meanings: Meanings, found: dict[_Key, list[_Sample]], model: str) -> dict[str, float]:
    values = {}
    for quantity, terms in meanings.items():
        value = _sum_of_terms(kind, terms, found, model, share=quantity in SHARES)
        if value is not None:
            values[quantity] = value
    return values


def _sum_of_terms(
    kind: ServerKind, terms: tuple[Term, ...], found: dict[_Key, list[_Sample]], model: str, *, share: bool
) -> float | None:
    total = 0.0
    for term in terms:
        samples = next((found[kind, name] for name in term.names if (kind, name) in found), None)
        if samples is None:
            if term.required:
                return None
            continue
        total += term.sign * _put_together(_of_labels(_of_model(samples, model), term.labels), share=share)
    return max(0.0, total)


def _of_model(samples: list[_Sample], model: str) -> list[_Sample]:
    """The samples of the model asked for, if it is named on the page (some servers write names in lower case)."""
    for label in MODEL_LABELS:
        own = [sample for sample in samples if sample.labels.get(label, "").casefold() == model.casefold()]
        if model and own:
            return own
    return samples


def _of_labels(samples: list[_Sample], wanted: Mapping[str, tuple[str, ...]]) -> list[_Sample]:
    return [sample for sample in samples if all(sample.labels.get(name, among[0]) in among for name, among in wanted.items())]


def _put_together(samples: Iterable[_Sample], *, share: bool) -> float:
    """One number from the samples of several engines: the sum, or the largest share. Ranks of one engine count once."""
    engines: dict[frozenset[tuple[str, str]], float] = {}
    for sample in samples:
        engine = frozenset((name, value) for name, value in sample.labels.items() if name not in SAME_STATE_LABELS)
        engines[engine] = max(sample.value, engines.get(engine, -math.inf))
    return max(engines.values(), default=0.0) if share else sum(engines.values())
