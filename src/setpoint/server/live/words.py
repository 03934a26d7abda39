"""Reasons of decisions in words a reader of the page understands: the code says what, its operands say how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MOST_CHARACTERS: Final = 256


def _time(seconds: float) -> str:
    """Seconds as people say them."""
    size = abs(seconds)
    return f"{seconds * 1000:.3g} ms" if size < 0.9995 else f"{seconds:.3g} s"


# Fields ending in ``_s`` are shown as times, all others as numbers.
_WORDS: Final = {
    # Admission
    "idle": "Taken: nothing else is here",
    "fits": "Taken: its first token is expected in {first_token_in_s}, its last in {end_in_s}",
    "queue_has_room": "Taken: the queue has room",
    "with_first": "Taken with the first answer to its prompt",
    "queue_full": "The queue is full: {waiting} wait, {max_waiting} may",
    "too_early": "It came back {due_in_s} before the time it was told",
    "ttft_would_be": "The first token would come after {ttft_s}, {ttft_limit_s} are allowed",
    "e2e_would_be": "The answer would take {e2e_s}, {e2e_limit_s} are allowed",
    "itl_would_be": "Gaps between tokens would grow to {itl_s}, {itl_limit_s} are allowed",
    "others_would_wait": "Its tenant is over its share: others would wait {others_ttft_s}, at most {others_ttft_most_s}",
    # Dropped or turned away by the server
    "doomed": "Dropped while it waited: it could no longer make its deadline",
    "shed": "Dropped while it waited: it could no longer make its deadline",
    "server_shutting_down": "The server is shutting down",
    "rate_limit_exceeded": "Its caller has used up its share",
    "bodies_full": "The bodies being read took all the room there is for them",
    # Steps
    "no_prompts": "Only decoding: {decodes} answers under way, no prompt waits",
    "nothing_at_risk": "No deadline is near: up to {budget} prompt tokens",
    "slack": "Room for {budget} prompt tokens beside {decodes} answers: their next token is due in {slack_s}",
    "slack_ample": "Room for all {budget} prompt tokens allowed: the next token is due in {slack_s}",
    "floor": "Hardly any time until the next token is due: the least of {budget} prompt tokens, so that prompts go on",
    "one_at_a_time": "One request at a time",
    "fixed_budget": "Oldest first, up to {budget} prompt tokens",
    "batch_fills": "Waiting for a full batch: {waiting} of {batch_size} are here",
    "batch_full": "The batch of {members} is full and starts",
    "batch_runs": "The batch of {members} runs to its end",
    "batch_wait_over": "The wait is over: {members} start",
}


def in_words(reason: str) -> str:
    """A reason's ``str()`` in words; a code not known here, or operands missing, leaves it as it is, cut to a bound."""
    code, _, rest = reason.partition(" ")
    template = _WORDS.get(code.rstrip(":"))
    if template is None:
        return reason[:MOST_CHARACTERS]
    try:
        return template.format_map(_operands(rest))
    except KeyError:
        return reason[:MOST_CHARACTERS]


def of_code(code: str) -> str:
    """What a code stands for, without numbers."""
    return _SHORT.get(code, code.replace("_", " "))


def _operands(text: str) -> Mapping[str, str]:
    found = {}
    for pair in text.split():
        name, mark, value = pair.partition("=")
        if mark:
            try:
                number = float(value)
            except ValueError:
                continue
            found[name] = _time(number) if name.endswith("_s") else f"{number:.6g}"
    return found


_SHORT: Final = {
    "queue_full": "queue full",
    "too_early": "back too early",
    "ttft_would_be": "first token too late",
    "e2e_would_be": "answer too late",
    "itl_would_be": "gaps too long",
    "others_would_wait": "over its share",
    "doomed": "dropped while waiting",
    "server_shutting_down": "shutting down",
    "rate_limit_exceeded": "over its share",
    "bodies_full": "no room for its body",
    "no_prompts": "only decoding",
    "nothing_at_risk": "no deadline near",
    "slack": "prompts sized by slack",
    "slack_ample": "slack for all",
    "floor": "least prompt progress",
}
