"""What a ``/metrics`` page (Prometheus text) of setpoint, vLLM, SGLang or llama.cpp says, under one set of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_PREFIX = re.compile(r"^(setpoint|vllm|sglang|llamacpp)[:_]")


@dataclass(frozen=True, slots=True)
class _Meaning:
    """One quantity and the names servers give it (without prefix and ``_total``); how label sets are put together."""

    names: tuple[str, ...]
    combine: Callable[[Iterable[float]], float] = sum


# Usage is a fraction, so the fullest of several engines counts; everything else adds up over engines and models.
MEANINGS: dict[str, _Meaning] = {
    "running": _Meaning(("num_requests_running", "num_running_reqs", "requests_processing")),
    "waiting": _Meaning(("num_requests_waiting", "num_queue_reqs", "requests_deferred")),
    "kv_usage": _Meaning(("kv_cache_usage_perc", "gpu_cache_usage_perc", "token_usage", "kv_cache_usage_ratio"), max),
    "prefix_queries": _Meaning(("prefix_cache_queries", "gpu_prefix_cache_queries")),
    "prefix_hits": _Meaning(("prefix_cache_hits", "gpu_prefix_cache_hits")),
    "preemptions": _Meaning(("num_preemptions",)),
    "drafts": _Meaning(("spec_decode_num_drafts",)),
    "accepted_tokens": _Meaning(("spec_decode_num_accepted_tokens",)),
    "prompt_tokens": _Meaning(("prompt_tokens",)),
    "output_tokens": _Meaning(("generation_tokens", "output_tokens", "tokens_predicted")),
}
_MEANING_OF = {name: meaning for meaning, entry in MEANINGS.items() for name in entry.names}


def read_metrics(text: str) -> dict[str, float]:
    """The known quantities of one page by the keys of ``MEANINGS``; unknown lines are not even parsed.

    Raises ``ValueError`` if a known line is not Prometheus text.
    """
    lines = [line for line in text.splitlines() if _meaning_of(_name_of(line)) is not None]
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            meaning = _meaning_of(sample.name)
            if meaning is not None:
                found.setdefault(meaning, []).append(float(sample.value))
    return {meaning: MEANINGS[meaning].combine(values) for meaning, values in found.items()}


def _name_of(line: str) -> str:
    return "" if line.startswith("#") else re.split(r"[{ \t]", line, maxsplit=1)[0]


def _meaning_of(name: str) -> str | None:
    prefix = _PREFIX.match(name)
    return None if prefix is None else _MEANING_OF.get(name[prefix.end() :].removesuffix("_total"))
