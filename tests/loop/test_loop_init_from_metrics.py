"""``setpoint init --from-metrics``: pages of several servers, over loopback where a rate is to be seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from setpoint.loop.errors import BadInput
from setpoint.loop.init import InitAnswers, seen_text
from setpoint.loop.init_from_metrics import page_url, quantile, requirement_from_metrics, spread_out
from setpoint.requirement import ConstantTokens, LatencyMetric, LognormalTokens, Requirement, parse_requirement

BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Server:
    """A server's metrics, by vLLM's names or by another's."""

    def __init__(
        self, prefix: str = "vllm", prompts: str = "request_prompt_tokens", outputs: str = "request_generation_tokens"
    ):
        self.registry = CollectorRegistry()

        def histogram(name: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"{prefix}:{name}", "x", ["model_name"], buckets=buckets, registry=self.registry)

        self.prompts, self.outputs = histogram(prompts, BUCKETS), histogram(outputs, BUCKETS)
        self.ttft_s = histogram("time_to_first_token_seconds", SECONDS)
        self.queries = Counter(f"{prefix}:prefix_cache_queries", "x", ["model_name"], registry=self.registry)
        self.hits = Counter(f"{prefix}:prefix_cache_hits", "x", ["model_name"], registry=self.registry)
        self._rng = np.random.default_rng(1)

    def answer(self, requests: int, *, median: float = 300.0) -> None:
        """So many requests end."""
        for prompt in np.exp(np.log(median) + 0.8 * self._rng.standard_normal(requests)).tolist():
            self.prompts.labels("m/x").observe(round(prompt))
            self.outputs.labels("m/x").observe(64)
            self.ttft_s.labels("m/x").observe(0.08)
            self.queries.labels("m/x").inc(prompt)
            self.hits.labels("m/x").inc(0.25 * prompt)

    def page(self) -> str:
        """The page."""
        return generate_latest(self.registry).decode()


