"""What goes into the engine and what comes out: requests, sampling parameters, deltas, rejections."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from setpoint.engine.constraint import Grammar
from setpoint.policy.views import INTERACTIVE, RequestLimits

GREEDY_BELOW = 1e-5


class FinishReason(StrEnum):
    """Why a request ended. ``STOP`` and ``LENGTH`` are OpenAI's; the others never reach a finished answer."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    SHED = "shed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. ``temperature`` 0 is greedy. Defaults follow the OpenAI API.

    presence_penalty, frequency_penalty: as OpenAI defines them, over emitted tokens. repetition_penalty: as Hugging
    Face defines it, over prompt and emitted tokens (1 is none). stop: strings that end the answer and are cut from it.
    logprobs: how many of the likeliest tokens are told beside each emitted one (0: that one alone; ``None``: nothing).
    stop_token_ids: tokens that end the answer as the model's own do, and are none of its text.
    logit_bias: (token id, number added to its logit), each id once. grammar: what the answer must look like.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    stop_token_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_BELOW or self.top_k == 1

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens change the logits."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)

    @property
    def is_adjusted(self) -> bool:
        """Whether penalties or a bias change the logits before a token is chosen."""
        return self.has_penalties or bool(self.logit_bias)

    @property
    def may_draft(self) -> bool:
        """Whether several tokens may be verified in a step: not where the choice of one changes the logits of the next in
        ways that are worked out token by token, nor where logprobs are told for each."""
        return not self.is_adjusted and self.grammar is None and self.logprobs is None

    @property
    def wants_logits(self) -> bool:
        """Whether arg-max of the raw logits is not enough."""
        return not self.is_greedy or self.is_adjusted or self.grammar is not None or self.logprobs is not None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request as the engine takes it. ``sent_s`` is on the engine's clock; ``None`` means on arrival.

    ``tenant``: whose request it is, for fairness inside a class (a name of any kind; equal names share). ``follows``: it is one
    more answer to a request that was let in before, and so may come while the engine drains. ``answers``: to this prompt that
    are let in together with the first of them, which comes alone and carries their number; 0: it is another of them.
    """

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    name: str = ""
    streaming: bool = True
    limits: RequestLimits = field(default_factory=RequestLimits)
    request_class: int = INTERACTIVE
    sent_s: float | None = None
    tenant: str = ""
    follows: bool = False
    answers: int = 1


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of the model's own probabilities, before temperature, filters, penalties, bias and grammar.

    ``top``: (token id, logprob) of the likeliest tokens, likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """What a request gained in a step. ``text`` never ends inside a character. The last delta has a ``finish_reason``.

    token_ids: the new tokens (may be empty in the last delta; text may be empty while a character is incomplete).
    message: words for an ``ERROR`` or ``SHED`` end. retry_after_s: with ``SHED``, when to try again.
    logprobs: where they were asked for, of the new token, unless it only ended the answer.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    message: str = ""
    retry_after_s: float | None = None
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class RequestStats:
    """What the engine knows of an ended request; times on the engine's clock, ``None`` where it never came so far.

    cap_tokens: the most that it might have emitted.
    """

    name: str
    arrived_s: float
    first_scheduled_s: float | None
    first_token_s: float | None
    ended_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    preemptions: int
    finish_reason: FinishReason
    streaming: bool = True
    cap_tokens: int = 0
    request_class: int = INTERACTIVE


class Rejected(Exception):
    """The policy did not admit the request. ``retry_after_s`` is its estimate of when asking again will succeed."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class InvalidRequest(ValueError):
    """The request can never be served (too long, unknown token, impossible parameter); ``field`` names the culprit."""

    def __init__(self, message: str, field_name: str) -> None:
        super().__init__(message)
        self.field_name = field_name


class EngineFailed(RuntimeError):
    """The engine stopped; requests in flight are lost."""


class EngineRestarting(EngineFailed):
    """The engine stopped and is being built again; ``retry_after_s`` is when it may be asked again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
