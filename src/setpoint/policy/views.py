"""What a policy may see: columns of requests, the machine's KV state, and the time. Never a request's true output length."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from setpoint.policy.decisions import StepPlan

IntColumn = npt.NDArray[np.int64]
FloatColumn = npt.NDArray[np.float64]
BoolColumn = npt.NDArray[np.bool_]

INTERACTIVE: Final = 0
BATCH: Final = 1


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The SLO of one request, in seconds; ``None`` where none is declared (the source is the requirement or a header)."""

    ttft_s: float | None = None
    itl_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


@dataclass(frozen=True, slots=True)
class RequestView:
    """A request at admission. ``sent_s`` is the intended send time where the client told it, else the arrival.

    ``tenant``: a small number for whoever pays (0 where nobody said). ``fingerprint``: a hash of the prompt, by which a
    refused request that comes back is known again without any help from the client; 0 is none. ``answers``: how many to this
    prompt are let in with it (their prompt is computed once); 0: it was let in with the first of them.
    """

    request_id: int
    arrived_s: float
    sent_s: float
    prompt_tokens: int
    uncached_tokens: int
    max_output_tokens: int
    streaming: bool = True
    limits: RequestLimits = field(default_factory=RequestLimits)
    request_class: int = INTERACTIVE
    tenant: int = 0
    fingerprint: int = 0
    answers: int = 1


@dataclass(frozen=True, slots=True)
class KvView:
    """The KV block pool. ``free_blocks`` counts blocks that can be had now, cached but unreferenced ones included."""

    blocks: int
    free_blocks: int
    block_tokens: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Requests as columns of equal length, in arrival order.

    ``context_tokens``: tokens whose KV is computed. ``prefill_tokens``: tokens still to be computed before the next
    token can be emitted (0 while decoding; for a waiting request its uncached tokens). ``deadline_s``: deadline of the
    next token (or of the end, for a request that does not stream), ``inf`` where none. ``tokens_to_deadline``: tokens
    that have to be emitted by then (1 while streaming, else what the cap leaves). ``emitted_tokens``: so far.
    ``cap_tokens``: most tokens the request may emit in all. ``gap_s``: seconds between two tokens that its limits allow
    (the lesser of ITL and TPOT), ``inf`` where none is declared or it does not stream. ``tenant``: as in ``RequestView``.
    """

    ids: IntColumn
    arrived_s: FloatColumn
    deadline_s: FloatColumn
    context_tokens: IntColumn
    prefill_tokens: IntColumn
    emitted_tokens: IntColumn
    tokens_to_deadline: IntColumn
    request_class: IntColumn
    cap_tokens: IntColumn
    gap_s: FloatColumn
    tenant: IntColumn

    def __len__(self) -> int:
        return len(self.ids)


_values = attrgetter(*(each.name for each in fields(Columns)))


def joined_columns(first: Columns, second: Columns) -> Columns:
    """The rows of both, in this order."""
    if not len(first) or not len(second):
        return second if not len(first) else first
    return Columns(*map(np.concatenate, zip(_values(first), _values(second), strict=True)))


def taken(columns: Columns, index: IntColumn) -> Columns:
    """Rows ``index``, in that order."""
    return Columns(*(column[index] for column in _values(columns))) if len(index) else NO_COLUMNS


def no_columns() -> Columns:
    """Columns of no requests."""
    return NO_COLUMNS


def _no_columns() -> Columns:
    whole, real = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64)
    return Columns(whole, real, real, whole, whole, whole, whole, whole, whole, real, whole)


NO_COLUMNS: Final = _no_columns()


@dataclass(frozen=True, slots=True)
class SystemView:
    """The system at admission: how much is queued and running.

    The columns say who is queued and running; a gateway that cannot see that leaves them empty and gives the sums alone.
    """

    now_s: float
    waiting: int
    waiting_uncached_tokens: int
    running: int
    running_prefill_tokens: int
    running_context_tokens: int
    kv: KvView
    waiting_columns: Columns = field(default_factory=no_columns)
    running_columns: Columns = field(default_factory=no_columns)


class Foretold(NamedTuple):
    """A guess that was not verified, held against what came: whether token ``position`` (from 0) of it stood, as all before it.

    ``sureness``: of the guess, as in ``DraftView``.
    """

    request_id: int
    sureness: int
    position: int
    stood: bool


@dataclass(frozen=True, slots=True)
class DraftView:
    """What could be drafted for each of ``StepView.running``, as columns in their order.

    ``most_tokens``: longest draft (0: there is none, or the request's constraints forbid one). ``sureness``: the drafter's own
    class of how good its guess is, 0 and up. ``behind_tokens``: what the drafter would read in this step; ``later_tokens``:
    what it would have left to read (``None``: nobody has), while which it has no guess. ``foretells``: guesses are free, so
    those that are not verified are held against what came; ``foretold``: what that showed since the last view.
    """

    most_tokens: IntColumn
    sureness: IntColumn
    behind_tokens: IntColumn
    foretells: bool = False
    foretold: tuple[Foretold, ...] = ()
    later_tokens: IntColumn | None = None

    @property
    def unread_tokens(self) -> IntColumn:
        """All that the drafter has to read before it can guess."""
        return self.behind_tokens if self.later_tokens is None else self.behind_tokens + self.later_tokens

    @property
    def ready(self) -> BoolColumn:
        """Who can be guessed for in this step."""
        return np.asarray(self.unread_tokens == self.behind_tokens, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class StepView:
    """What the next step may be planned from. ``in_flight`` is the plan whose result has not been observed (lag 1).

    ``drafts``: ``None`` where nothing could be drafted.
    """

    now_s: float
    waiting: Columns
    running: Columns
    kv: KvView
    in_flight: StepPlan | None = None
    drafts: DraftView | None = None
