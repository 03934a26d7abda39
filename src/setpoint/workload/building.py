"""From drafts to a plan: the order of sending, what lies outside the run, and the prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from setpoint.workload.drafts import Draft
from setpoint.workload.planned import LoadPlan, PhaseSpan, PlannedRequest
from setpoint.workload.prompt import PromptMaker

MAX_REQUESTS = 200_000
MAX_PROMPT_TOKENS = 50_000_000
"""Most tokens of all prompts of a plan together: they are all made, and kept, before the run."""


def in_time(drafts: Iterable[Draft], phases: Sequence[PhaseSpan]) -> list[Draft]:
    """The drafts in order of time, each in the phase it lies in, without turns that cannot come before the last phase ends."""
    end_s = phases[-1].end_s
    within = sorted((draft for draft in drafts if draft.turn == 0 or draft.time_s < end_s), key=lambda draft: draft.time_s)
    place = 0
    for draft in within:
        while draft.time_s >= phases[place].end_s and place < len(phases) - 1:
            place += 1
        if draft.turn:
            draft.phase = phases[place].phase
    return within


def build(
    drafts: Sequence[Draft],
    *,
    seed: int,
    phases: list[PhaseSpan],
    make_prompt: PromptMaker,
    concurrency: int | None = None,
    notes: Sequence[str] = (),
) -> LoadPlan:
    """The plan of these drafts, in their order. Raises ``ValueError`` if it is too large, and what ``make_prompt`` raises."""
    if len(drafts) > MAX_REQUESTS:
        raise ValueError(f"more than {MAX_REQUESTS} requests: lower the rate or shorten the run")
    tokens = sum(draft.prompt_tokens for draft in drafts)
    if tokens > MAX_PROMPT_TOKENS:
        raise ValueError(
            f"{len(drafts)} prompts of {tokens} tokens in all, at most {MAX_PROMPT_TOKENS} can be planned: shorten the run, "
            "or the prompts"
        )
    places = {id(draft): index for index, draft in enumerate(drafts) if draft.session is not None}
    requests: list[PlannedRequest] = []
    exact = True
    for index, draft in enumerate(drafts):
        prompt = draft.prompt or make_prompt(
            tokens=draft.prompt_tokens,
            shared_prefix_tokens=draft.shared_tokens,
            seed=draft.prefix_seed,
            serial=draft.serial,
            **({"blocks": draft.blocks} if draft.blocks else {}),
        )
        exact = exact and prompt.exact
        request = PlannedRequest(
            index, draft.time_s, draft.phase, prompt.content, prompt.tokens, draft.output_tokens, profile=draft.profile
        )
        if draft.session is not None:
            follows = None if draft.follows is None else places[id(draft.follows)]
            request = replace(request, session=draft.session, turn=draft.turn, follows=follows, think_s=draft.think_s)
        requests.append(request)
    return LoadPlan(seed, phases, requests, exact, concurrency, tuple(notes))