@contextmanager
def serving(server: Server, *, ended_between: int, status: int = 200, key: str | None = None) -> Iterator[str]:
    """The page over loopback, for who has the ``key``; after the first look ``ended_between`` requests end."""

    class Handler(BaseHTTPRequestHandler):
        looks = 0

        def do_GET(self) -> None:
            if Handler.looks == 1:
                server.answer(ended_between, median=30.0)
            Handler.looks += 1
            locked = key is not None and self.headers["authorization"] != f"Bearer {key}"
            self.send_response(401 if locked else status if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(server.page().encode())

        def log_message(self, *_: object) -> None:
            pass

    listener = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def loaded(text: str) -> Requirement:
    return parse_requirement(text, "new.yaml")


@pytest.mark.parametrize(
    "server",
    [Server(), Server("sglang", "prompt_tokens_histogram", "generation_tokens_histogram")],
    ids=["vllm", "sglang"],
)
def test_a_page_has_lengths_and_hits_and_no_rate(server: Server) -> None:
    server.answer(2000)
    text = requirement_from_metrics(server.page())
    requirement = loaded(text)
    profile = requirement.profile
    assert requirement.model.source == "m/x"
    assert isinstance(profile.prompt_tokens, LognormalTokens)
    assert profile.prompt_tokens.median == pytest.approx(300, rel=0.2)
    assert profile.prompt_tokens.p95 == pytest.approx(300 * np.exp(0.8 * 1.645), rel=0.25)
    assert 50 <= profile.output_tokens.smallest <= profile.output_tokens.largest <= 100
    assert profile.arrival.rate_rps == 1.0
    assert requirement.slo.limit_s(LatencyMetric.TTFT) == 0.5
    flat = " ".join(text.replace("#", " ").split())
    assert "One page has no rate in it: 1/s is a guess" in flat
    assert "Seen: 95% of first tokens within 100 ms, by the server's own clock." in flat
    if profile.prefix_hit_rate is not None:
        assert profile.prefix_hit_rate == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize(("ended", "median"), [(200, 30.0), (5, 300.0)])
def test_a_server_is_looked_at_twice(ended: int, median: float) -> None:
    server = Server()
    server.answer(2000)
    with serving(server, ended_between=ended) as url:
        requirement = loaded(requirement_from_metrics(url, interval_s=0.2, name="live"))
    # The rate counts what ended between the looks; the lengths do so only if that is enough.
    assert ended / 3 < requirement.profile.arrival.rate_rps <= ended / 0.2
    assert isinstance(requirement.profile.prompt_tokens, LognormalTokens)
    assert requirement.profile.prompt_tokens.median == pytest.approx(median, rel=0.35)
    assert requirement.name == "live"


def test_a_server_that_does_nothing_has_a_guessed_rate() -> None:
    server = Server()
    server.answer(20)
    with serving(server, ended_between=0) as url:
        text = requirement_from_metrics(f"{url}/v1", interval_s=0.01)
        assert "1/s is a guess" in " ".join(text.replace("#", " ").split())
        assert loaded(requirement_from_metrics(url, interval_s=0.01, rate="7/s")).profile.arrival.rate_rps == 7.0


def test_where_there_are_only_totals_there_are_only_means() -> None:
    page = """\
setpoint_prompt_tokens_total{model_name="tiny"} 5000.0
setpoint_generation_tokens_total{model_name="tiny"} 1000.0
setpoint_request_success_total{finished_reason="stop",model_name="tiny"} 30.0
setpoint_request_success_total{finished_reason="length",model_name="tiny"} 20.0
setpoint_request_cut_total{model_name="tiny"} 0.0
"""
    text = requirement_from_metrics(page)
    profile = loaded(text).profile
    assert (profile.prompt_tokens, profile.output_tokens) == (ConstantTokens(value=100), ConstantTokens(value=20))
    assert "how they vary the server does not say" in " ".join(text.replace("#", " ").split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the page: no metrics of setpoint, vLLM, SGLang, TGI or Dynamo in it"),
        ("node_load1 0.2\n", "no metrics of setpoint"),
        ("vllm:prompt_tokens_total x y z\n", "the page: not the text of a metrics page"),
        ("vllm:prompt_tokens_total 0\nvllm:request_success_total 0\n", "it has counted no prompts yet"),
    ],
)
def test_pages_that_say_nothing(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        requirement_from_metrics(text)


def test_servers_that_cannot_be_asked() -> None:
    server = Server()
    with (
        serving(server, ended_between=0, status=503) as url,
        pytest.raises(BadInput, match="HTTP 503; is there a metrics page"),
    ):
        requirement_from_metrics(url, interval_s=0.0)
    with pytest.raises(BadInput, match=r"cannot be read: .* is the server running"):
        requirement_from_metrics(url, interval_s=0.0)


def test_a_server_with_a_key_is_asked_with_it() -> None:
    server = Server()
    server.answer(200)
    with serving(server, ended_between=0, key="k") as url:

        def seen(api_key: str | None) -> str:
            return seen_text(
                InitAnswers(name="locked"),
                from_trace=None,
                trace_format=None,
                from_metrics=url,
                interval_s=0.01,
                api_key=api_key,
            )

        assert loaded(seen("k")).name == "locked"
        for wrong in (None, "other"):
            with pytest.raises(BadInput, match="HTTP 401; pass a valid key with --api-key"):
                seen(wrong)


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/metrics"),
        ("http://host:8000/", "http://host:8000/metrics"),
        ("https://host/v1", "https://host/metrics"),
        ("http://host:9000/deep/metrics", "http://host:9000/deep/metrics"),
    ],
)
def test_where_the_page_is(source: str, url: str) -> None:
    assert page_url(source) == url


@given(st.lists(st.integers(0, 1000), min_size=len(BUCKETS) + 1, max_size=len(BUCKETS) + 1))
def test_a_histogram_is_spread_within_its_buckets(counts: list[int]) -> None:
    bounds = dict(zip((*map(float, BUCKETS), float("inf")), np.cumsum(counts).tolist(), strict=True))
    values, weights = spread_out(bounds)
    assert weights.sum() == pytest.approx(sum(counts))
    for low, high, count in zip((0, *BUCKETS), BUCKETS, counts, strict=False):
        inside = weights[(values > low) & (values <= high)].sum()
        assert inside == pytest.approx(count + (counts[-1] if high == BUCKETS[-1] else 0))
    middle = quantile(bounds, 0.5)
    assert middle is None or bounds[middle] * 2 >= sum(counts)
