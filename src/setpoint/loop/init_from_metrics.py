"""``setpoint init --from-metrics``: a requirement from the ``/metrics`` page of a server that is in use."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from setpoint.loop.errors import BadInput
from setpoint.loop.init_from import GUESSED_RATE, GUESSED_SLO, LEAST_HIT_RATE, SLO_GUESS, token_spec, token_words
from setpoint.measure.metrics_text import read_page
from setpoint.requirement import ConstantTokens, RequirementError, render_requirement
from setpoint.requirement.render import LimitSpec
from setpoint.workload.fits import TokenFit, fit_tokens

INTERVAL_S = 10.0
TIMEOUT_S = 10.0
MAX_PAGE_BYTES = 16 << 20
LEAST_RECENT = 100
"""As many requests between two looks make the time between them the better sample; before that all since the start count."""
STEPS_A_BUCKET = 32

PROMPTS = ("request_prompt_tokens", "prompt_tokens_histogram", "input_sequence_tokens", "request_input_length")
OUTPUTS = ("request_generation_tokens", "generation_tokens_histogram", "output_sequence_tokens", "request_generated_tokens")
TTFT = ("time_to_first_token_seconds",)
ITL = ("inter_token_latency_seconds", "time_per_output_token_seconds")

_URL = re.compile(r"^(https?://\S+|[\w.-]+:\d+(/\S*)?)$")
_PREFIX = re.compile(r"^(?:ray_)?(?:setpoint|vllm|sglang|tgi|llamacpp|dynamo_frontend|dynamo_component)[:_]")


@dataclass(slots=True)
class Page:
    """One look at a server. counters: by the names of ``measure.server_kinds``. histograms: count up to each bound, by name."""

    counters: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, dict[float, float]] = field(default_factory=dict)
    model: str = ""

    def histogram(self, names: tuple[str, ...]) -> dict[float, float]:
        """The first of these histograms that is there, empty if none is."""
        return next((self.histograms[name] for name in names if name in self.histograms), {})

    @property
    def requests(self) -> float | None:
        """Requests that ended."""
        for names in (PROMPTS, OUTPUTS, TTFT):
            bounds = self.histogram(names)
            if bounds:
                return bounds[max(bounds)]
        return self.counters.get("requests_ended")


def requirement_from_metrics(
    source: str,
    *,
    interval_s: float = INTERVAL_S,
    headers: Mapping[str, str] | None = None,
    name: str | None = None,
    model: str | None = None,
    rate: str | None = None,
    slo: LimitSpec | None = None,
) -> str:
    """The text of a requirement whose profile is what a server's metrics page shows.

    source: the URL of the page or of its server, which is asked twice, ``interval_s`` apart, so that the rate is known; or
    the text of a page, which has no rate in it. Knows setpoint, vLLM, SGLang, TGI and Dynamo. Raises ``BadInput`` for a
    page that cannot be had or says nothing of requests.
    """
    if not _URL.match(source.strip()):
        first, last, between_s, where = Page(), read(source, "the page"), None, "a metrics page"
    else:
        where = page_url(source.strip())
        first = read(fetch(where, headers or {}), where)
        began_s = time.monotonic()
        time.sleep(interval_s)
        last = read(fetch(where, headers or {}), where)
        between_s = time.monotonic() - began_s
    recent = rise(first, last) if between_s is not None else last
    enough = between_s is not None and (recent.requests or 0) >= LEAST_RECENT
    shown = recent if enough else last
    period = "what happened between two looks" if enough else "all that happened since its start"
    remarks: dict[str, list[str]] = {"": [f"Written from {where}, from {period}."]}
    prompts = _tokens("prompt_tokens", "prompts", PROMPTS, shown, remarks, where)
    outputs = _tokens("output_tokens", "answers", OUTPUTS, shown, remarks, where)
    hit_rate = _hit_rate(shown, remarks)
    arrival_rate = _rate(rate, recent.requests, between_s, remarks)
    _seen_latencies(shown, remarks, given=slo is not None)
    limits = GUESSED_SLO if slo is None else slo
    if outputs.distribution.largest == 1:
        limits = {metric: limit for metric, limit in limits.items() if metric not in ("itl", "tpot")}
    try:
        return render_requirement(
            name=name or "from-metrics",
            model=model or last.model or "smollm2-135m",
            prompt_tokens=token_spec(prompts.distribution),
            output_tokens=token_spec(outputs.distribution),
            prefix_hit_rate=hit_rate,
            rate=arrival_rate,
            slo=limits,
            remarks=remarks,
        )
    except RequirementError as error:
        raise BadInput(f"{where}: what was found there makes no requirement: {error}") from error


def page_url(source: str) -> str:
    """The URL of the metrics page; ``/metrics`` where only a server is named."""
    url = source if "://" in source else f"http://{source}"
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}/{path if path not in ('', 'v1', 'v1/') else 'metrics'}"


def fetch(url: str, headers: Mapping[str, str]) -> str:
    """The text of a page. Raises ``BadInput``."""
    try:
        request = urllib.request.Request(url)
        for name, value in headers.items():
            request.add_unredirected_header(name, value)  # A key is for this server alone.
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            data = answer.read(MAX_PAGE_BYTES + 1)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise BadInput(f"{url}: HTTP {error.code}; pass a valid key with --api-key, or in SETPOINT_API_KEY") from error
        raise BadInput(f"{url}: HTTP {error.code}; is there a metrics page, and is it switched on?") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise BadInput(f"{url}: cannot be read: {reason}; is the server running, and the address right?") from error
    if len(data) > MAX_PAGE_BYTES:
        raise BadInput(f"{url}: a page of more than {MAX_PAGE_BYTES >> 20} MiB is not read")
    return str(data.decode("utf-8", "replace"))


def read(text: str, where: str) -> Page:
    """What a page says. Raises ``BadInput`` for text that is no metrics page of a server we know."""
    wanted = {name for names in (PROMPTS, OUTPUTS, TTFT, ITL) for name in names}
    page = Page()
    lines = [line for line in text.splitlines() if _PREFIX.match(line)]
    if not lines:
        raise BadInput(f"{where}: no metrics of setpoint, vLLM, SGLang, TGI or Dynamo in it")
    try:
        page.counters = read_page("\n".join(lines) + "\n").values
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                page.model = page.model or sample.labels.get("model_name", "")
                name = _PREFIX.sub("", sample.name).removesuffix("_bucket")
                if name in wanted and "le" in sample.labels:
                    bounds = page.histograms.setdefault(name, {})
                    bound = float(sample.labels["le"])
                    bounds[bound] = bounds.get(bound, 0.0) + sample.value
    except ValueError as error:
        raise BadInput(f"{where}: not the text of a metrics page: {error}") from error
    return page


def rise(first: Page, last: Page) -> Page:
    """What happened between two looks; all since the start if the server started anew between them."""
    if (last.requests or 0) < (first.requests or 0):
        return last
    counters = {name: value - first.counters.get(name, 0.0) for name, value in last.counters.items()}
    histograms = {
        name: {bound: count - first.histograms.get(name, {}).get(bound, 0.0) for bound, count in bounds.items()}
        for name, bounds in last.histograms.items()
    }
    return Page(counters, histograms, last.model)


def spread_out(bounds: Mapping[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A histogram as token counts spread evenly, on a log scale, over each bucket, and how often each is; shapes ``[m]``."""
    edges = sorted(bound for bound in bounds if isfinite(bound))
    counts = np.diff([0.0, *(bounds[edge] for edge in edges)])
    values: list[float] = []
    weights: list[float] = []
    low = 0.0
    for edge, count in zip(edges, counts.tolist(), strict=True):
        if count > 0:
            inside = np.geomspace(max(low + 1, 1), max(edge, 1), STEPS_A_BUCKET)
            values += np.rint(inside).tolist()
            weights += [count / STEPS_A_BUCKET] * STEPS_A_BUCKET
        low = edge
    above = bounds.get(inf, 0.0) - (bounds[edges[-1]] if edges else 0.0)
    if above > 0 and edges:
        values.append(edges[-1])
        weights.append(above)
    return np.array(values, dtype=np.int64), np.array(weights)


