"""Speculation that a requirement allows: which drafters, and how many of their guesses are taken to come true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from setpoint.requirement.part import Fault, Part
from setpoint.requirement.reading import Value
from setpoint.requirement.units import FRACTIONS, parse_fraction

MOST_POSITIONS: Final = 64
PROMPT_LOOKUP: Final = "prompt-lookup"
DRAFT: Final = "draft"
DRAFTERS: Final = (PROMPT_LOOKUP, DRAFT)
ACCEPTANCES: Final = "a chance a token such as 75%, or shares of drafts that survive by position such as [0.9, 0.7, 0.5]"

Share = Annotated[float, Field(ge=0, le=1)]


class Speculation(Part):
    """drafters: those that may be tried. draft_model: with ``draft``, a smaller model with the same vocabulary.

    acceptance: one number is the chance of each guess, whatever came before; several are the shares of drafts that survive to
    their first, second, ... token, as ``setpoint profile-speculation`` and vLLM's metrics by position give them. A planner
    needs it, a server learns it. drafted_share: of the decode steps of a request, how many find a guess in its text; a draft
    model always has one.
    """

    drafters: tuple[Literal["prompt-lookup", "draft"], ...] = Field(min_length=1, max_length=2)
    draft_model: str | None = Field(default=None, min_length=1, max_length=4096)
    acceptance: tuple[Share, ...] | None = Field(default=None, min_length=1, max_length=MOST_POSITIONS)
    drafted_share: Share = 1.0

    def faults(self) -> Iterator[Fault]:
        """A draft model where and only where one guesses; shares that do not rise."""
        if len(set(self.drafters)) < len(self.drafters):
            yield Fault(("drafters",), "every drafter once")
        if DRAFT in self.drafters and self.draft_model is None:
            yield Fault(("draft_model",), "a smaller model with the same vocabulary, because drafters has draft")
        if DRAFT not in self.drafters and self.draft_model is not None:
            yield Fault(("draft_model",), "nothing, or draft among drafters")
        if self.acceptance is not None and any(later > earlier for earlier, later in pairwise(self.acceptance)):
            yield Fault(("acceptance",), "shares that do not rise from one position to the next")
        if self.acceptance is None and self.drafted_share < 1.0:
            yield Fault(("drafted_share",), "nothing, or acceptance beside it: without it nothing is foretold")


def read_speculation(value: Value) -> Speculation | None:
    """The section, or ``None`` after noting what is wrong."""
    readers: dict[str, Callable[[Value], Any]] = {
        "drafters": _drafters,
        "draft_model": lambda entry: entry.text("a model, as under model"),
        "acceptance": _acceptance,
        "drafted_share": lambda entry: entry.scalar(parse_fraction, FRACTIONS),
    }
    return value.build(Speculation, value.read(readers, required=("drafters",)))


def _drafters(value: Value) -> tuple[str, ...] | None:
    """One, or a list of them."""
    if value.is_scalar:
        name = value.one_of(DRAFTERS)
        return None if name is None else (name,)
    names = [entry.one_of(DRAFTERS) for entry in value.entries(" or ".join(DRAFTERS))]
    good = tuple(name for name in names if name is not None)
    return good if len(good) == len(names) > 0 else None


def _acceptance(value: Value) -> tuple[float, ...] | None:
    if value.is_scalar:
        share = value.scalar(parse_fraction, ACCEPTANCES)
        return None if share is None else (share,)
    return value.items(parse_fraction, FRACTIONS)
