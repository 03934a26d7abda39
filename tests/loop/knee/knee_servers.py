"""Simulated servers with a known knee, on a virtual clock: what the search has to find without looking inside.

Each takes arrival times (s) and answers with the times of first token and end of every request, starting empty. They
share no code with the search's own model of a server.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Served:
    """What a client sees: instants in seconds, shape ``[n]`` each, NaN where it never came; planned sizes ``[n, 1]``."""

    arrival_s: Floats
    first_s: Floats
    end_s: Floats
    sizes: Floats | None = None


class Server(Protocol):
    """Anything that serves a list of arrivals from an empty start."""

    def serve(self, arrival_s: Floats, rng: np.random.Generator) -> Served:
        """Serve ``arrival_s`` (ascending)."""
        ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """Service times of a request alone on the server, mean ``mean_s``. ``kind``: lognormal, exponential or constant."""

    kind: str = "lognormal"
    mean_s: float = 1.0
    cv: float = 1.0

    def draw(self, n: int, rng: np.random.Generator) -> Floats:
        """Shape ``[n]``, seconds."""
        if self.kind == "constant":
            return np.full(n, self.mean_s)
        if self.kind == "exponential":
            return rng.exponential(self.mean_s, n)
        variance = log(1.0 + self.cv**2)
        return rng.lognormal(log(self.mean_s) - variance / 2.0, sqrt(variance), n)


@dataclass(frozen=True, slots=True)
class SharingServer:
    """``cores`` shared equally by the requests in service; at most ``most`` are, the others wait in order of arrival.

    ``most`` = infinity is processor sharing, ``most`` = ``cores`` first come first served. The first token comes after
    ``first_share`` of a request's work.
    """

    sizes: Sizes = Sizes()
    cores: int = 1
    most: float = float("inf")
    first_share: float = 0.1

    def serve(self, arrival_s: Floats, rng: np.random.Generator) -> Served:
        """Event by event; between events every request in service works at the same speed."""
        work = self.sizes.draw(len(arrival_s), rng)
        first_s, end_s = np.full(len(arrival_s), np.nan), np.full(len(arrival_s), np.nan)
        running: list[tuple[float, int, bool]] = []
        waiting: deque[int] = deque()
        now_s = attained = 0.0
        jobs = 0

        def start(k: int) -> None:
            heapq.heappush(running, (attained + self.first_share * work[k], k, False))
            heapq.heappush(running, (attained + work[k], k, True))

        for k, next_s in enumerate([*arrival_s.tolist(), float("inf")]):
            while running:
                speed = min(1.0, self.cores / jobs)
                until_s = now_s + (running[0][0] - attained) / speed
                if until_s > next_s:
                    attained += (next_s - now_s) * speed
                    break
                now_s = until_s
                attained, job, ends = heapq.heappop(running)
                if not ends:
                    first_s[job] = now_s
                    continue
                end_s[job] = now_s
                jobs -= 1
                if waiting:
                    start(waiting.popleft())
                    jobs += 1
            now_s = next_s
            if k == len(arrival_s):
                break
            if jobs < self.most:
                start(k)
                jobs += 1
            else:
                waiting.append(k)
        return Served(arrival_s, first_s, end_s)


@dataclass(frozen=True, slots=True)
class BatchServer:
    """A continuous-batching engine: a step with n running requests takes ``step_s + token_s * n`` and gives each a token.

    Requests join at step boundaries, at most ``most`` run; a joining prompt adds ``prompt_s`` (lognormal, cv 0.5) to its
    first step, which every running request feels. Answers have a lognormal number of tokens.
    """

    step_s: float = 0.012
    token_s: float = 0.0015
    prompt_s: float = 0.02
    tokens: float = 48.0
    tokens_cv: float = 0.7
    most: int = 32
    tells_sizes: bool = False

    @property
    def draw_sizes(self) -> Callable[[int, np.random.Generator], Floats] | None:
        """Planned answer lengths of requests to come, if a client is to know them."""
        return self._sizes if self.tells_sizes else None

    def _sizes(self, n: int, rng: np.random.Generator) -> Floats:
        return np.maximum(1.0, np.rint(Sizes("lognormal", self.tokens, self.tokens_cv).draw(n, rng)))[:, None]

    def serve(self, arrival_s: Floats, rng: np.random.Generator) -> Served:
        """Step by step; a step is a few operations however many run, because a request only needs its last step."""
        n = len(arrival_s)
        sizes = self._sizes(n, rng)
        tokens = sizes[:, 0].astype(int).tolist()
        prompt_s = Sizes("lognormal", self.prompt_s, 0.5).draw(n, rng).tolist()
        arrivals = arrival_s.tolist()
        first_s, end_s = np.full(n, np.nan), np.full(n, np.nan)
        leaving: list[tuple[int, int]] = []
        now_s, step, joined = 0.0, 0, 0
        while joined < n or leaving:
            if not leaving and arrivals[joined] > now_s:
                now_s = arrivals[joined]
            begun = joined
            cost_s = self.step_s
            while joined < n and arrivals[joined] <= now_s and len(leaving) < self.most:
                heapq.heappush(leaving, (step + tokens[joined], joined))
                cost_s += prompt_s[joined]
                joined += 1
            step += 1
            now_s += cost_s + self.token_s * len(leaving)
            first_s[begun:joined] = now_s
            while leaving and leaving[0][0] <= step:
                end_s[heapq.heappop(leaving)[1]] = now_s
        return Served(arrival_s, first_s, end_s, sizes if self.tells_sizes else None)


@dataclass(frozen=True, slots=True)
class Replicas:
    """Several servers of one kind; each request goes to one of them by chance."""

    each: SharingServer = SharingServer()
    count: int = 4

    def serve(self, arrival_s: Floats, rng: np.random.Generator) -> Served:
        """Every replica serves its own arrivals."""
        chosen = rng.integers(0, self.count, len(arrival_s))
        first_s, end_s = np.full(len(arrival_s), np.nan), np.full(len(arrival_s), np.nan)
        for replica in range(self.count):
            rows = np.flatnonzero(chosen == replica)
            served = self.each.serve(arrival_s[rows], rng)
            first_s[rows], end_s[rows] = served.first_s, served.end_s
        return Served(arrival_s, first_s, end_s)


@dataclass(frozen=True, slots=True)
class ShortestFirst:
    """One request at a time, the shortest of those that wait next."""

    sizes: Sizes = Sizes()

    def serve(self, arrival_s: Floats, rng: np.random.Generator) -> Served:
        """Request by request."""
        work, arrivals = self.sizes.draw(len(arrival_s), rng).tolist(), arrival_s.tolist()
        first_s, end_s = np.zeros(len(arrivals)), np.zeros(len(arrivals))
        waiting: list[tuple[float, int]] = []
        now_s, joined = 0.0, 0
        for _ in arrivals:
            if not waiting:
                now_s = max(now_s, arrivals[joined])
            while joined < len(arrivals) and arrivals[joined] <= now_s:
                heapq.heappush(waiting, (work[joined], joined))
                joined += 1
            took_s, job = heapq.heappop(waiting)
            first_s[job] = now_s + 0.1 * took_s
            now_s += took_s
            end_s[job] = now_s
        return Served(arrival_s, first_s, end_s)


def arrivals_s(rate_rps: float, n: int, rng: np.random.Generator, cv: float = 1.0) -> Floats:
    """``n`` arrivals with gamma gaps of the given coefficient of variation (1 is Poisson), shape ``[n]``."""
    shape = cv**-2
    return np.cumsum(rng.gamma(shape, 1.0 / (rate_rps * shape), n))


def true_knee_rps(
    server: Server, *, share: float, e2e_s: float = np.inf, ttft_s: float = np.inf, cv: float = 1.0, n: int = 200_000
) -> float:
    """The rate at which ``share`` of the requests of an endless run are within the limits, by bisection on long runs.

    The same random numbers serve every rate, so the share falls smoothly with the rate; the first 5 % are left out.
    """

    def good(rate_rps: float) -> float:
        served = server.serve(arrivals_s(rate_rps, n, np.random.default_rng(1), cv), np.random.default_rng(2))
        kept = slice(n // 20, None)
        ok = (served.end_s - served.arrival_s <= e2e_s) & (served.first_s - served.arrival_s <= ttft_s)
        return float(ok[kept].mean())

    low = 1.0
    while good(low) < share:
        low /= 2.0
    while good(2.0 * low) >= share:
        low *= 2.0
    high = 2.0 * low
    for _ in range(10):
        middle = sqrt(low * high)
        low, high = (middle, high) if good(middle) >= share else (low, middle)
    return sqrt(low * high)


def fifo_knee_rps(mean_s: float, share: float, e2e_s: float) -> float:
    """The knee of one exponential first-come-first-served server: P(E2E > t) = exp(-(1/mean - rate) t) exactly."""
    return 1.0 / mean_s + log(1.0 - share) / e2e_s