def quantile(bounds: Mapping[float, float], share: float) -> float | None:
    """The upper bound of the bucket that a quantile lies in; ``None`` if it is open, or nothing was counted."""
    total = max(bounds.values(), default=0.0)
    found = next((bound for bound in sorted(bounds) if bounds[bound] >= share * total), inf) if total else inf
    return found if isfinite(found) else None


def _tokens(counter: str, what: str, names: tuple[str, ...], page: Page, remarks: dict[str, list[str]], where: str) -> TokenFit:
    """The distribution of lengths: from a histogram, or the mean alone, or not at all."""
    bounds = page.histogram(names)
    if max(bounds.values(), default=0.0) > 0:
        values, weights = spread_out(bounds)
        if values.size:
            fit = fit_tokens(values, weights)
            remarks[counter] = [
                f"{token_words(what, fit)} The server counts in {len(bounds)} buckets; between their bounds it is a guess."
            ]
            return fit
    requests = page.requests
    total = page.counters.get(counter)
    if not requests or total is None or total < 1:
        raise BadInput(f"{where}: it has counted no {what} yet; ask a server that has had requests")
    mean = max(1, round(total / requests))
    remarks[counter] = [f"Seen: {what} of {mean} tokens on average; how they vary the server does not say."]
    return TokenFit(ConstantTokens(value=mean), 0.0, float(mean))


