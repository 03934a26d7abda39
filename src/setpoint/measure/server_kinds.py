"""Under which names each kind of server publishes each quantity on its ``/metrics`` page, and what it means there.

A quantity has one meaning whatever the server; where a server counts something slightly different, ``docs/servers.md``
says so. Names are without the server's prefix and without a counter's ``_total``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

_NO_LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class ServerKind(StrEnum):
    """A server whose page is understood."""

    SETPOINT = "setpoint"
    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    TGI = "tgi"
    DYNAMO_FRONTEND = "dynamo_frontend"
    DYNAMO_WORKER = "dynamo_component"


# Engines come before what stands in front of them: where a page has both, the engine's own figure counts.
# Ray Serve puts ``ray_`` before vLLM's names and writes every colon as an underscore.
PREFIX = re.compile(r"^(?:ray_)?(setpoint|vllm|sglang|llamacpp|tgi|dynamo_frontend|dynamo_component)[:_](.+)$")

GAUGES = ("running", "waiting", "kv_usage", "kv_tokens", "acceptance_length")
COUNTERS = (
    "requests_ended",
    "rejected",
    "shed",
    "preemptions",
    "prompt_tokens",
    "cached_prompt_tokens",
    "output_tokens",
    "prefix_queries",
    "prefix_hits",
    "drafts",
    "draft_tokens",
    "accepted_tokens",
    "queue_wait_sum_s",
    "queue_waits",
)
# Of these the largest over engines counts: they are shares of each, not amounts.
SHARES = frozenset({"kv_usage", "acceptance_length"})
# Ranks that work on the same requests all tell the same; one of them counts.
SAME_STATE_LABELS = frozenset({"tp_rank", "pp_rank", "moe_ep_rank", "pid"})
MODEL_LABELS = ("model_name", "model")


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a quantity: the first of ``names`` that the page has counts, the others are older spellings.

    labels: only samples with one of these values of a label (samples without the label count too).
    required: without it the quantity is unknown; otherwise its absence adds nothing. sign: +1 or -1.
    """

    names: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_LABELS)
    required: bool = True
    sign: int = 1


Meanings = Mapping[str, tuple[Term, ...]]


def _one(*names: str) -> tuple[Term, ...]:
    return (Term(names),)


_SPECULATION: Meanings = {
    "drafts": _one("spec_decode_num_drafts"),
    "draft_tokens": _one("spec_decode_num_draft_tokens"),
    "accepted_tokens": _one("spec_decode_num_accepted_tokens"),
}

_SETPOINT: Meanings = {
    "running": _one("num_requests_running"),
    "waiting": _one("num_requests_waiting"),
    "kv_usage": _one("kv_cache_usage_perc"),
    "requests_ended": (Term(("request_success",)), Term(("request_cut",), required=False)),
    "rejected": _one("requests_rejected"),
    "shed": _one("requests_shed"),
    "preemptions": _one("num_preemptions"),
    "prompt_tokens": _one("prompt_tokens"),
    "output_tokens": _one("generation_tokens"),
    "prefix_queries": _one("prefix_cache_queries"),
    "prefix_hits": _one("prefix_cache_hits"),
    "queue_wait_sum_s": _one("request_queue_time_seconds_sum"),
    "queue_waits": _one("request_queue_time_seconds_count"),
    **_SPECULATION,
}

_VLLM: Meanings = {
    "running": _one("num_requests_running"),
    "waiting": _one("num_requests_waiting"),
    "kv_usage": _one("kv_cache_usage_perc", "gpu_cache_usage_perc"),
    "requests_ended": _one("request_success"),
    "rejected": _one("admission_rejections"),
    "preemptions": _one("num_preemptions"),
    "prompt_tokens": _one("prompt_tokens"),
    # Counted once a request; the queries and hits of some versions count a request again in every step it waits.
    "cached_prompt_tokens": _one("prompt_tokens_cached"),
    "output_tokens": _one("generation_tokens"),
    "prefix_queries": _one("prefix_cache_queries", "gpu_prefix_cache_queries"),
    "prefix_hits": _one("prefix_cache_hits", "gpu_prefix_cache_hits"),
    "queue_wait_sum_s": _one("request_queue_time_seconds_sum"),
    "queue_waits": _one("request_queue_time_seconds_count"),
    **_SPECULATION,
}

