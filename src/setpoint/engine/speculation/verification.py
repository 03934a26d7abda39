"""Which drafts stand: the model's own token at every position of a draft, compared one after the other.

Greedy: a draft token stands while it is the model's arg-max. Sampled, with a draft that follows from the text: the model's
token is drawn at each position exactly as without a draft (same filters, same generator, one draw a token emitted), and the
draft stands while it equals what was drawn. That is rejection sampling for a proposal of probability 1: the draft token x is
accepted with probability p(x), and given that it is not, the token comes from p without x, which is the positive part of
p - q. It has the merit that a seed gives the same text with drafts and without. Drafts that were drawn: ``rejection.py``.

Positions are gone through together for all requests, so that logits of positions behind a rejection are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.engine.batch import BatchItem
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.rejection import DrawnDraft

Floats = npt.NDArray[Any]
Choose = Callable[[Floats, list[Sequence]], list[int]]


def widths(emitting: Items[BatchItem]) -> list[int]:
    """How many of an item's last positions are sampled: every one from the last known token on."""
    return [1 if item.draft is None else len(item.draft.tokens) + 1 for item in emitting]


def verified_greedily(item: BatchItem, best: list[int]) -> list[int]:
    """The tokens that ``item`` emits, given the arg-max at each of its sampled positions."""
    if item.draft is None:
        return best
    for position, token in enumerate(item.draft.tokens):
        if best[position] != token:
            return best[: position + 1]
    return best


def verified_sampled(
    items: Items[BatchItem], logits: Floats, first_rows: Items[int], choose_first: Choose, choose: Choose
) -> list[list[int]]:
    """The tokens that each of ``items`` emits, from its rows of ``logits`` [rows, vocabulary], which begin at ``first_rows``.

    choose_first: gives the tokens of the first positions, with whatever grammars demand; ``choose`` those of the others.
    """
    emitted: list[list[int]] = [[] for _ in items]
    drawn = {
        place: DrawnDraft(item)
        for place, item in enumerate(items)
        if item.draft is not None and item.draft.proposal is not None
    }
    going = [place for place in range(len(items)) if place not in drawn]
    pick = choose_first
    position = 0
    while going:
        rows = [first_rows[place] + position for place in going]
        part = logits if len(rows) == len(logits) else logits[rows]
        for place, token in zip(going, pick(part, [items[place].sequence for place in going]), strict=True):
            emitted[place].append(token)
        going = [place for place in going if _stands(items[place], position, emitted[place][position])]
        position += 1
        pick = choose
    for place, draft in drawn.items():
        first = first_rows[place]
        emitted[place] = draft.verified(logits[first : first + items[place].count])
    return emitted


def _stands(item: BatchItem, position: int, token: int) -> bool:
    return item.draft is not None and position < len(item.draft.tokens) and item.draft.tokens[position] == token


def row_starts(counts: Items[int]) -> list[int]:
    """Where each item's rows begin, rows of all items being stacked."""
    return [0, *np.cumsum(counts).tolist()][:-1]
