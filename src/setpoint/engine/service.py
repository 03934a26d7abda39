"""The engine as an asynchronous service: the step loop on its own thread, streams on the caller's event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from setpoint.engine.chat_template import NO_VARIABLES, ToolStyle
from setpoint.engine.constraint import SupportsGrammars
from setpoint.engine.request import Delta, GenerationRequest, RequestStats
from setpoint.policy.step_time import PredictionError


@dataclass(frozen=True, slots=True)
class GuessTotals:
    """How good guesses were, verified or not (``engine/speculation/guesses.py``, whose fields these are)."""

    looked: int = 0
    found: int = 0
    tried: tuple[int, ...] = ()
    stood: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SpeculationTotals:
    """Drafts verified, their tokens, those accepted (by position in the draft, too), seconds in either; and how good guesses
    were, those that were not verified included."""

    drafts: int
    draft_tokens: int
    accepted_tokens: int
    accepted_per_position: tuple[int, ...]
    draft_seconds: float
    verify_seconds: float
    guesses: GuessTotals = field(default_factory=GuessTotals)


@dataclass(frozen=True, slots=True)
class EngineGauges:
    """The engine at one moment. Counters are totals since the start.

    admissions: how often the policy decided (``admit`` or ``reject``, code of the reason) on a request. prediction_error,
    prediction_source: of the step-time model, ``None`` and empty where there is none. speculation: ``None`` without it.
    """

    now_s: float
    waiting: int
    running: int
    kv_blocks: int
    kv_used_blocks: int
    steps_total: int
    step_seconds_total: float
    prefix_queries_total: int
    prefix_hits_total: int
    preemptions_total: int
    shed_total: int
    rejected_total: int
    prompt_tokens_total: int
    output_tokens_total: int
    admissions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    prediction_error: PredictionError | None = None
    prediction_source: str = ""
    restarts_total: int = 0
    stalls_total: int = 0
    speculation: SpeculationTotals | None = None


class TokenStream(Protocol):
    """One request's answer. Iterating ends after the delta that has a finish reason; ``cancel`` may come at any time."""

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def cached_tokens(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    def cancel(self) -> None:
        """End the request; its KV blocks are free at the next step. Harmless after the end."""
        ...


class Tokenizer(SupportsGrammars, Protocol):
    """Text to token ids and back, for the model being served, and grammars over its tokens."""

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: list[int]) -> str: ...

    def piece(self, token: int) -> bytes:
        """What a token is shown as: its bytes in running text, or a special token's name."""
        ...

    @property
    def tool_style(self) -> ToolStyle:
        """How the model writes down a call of a tool; ``NONE`` if its chat template knows no tools."""
        ...

    def render_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        add_generation_prompt: bool = True,
        extra: Mapping[str, object] = NO_VARIABLES,
    ) -> str:
        """The text of a conversation by the model's own template, which sees ``extra`` too. Raises ``InvalidRequest``."""
        ...


class EngineService(Protocol):
    """What a server needs of an engine."""

    @property
    def model_name(self) -> str: ...

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def now_s(self) -> float:
        """The present moment on the engine's clock, of which ``GenerationRequest.sent_s`` is."""
        ...

    async def start(self) -> None:
        """Start the step loop; raises ``EngineFailed`` if the model cannot be run."""
        ...

    async def submit(self, request: GenerationRequest) -> TokenStream:
        """Admit a request. Raises ``Rejected``, ``InvalidRequest`` or ``EngineFailed``."""
        ...

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Take no more requests, let running ones end within ``drain_s``, cancel the rest, stop the thread."""
        ...

    def gauges(self) -> EngineGauges:
        """A consistent snapshot, cheap enough for every scrape."""
        ...

    def ended_requests(self, since: int) -> tuple[list[RequestStats], int]:
        """Ended requests with serial number from ``since`` (a bounded ring), and the next serial number."""
        ...

    def step_columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        """Recorded steps from number ``since`` as columns named as in ``record.columns.STEP_COLUMNS`` (a bounded ring)."""
        ...

    def decision_columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        """Decisions from number ``since`` as columns named as in ``record.columns.DECISION_COLUMNS`` (a bounded ring)."""
        ...
