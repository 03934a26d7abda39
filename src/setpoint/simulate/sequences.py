"""A request in the simulator: lengths and block digests instead of tokens, and its place in the load."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.policy.deadlines import gap_limit_s
from setpoint.policy.views import INTERACTIVE, RequestLimits


@dataclass(slots=True)
class Progress:
    """Decode steps done so far: every decoding request advances by one in each, so none has to be counted by itself."""

    steps: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """What many requests have in common. ``limits`` are the deadlines that the policy is told of."""

    streaming: bool = True
    limits: RequestLimits = field(default_factory=RequestLimits)
    request_class: int = INTERACTIVE
    sampling: SamplingParams = field(default_factory=SamplingParams)

    @property
    def limited(self) -> bool:
        """Whether any limit is declared."""
        return self.limits != RequestLimits()

    def as_request(self, name: str = "") -> GenerationRequest:
        """The engine's view of it; prompts and sampling play no part."""
        return GenerationRequest(
            (), self.sampling, name=name, streaming=self.streaming, limits=self.limits, request_class=self.request_class
        )


NO_LIMITS = RequestLimits()


class SimulatedSequence(Sequence):
    """A request as the step loop knows it, its tokens being a number.

    row: its place in the load; phase: a small number for where its figures belong. target_tokens: where its answer ends,
    unknown to any policy. named: digests of the leading full blocks that other prompts may have too; referred: those of them
    that it holds a reference to. held: blocks it holds while in prefill (a decode holds those that its computed tokens fill;
    -1: its row knows).
    since: ``Progress.steps`` when it began to decode, -1 while it does not. grown: ``Progress.steps`` when it last got a block
    by itself. follows: whether its last token came with the last step. gaps_from, late_from: the step of its last token that
    followed no other, and what the counts of late gaps were then; own_gap_s, own_late: the largest of its earlier gaps, and how
    many of them were late.
    """

    __slots__ = (
        "_computed",
        "_emitted",
        "_progress",
        "follows",
        "gaps_from",
        "grown",
        "held",
        "late_from",
        "named",
        "own_gap_s",
        "own_late",
        "phase",
        "referred",
        "row",
        "since",
        "target_tokens",
    )

    def __init__(
        self,
        sequence_id: int,
        request: GenerationRequest,
        progress: Progress,
        *,
        row: int,
        phase: int,
        arrived_s: float,
        sent_s: float,
        prompt_tokens: int,
        target_tokens: int,
        cap_tokens: int,
        named: tuple[int, ...] = (),
        fingerprint: int = 0,
    ) -> None:
        # The engine's own fields, without its tokens and what hangs on them.
        limits = request.limits
        self.sequence_id = sequence_id
        self.tenant = 0
        self.fingerprint = fingerprint
        self.has_limits = limits is not NO_LIMITS and limits != NO_LIMITS
        self.gap_s = gap_limit_s(limits, streaming=request.streaming) if self.has_limits else inf
        self.may_draft = request.sampling.may_draft
        self.request = request
        self.arrived_s = arrived_s
        self.sent_s = sent_s
        self.prompt_tokens = prompt_tokens
        self.max_tokens = cap_tokens
        self.cached_tokens = 0
        self.uncached_tokens = prompt_tokens
        self.published = 0
        self.preemptions = 0
        self.preempted_for = ""
        self.first_scheduled_s = None
        self.first_token_s = None
        self.last_token_s = None
        self.finish_reason = None
        self.row = row
        self.phase = phase
        self.target_tokens = target_tokens
        self.named = named
        self.referred: list[int] = []
        self.held = 0
        self.since = -1
        self.grown = -1
        self.follows = False
        self.gaps_from = 0
        self.late_from: tuple[int, ...] = ()
        self.own_gap_s = 0.0
        self.own_late: tuple[int, ...] = ()
        self._emitted = 0
        self._computed = 0
        self._progress = progress
        self.deadline_s = self._deadline_s() if self.has_limits else inf

    @property
    def emitted(self) -> int:
        """Output tokens so far."""
        return self._emitted if self.since < 0 else self._emitted + self._progress.steps - self.since

    @property
    def length(self) -> int:
        """Prompt and output tokens so far."""
        return self.prompt_tokens + self.emitted

    @property
    def computed(self) -> int:
        """Tokens whose KV is there."""
        return self._computed if self.since < 0 else self._computed + self._progress.steps - self.since

    @computed.setter
    def computed(self, tokens: int) -> None:
        self._computed = tokens

    @property
    def uncomputed(self) -> int:
        """Tokens whose KV is missing: 1 while decoding, more in prefill."""
        return self.length - self.computed

    @property
    def prefill_tokens(self) -> int:
        """Tokens to compute before the next can be emitted: 0 while decoding."""
        missing = self.length - self.computed
        return missing if missing > 1 else 0

    @property
    def holds_blocks(self) -> bool:
        """Whether there is anything to give back."""
        return self.held != 0

    def emit_after_prompt(self) -> None:
        """The token that a prompt ends with; those after it come with ``Progress``."""
        self._emitted += 1

    def gain(self, tokens: int) -> None:
        """So many tokens beside the one that came with ``Progress``, their KV being there."""
        self._emitted += tokens
        self._computed += tokens

    def begin_to_decode(self) -> None:
        """From now on it advances with ``Progress``."""
        self.since = self._progress.steps

    def stop_decoding(self) -> None:
        """What it has stays; it advances no more."""
        self._emitted, self._computed, self.since = self.emitted, self.computed, -1

    def forget_blocks(self) -> list[int]:
        """Everything is to be computed again (the caller gives the blocks back)."""
        self.stop_decoding()
        self._computed = 0
        self.published = 0
        self.held = 0
        self.referred = []
        return []

    def renew_deadline(self) -> None:
        """The deadline of the token after the last."""
        if self.has_limits:
            self.deadline_s = self._deadline_s()
