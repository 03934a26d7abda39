"""Speculative decoding by an acceptance profile: how many tokens a verify step gives each request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Speculation:
    """Every decode drafts ``draft_tokens`` tokens a step, each accepted with chance ``acceptance`` if those before it were.

    spread: how much requests differ: the chance of a request is drawn around ``acceptance`` with this standard deviation.
    """

    draft_tokens: int
    acceptance: float
    spread: float = 0.1

    def __post_init__(self) -> None:
        if self.draft_tokens < 1 or not 0 <= self.acceptance <= 1:
            raise ValueError("draft_tokens must be at least 1 and acceptance a share from 0 to 1")
