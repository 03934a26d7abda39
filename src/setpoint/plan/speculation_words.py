"""What the plan says of speculation: where guesses pay on each shape, at whose cost, and whether the plan uses them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from setpoint.plan.planner import Plan, Ranked, taken
from setpoint.plan.speculating import BatchGain, Outlook
from setpoint.plan.words import error, guessed, usd_per_hour
from setpoint.policy.configuration import SpeculationMode


def speculation_answers(plan: Plan) -> list[str]:
    """Sentences; none where speculation is not allowed."""
    wanted = plan.asked.requirement.speculation
    if plan.asked.allowed is None:
        if wanted is None or wanted.acceptance is not None:
            return []
        return [
            "Speculation is allowed but was not planned: how many guesses come true cannot be predicted, give --acceptance."
        ]
    found = [_outlook(each) for each in _of_each_shape(plan.outlooks)]
    return [*found, _verdict(plan)]


def speculates(ranked: Ranked) -> bool:
    """Whether a candidate speculates."""
    return ranked.option.serving.config.speculation is not SpeculationMode.OFF


def _of_each_shape(outlooks: Iterable[Outlook]) -> list[Outlook]:
    """One for each shape and drafter: under which scheduler does not matter to what guesses cost."""
    first: dict[tuple[str, str], Outlook] = {}
    for each in outlooks:
        first.setdefault((each.shape.name, each.drafter.value), each)
    return list(first.values())


def _outlook(each: Outlook) -> str:
    alone, most, here = each.gains[0], each.pays_up_to, each.here
    guesses = f"guesses of {each.draft_model}" if each.draft_model else "guesses from the text"
    costs = ", ".join(f"{of.cost} {of.source} (error {error(of.relative_error, of.guess)})" for of in each.sources)
    if each.draft_model is None:
        costs += ", drafting free"
    words = f"{each.shape.name}: {guesses} do not pay even alone"
    if most is not None:
        words = f"{each.shape.name}: {guesses} pay up to batch {most}, {alone.gain:.2g}x alone with {alone.draft_tokens} tokens"
    at = "lose" if not here.draft_tokens else f"gain {here.gain:.2g}x with {here.draft_tokens} tokens"
    needed = "" if here.break_even is None else f", breaking even at an acceptance of {here.break_even:.0%}"
    return f"{words}; at batch {here.batch}, where this load runs, they {at}{needed}. Costs: {costs}.".replace("%", " %")


def _verdict(plan: Plan) -> str:
    chosen = plan.chosen
    best = taken([each for each in plan.ranked if speculates(each)], plan.asked.confidence)
    if chosen is not None and speculates(chosen):
        return f"The plan speculates; without, the best is {_named(_first_plain(plan))}."
    if best is None:
        return "No candidate that speculates carries the load and holds every limit."
    return f"The plan does not speculate; the best that does is {_named(best)}."


def _first_plain(plan: Plan) -> Ranked | None:
    return taken([each for each in plan.ranked if not speculates(each)], plan.asked.confidence)


def _named(ranked: Ranked | None) -> str:
    if ranked is None:
        return "nothing that holds"
    unsure = f", but {guessed(ranked.option)}" if ranked.option.guess else ""
    return f"{ranked.name} at {usd_per_hour(ranked.topology.usd_per_h)}{unsure}"


def outlook_document(each: Outlook) -> dict[str, Any]:
    """One drafter on one shape, as data."""
    return {
        "shape": each.shape.name,
        "scheduler": each.scheduler.value,
        "drafter": each.drafter.value,
        "draft_model": each.draft_model,
        "kv_tokens": each.shape.kv_tokens,
        "pays_up_to_batch": each.pays_up_to,
        "here": _gain(each.here),
        "gains": [_gain(gain) for gain in each.gains],
        "costs": [
            {
                "cost": source.cost,
                "of": source.of,
                "source": source.source,
                "relative_error": source.relative_error,
                "relative_error_is_guess": source.guess,
            }
            for source in each.sources
        ],
    }


def _gain(gain: BatchGain) -> dict[str, Any]:
    return {
        "batch": gain.batch,
        "draft_tokens": gain.draft_tokens,
        "gain": gain.gain,
        "break_even_acceptance": gain.break_even,
    }