_SGLANG: Meanings = {
    "running": _one("num_running_reqs"),
    "waiting": _one("num_queue_reqs"),
    "kv_usage": _one("token_usage"),
    "kv_tokens": _one("kv_used_tokens", "num_used_tokens"),
    "acceptance_length": _one("spec_accept_length"),
    "requests_ended": _one("num_requests"),
    "rejected": (
        Term(
            ("http_responses",),
            {
                "status_code": ("429", "503"),
                "endpoint": ("/v1/completions", "/v1/chat/completions", "/generate"),
            },
        ),
    ),
    "preemptions": _one("num_retracted_requests"),
    # All token counters of SGLang rise when a request ends.
    "prompt_tokens": _one("prompt_tokens"),
    "cached_prompt_tokens": _one("cached_tokens"),
    "output_tokens": _one("generation_tokens"),
    "drafts": _one("spec_verify_calls"),
    "queue_wait_sum_s": _one("queue_time_seconds_sum"),
    "queue_waits": _one("queue_time_seconds_count"),
}

_LLAMACPP: Meanings = {
    "running": _one("requests_processing"),
    "waiting": _one("requests_deferred"),
    "kv_usage": _one("kv_cache_usage_ratio"),
    "kv_tokens": _one("kv_cache_tokens"),
    # Its prompt counter leaves out what came from the cache.
    "prompt_tokens": (Term(("prompt_tokens",)), Term(("prompt_tokens_cached",), required=False)),
    "cached_prompt_tokens": _one("prompt_tokens_cached"),
    # Rises when a request leaves its slot, not token by token.
    "output_tokens": _one("tokens_predicted"),
    **_SPECULATION,
}

_TGI: Meanings = {
    "running": _one("batch_current_size"),
    "waiting": _one("queue_size"),
    "requests_ended": _one("request_success"),
    "rejected": (Term(("request_failure",), {"err": ("overloaded",)}),),
    "prompt_tokens": _one("request_input_length_sum"),
    "output_tokens": _one("request_generated_tokens_sum"),
    "queue_wait_sum_s": _one("request_queue_duration_sum"),
    "queue_waits": _one("request_queue_duration_count"),
}

_DYNAMO_FRONTEND: Meanings = {
    # The frontend counts a request as queued until its first token, and as in flight from its arrival to its end.
    "running": (Term(("active_requests", "inflight_requests")), Term(("queued_requests",), sign=-1)),
    "waiting": _one("queued_requests"),
    "requests_ended": _one("requests"),
    "rejected": _one("model_rejection"),
    "prompt_tokens": _one("input_sequence_tokens_sum"),
    "cached_prompt_tokens": _one("cached_tokens_sum"),
    "output_tokens": _one("output_tokens"),
}

_GENERATE: Mapping[str, tuple[str, ...]] = {"dynamo_endpoint": ("generate",)}
_DYNAMO_WORKER: Meanings = {
    "running": (Term(("inflight_requests",), _GENERATE),),
    "kv_usage": _one("gpu_cache_usage_percent", "kvstats_gpu_cache_usage_percent"),
    "requests_ended": (Term(("requests",), _GENERATE),),
}

KINDS: Mapping[ServerKind, Meanings] = {
    ServerKind.SETPOINT: _SETPOINT,
    ServerKind.VLLM: _VLLM,
    ServerKind.SGLANG: _SGLANG,
    ServerKind.LLAMACPP: _LLAMACPP,
    ServerKind.TGI: _TGI,
    ServerKind.DYNAMO_FRONTEND: _DYNAMO_FRONTEND,
    ServerKind.DYNAMO_WORKER: _DYNAMO_WORKER,
}


def spoken(kinds: tuple[ServerKind, ...]) -> str:
    """The kinds found on a page as one name: ``vllm``, or ``dynamo (vllm)`` for an engine behind Dynamo."""
    engines = [kind.value for kind in kinds if not kind.value.startswith("dynamo")]
    if len(engines) == len(kinds):
        return "+".join(engines)
    return f"dynamo ({'+'.join(engines)})" if engines else "dynamo"
