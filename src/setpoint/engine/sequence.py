"""One request inside the engine: its tokens, its KV blocks, how far it is computed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from setpoint.engine.constraint import Matching
from setpoint.engine.kv_blocks import ROOT_HASH, chain_hash
from setpoint.engine.request import FinishReason, GenerationRequest, TokenLogprobs
from setpoint.policy.deadlines import gap_limit_s, next_deadline_s
from setpoint.policy.views import RequestLimits


class Sequence:
    """Mutable state of one request. ``tokens`` is prompt and output; ``computed`` of them have their KV in ``blocks``."""

    __slots__ = (
        "arrived_s",
        "blocks",
        "cached_tokens",
        "computed",
        "deadline_s",
        "fault",
        "fingerprint",
        "finish_reason",
        "first_scheduled_s",
        "first_token_s",
        "gap_s",
        "generator",
        "has_limits",
        "hashes",
        "last_token_s",
        "logprobs",
        "matching",
        "max_tokens",
        "may_draft",
        "preempted_for",
        "preemptions",
        "prompt_tokens",
        "published",
        "request",
        "sent_s",
        "sequence_id",
        "tenant",
        "tokens",
        "uncached_tokens",
        "wants_logits",
    )

    def __init__(
        self, sequence_id: int, request: GenerationRequest, *, arrived_s: float, max_tokens: int, tenant: int = 0
    ) -> None:
        self.sequence_id = sequence_id
        self.tenant = tenant
        self.fingerprint = hash(request.prompt_ids)
        self.gap_s = gap_limit_s(request.limits, streaming=request.streaming)
        self.request = request
        # Asked of every request in every step, and never another answer.
        self.has_limits = request.limits != RequestLimits()
        self.wants_logits = request.sampling.wants_logits
        self.may_draft = request.sampling.may_draft
        self.arrived_s = arrived_s
        self.sent_s = arrived_s if request.sent_s is None else request.sent_s
        self.prompt_tokens = len(request.prompt_ids)
        self.tokens: list[int] = list(request.prompt_ids)
        self.max_tokens = max_tokens
        self.computed = 0
        self.cached_tokens = 0
        self.uncached_tokens = self.prompt_tokens  # While waiting: what the prefix cache lacked when last looked up.
        self.blocks: list[int] = []
        self.hashes: list[bytes] = []
        self.published = 0
        self.preemptions = 0
        self.preempted_for = ""  # The name of the request whose token took its blocks last.
        self.first_scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.finish_reason: FinishReason | None = None
        self.generator: np.random.Generator | None = None
        self.matching: Matching | None = None  # Where the answer stands in its grammar, once it was looked up.
        self.logprobs: TokenLogprobs | None = None  # Of the token emitted last, where they are asked for.
        self.fault = ""  # Why the executor cannot go on with this request alone.
        self.deadline_s = self._deadline_s()

    @property
    def emitted(self) -> int:
        """Output tokens so far."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def length(self) -> int:
        """Prompt and output tokens so far."""
        return len(self.tokens)

    @property
    def holds_blocks(self) -> bool:
        """Whether there is anything to give back."""
        return bool(self.blocks)

    @property
    def uncomputed(self) -> int:
        """Tokens whose KV is missing: 1 while decoding, more in prefill."""
        return len(self.tokens) - self.computed

    @property
    def in_prefill(self) -> bool:
        """Whether more than the last token is missing (a prompt of one token counts as a decode)."""
        return self.uncomputed > 1

    @property
    def prefill_tokens(self) -> int:
        """Tokens to compute before the next can be emitted, as policies see them: 0 while decoding."""
        missing = len(self.tokens) - self.computed
        return missing if missing > 1 else 0

    @property
    def tokens_to_deadline(self) -> int:
        """Tokens due by the deadline: 1 while streaming, else what the cap leaves."""
        return 1 if self.request.streaming else max(1, self.max_tokens - self.emitted)

    def hash_full_blocks(self, block_tokens: int, limit_tokens: int) -> list[bytes]:
        """Chain hashes of the full blocks among the first ``limit_tokens`` tokens; computed once and kept."""
        full = len(self.tokens) // block_tokens
        while len(self.hashes) < full:
            start = len(self.hashes) * block_tokens
            parent = self.hashes[-1] if self.hashes else ROOT_HASH
            self.hashes.append(chain_hash(parent, self.tokens[start : start + block_tokens]))
        limit = limit_tokens // block_tokens
        return self.hashes if limit >= len(self.hashes) else self.hashes[:limit]

    def emit(self, token: int, now_s: float) -> None:
        """Append an output token and move the deadline to the next."""
        self.tokens.append(token)
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.last_token_s = now_s
        if self.has_limits:
            self.deadline_s = self._deadline_s()

    def forget_blocks(self) -> list[int]:
        """Drop the block table (the caller releases the blocks): everything is to be computed again."""
        blocks, self.blocks = self.blocks, []
        self.computed = 0
        self.published = 0
        return blocks

    def _deadline_s(self) -> float:
        return next_deadline_s(
            self.request.limits,
            streaming=self.request.streaming,
            sent_s=self.sent_s,
            first_token_s=self.first_token_s,
            last_token_s=self.last_token_s,
            emitted_tokens=self.emitted,
        )

    def check_integrity(self, block_tokens: int) -> None:
        """Raise ``AssertionError`` if the sequence contradicts itself."""
        assert 0 <= self.computed <= len(self.tokens)
        assert len(self.blocks) * block_tokens >= self.computed, "computed tokens without blocks"
        assert self.published <= len(self.blocks)
        assert self.emitted <= self.max_tokens
        assert all(a != b for a, b in pairwise(self.hashes)), "a block's hash repeats its parent's"
