"""What a batch has come to so far: counts over all runs, and speeds of this one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

RECENT_BUCKETS = 60
BUCKET_S = 1.0


@dataclass(slots=True)
class _Bucket:
    began_s: float
    answers: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Tally:
    """Counts of requests. total = done + failed + left; ``already`` of them were ended when this run began.

    again: failed requests of earlier runs that this one asks again. retried: times that a request was sent again. refused:
    answers that said the server had no room. last_trouble: what stood in the way since the last answer. All tokens and
    seconds are of this run alone; times are of one monotonic clock.
    """

    total: int
    done: int
    failed: int
    started_s: float
    already: int = field(init=False)
    again: int = 0
    retried: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    under_way: int = 0
    limit: int = 0
    last_trouble: str = ""
    _recent: deque[_Bucket] = field(default_factory=lambda: deque(maxlen=RECENT_BUCKETS))

    def __post_init__(self) -> None:
        self.already = self.done + self.failed

    @property
    def ended(self) -> int:
        """Requests that have their line in the output."""
        return self.done + self.failed

    @property
    def left(self) -> int:
        """Requests that have none yet."""
        return self.total - self.ended

    def keep_failed(self, count: int) -> None:
        """So many failures of earlier runs stay as they are: they had ended when this run began."""
        self.failed += count
        self.already += count

    def end(self, now_s: float, *, failed: bool, prompt_tokens: int, output_tokens: int) -> None:
        """A request has ended."""
        self.failed += failed
        self.done += not failed
        self.prompt_tokens += prompt_tokens
        self.output_tokens += output_tokens
        if not self._recent or now_s - self._recent[-1].began_s >= BUCKET_S:
            self._recent.append(_Bucket(now_s))
        self._recent[-1].answers += 1
        self._recent[-1].tokens += output_tokens

    def tokens_per_s(self, now_s: float) -> float:
        """Output tokens per second of late."""
        return sum(bucket.tokens for bucket in self._recent) / self._recent_s(now_s)

    def remaining_s(self, now_s: float) -> float | None:
        """Seconds until all is done, at the speed of late; ``None`` while nothing is known."""
        answers = sum(bucket.answers for bucket in self._recent)
        return self.left * self._recent_s(now_s) / answers if answers else None

    def _recent_s(self, now_s: float) -> float:
        """From when the buckets that are kept count."""
        whole = len(self._recent) == RECENT_BUCKETS
        began_s = self._recent[0].began_s if whole else self.started_s
        return max(now_s - began_s, 1e-3)