def _hit_rate(page: Page, remarks: dict[str, list[str]]) -> str | None:
    counters = page.counters
    asked, found = counters.get("prefix_queries"), counters.get("prefix_hits")
    if not asked or found is None:
        asked, found = counters.get("prompt_tokens"), counters.get("cached_prompt_tokens")
    if not asked or found is None or found < LEAST_HIT_RATE * asked:
        return None
    share = min(found / asked, 0.99)
    remarks["prefix_hit_rate"] = [f"Seen: the server's prefix cache found {share:.1%} of the prompt tokens it looked for."]
    return f"{share:.1%}"


def _rate(rate: str | None, requests: float | None, between_s: float | None, remarks: dict[str, list[str]]) -> str:
    if rate is not None:
        remarks["arrival"] = ["The rate is the one you gave; how arrivals vary the server does not say: Poisson is a guess."]
        return rate
    if between_s is None or not requests:
        seen = (
            "One page has no rate in it" if between_s is None else f"Nothing ended in the {between_s:.3g} s that were watched"
        )
        remarks["arrival"] = [f"{seen}: {GUESSED_RATE} is a guess, and so is that arrivals are Poisson."]
        return GUESSED_RATE
    guess = "How arrivals vary the server does not say: Poisson is a guess, and so is that this moment is like others."
    remarks["arrival"] = [f"Seen: {requests:.0f} requests ended in {between_s:.3g} s. {guess}"]
    return f"{requests / between_s:.4g}/s"


def _seen_latencies(page: Page, remarks: dict[str, list[str]], *, given: bool) -> None:
    sentences = [] if given else [SLO_GUESS]
    for names, words, share in ((TTFT, "first tokens within", 0.95), (ITL, "gaps between tokens within", 0.99)):
        limit_s = quantile(page.histogram(names), share)
        if limit_s is not None:
            sentences.append(f"Seen: {share:.0%} of {words} {limit_s * 1e3:.4g} ms, by the server's own clock.")
    if sentences:
        remarks["slo"] = sentences
