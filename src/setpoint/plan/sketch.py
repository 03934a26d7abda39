"""The load in a few numbers: what bounds and first guesses are made of. The search itself simulates the load."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from setpoint.plan.errors import PlanError
from setpoint.record import Phase
from setpoint.requirement import MixPart, RequestProfile
from setpoint.workload.drafts import Draft, Segment

DRAWS = 2048
MOST_DRAWS = 200_000
SEED = 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LoadSketch:
    """Columns of a sample of requests, shape [n]: prompt and output tokens, and prompt tokens that a cache may have seen.

    private_tokens: of those, what only this conversation holds (its own history); the rest is shared between requests.
    prefix_groups: requests among which each of the shared prefixes comes about once.
    """

    prompt_tokens: Floats
    output_tokens: Floats
    cached_tokens: Floats
    private_tokens: Floats
    prefix_groups: float = 1.0

    @property
    def mean_output(self) -> float:
        """Output tokens of a request on average."""
        return float(self.output_tokens.mean())

    @property
    def mean_uncached(self) -> float:
        """Prompt tokens to be computed, on average."""
        return float((self.prompt_tokens - self.cached_tokens).mean())

    @property
    def mean_context(self) -> float:
        """Tokens of context that a decode reads, on average over all decodes."""
        weighted = (self.prompt_tokens + self.output_tokens / 2) * self.output_tokens
        return float(weighted.sum() / self.output_tokens.sum())

    @property
    def mean_resident(self) -> float:
        """Tokens of cache that a running request holds for itself: context without what it shares with others."""
        shared = self.cached_tokens - self.private_tokens
        weighted = (self.prompt_tokens - shared + self.output_tokens / 2) * self.output_tokens
        return float(weighted.sum() / self.output_tokens.sum())

    @property
    def largest_context(self) -> int:
        """Most tokens, prompt and answer, of a request of the sample."""
        return int((self.prompt_tokens + self.output_tokens).max())

    @property
    def typical_context(self) -> float:
        """Tokens of a request, prompt and answer: the median of the sample."""
        return float(np.median(self.prompt_tokens + self.output_tokens))

    @property
    def hit_rate(self) -> float:
        """Prompt tokens that a cache which forgets nothing would find, over prompt tokens."""
        return float(self.cached_tokens.sum() / self.prompt_tokens.sum())


def without_cache(load: LoadSketch) -> LoadSketch:
    """The same load where nothing is found again."""
    nothing = np.zeros(len(load.prompt_tokens))
    return replace(load, cached_tokens=nothing, private_tokens=nothing, prefix_groups=1.0)


def longest_request(profile: RequestProfile) -> int:
    """Most tokens that prompt and answer of a request can have together, those of the last turn of a conversation included."""
    return max(_longest_of(shape) for shape in profile.shapes)


def _longest_of(shape: MixPart) -> int:
    longest = shape.prompt_tokens.largest + shape.output_tokens.largest
    if shape.sessions is None:
        return longest
    added = shape.sessions.added_tokens or shape.prompt_tokens
    return longest + (shape.sessions.turns.largest - 1) * (added.largest + shape.output_tokens.largest)


def _prefix_groups(profile: RequestProfile) -> float:
    """Of the kind of requests whose prefixes are met last: their number, by how often such a request comes.

    Conversations share nothing with each other.
    """
    weights = sum(shape.weight for shape in profile.shapes)
    sharing = [shape for shape in profile.shapes if shape.prefix_groups > 1 and shape.sessions is None]
    return max((shape.prefix_groups * weights / shape.weight for shape in sharing), default=1.0)


def check_context(load: LoadSketch, context_tokens: int, where: str) -> None:
    """Raise ``PlanError`` if most requests are longer than can be served; single longer ones would be refused by the server."""
    if load.typical_context > context_tokens:
        raise PlanError(
            f"{where}: its context is {context_tokens:,} tokens, and the typical request of the profile has "
            f"{load.typical_context:,.0f} (prompt and answer); shorten the profile or choose a model with a longer context"
        )


def sketch_of(profile: RequestProfile) -> LoadSketch:
    """A sample of about ``DRAWS`` requests of the profile, always the same."""
    segment = Segment(SEED, 0, Phase.SUSTAINED)
    drafts = segment.drafts(np.zeros(DRAWS), profile.shapes, MOST_DRAWS)
    before: dict[int, int] = {}
    rows: list[tuple[int, int, int, int]] = []
    for draft in drafts:
        history = before.get(id(draft.follows), 0) if draft.follows is not None else 0
        prompt = history + draft.prompt_tokens
        before[id(draft)] = prompt + draft.output_tokens
        rows.append((prompt, draft.output_tokens, *_cached(draft, history)))
    table = np.array(rows, dtype=np.float64)
    return LoadSketch(table[:, 0], table[:, 1], table[:, 2], table[:, 3], _prefix_groups(profile))


def _cached(draft: Draft, history: int) -> tuple[int, int]:
    """Prompt tokens that may be found in a cache, and how many of them are the conversation's own."""
    return (history, history) if draft.follows is not None else (draft.shared_tokens, 0)
