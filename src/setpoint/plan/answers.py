"""The plan's answers in sentences: why this and not that, what each limit costs, twice the load, what to measure next."""

from __future__ import annotations

from setpoint.plan.binding import WORDS
from setpoint.plan.economy import Option
from setpoint.plan.limits import BACKLOG, Limit, limit_name, limit_number, ttft_places
from setpoint.plan.planner import Plan, Ranked, Standing, taken
from setpoint.plan.pruning import Pruned
from setpoint.plan.shadow import ShadowPrice
from setpoint.plan.space import OWN_ENGINE
from setpoint.plan.topology import Scheduler
from setpoint.plan.words import (
    SOURCES,
    devices,
    error,
    guess_briefly,
    guessed,
    percent_change,
    probability,
    spare,
    usd_per_hour,
)
from setpoint.report.format import seconds

WORTH_TELLING = 0.03
MOST_OTHERS = 12
RELAXED, RELAXED_BOUND = 1.05, 1.2
"""By how much a limit is relaxed over what came nearest: as simulated, and for a bound, which is optimistic."""


def recommendation(plan: Plan) -> str:
    """What to run, or why nothing."""
    chosen = plan.chosen
    if chosen is None:
        return infeasible(plan)
    price = usd_per_hour(chosen.topology.usd_per_h)
    spare_words = f"the knee is at {spare(chosen.headroom.knee_distance)} of the offered load"
    sure = f"every limit holds with probability {probability(chosen.headroom.met_probability)}"
    source = (
        f"steps are predicted from what was {SOURCES[chosen.option.source]}"
        if chosen.option.source != "physics"
        else ("steps are predicted from physics alone")
    )
    off_by = error(chosen.option.step_error, chosen.option.guess)
    head = f"Run {chosen.name} at {price}: {sure}, {spare_words}; {source} (error {off_by})."
    if plan.standing is Standing.WITHIN_ERROR:
        head += _unsure(plan, chosen)
    return head.replace("%)", " %)").replace("%,", " %,").replace("  ", " ")


def _unsure(plan: Plan, chosen: Ranked) -> str:
    """Why what is recommended all the same is not sure."""
    if chosen.option.guess:
        return f" This is not sure: it holds as predicted, but {guessed(chosen.option)}. Measure it before relying on it."
    spare_now, confidence = chosen.headroom, plan.asked.confidence
    head = "inside its own error bar" if spare_now.within_error else "not sure"
    if spare_now.met_probability < confidence:
        but = f"with less than {probability(confidence)} certainty, and nothing that was looked at is surer"
    else:
        but = (
            "would not if steps were slower, TTFT longer or the load higher by one standard error, "
            "and nothing that was looked at would"
        )
    return f" This is {head}: it holds as predicted, but {but}."


def cheaper_but_unsure(plan: Plan) -> str | None:
    """The best candidate that holds as predicted and was passed over for its error bar, or for an error that is a guess."""
    first = next((each for each in plan.ranked if each.holds), None)
    if first is None or plan.chosen is None or first is plan.chosen or plan.standing is not Standing.SURE:
        return None
    price = usd_per_hour(first.topology.usd_per_h)
    return f"{first.name} at {price} holds as predicted, but {_doubtful(first)}."


def _doubtful(ranked: Ranked) -> str:
    """What is said after "but" of one that holds as predicted and is not sure."""
    if ranked.option.guess:
        return guessed(ranked.option)
    within = ": it lies inside its own error bar" if ranked.headroom.within_error else ""
    return f"only with probability {probability(ranked.headroom.met_probability)}{within}"


def runs_as_it_is(plan: Plan) -> str | None:
    """The best candidate under the engine's own scheduler, where the chosen one needs setpoint's policies inside it."""
    chosen = plan.chosen
    if chosen is None or chosen.option.serving.scheduler is Scheduler.VLLM or chosen.option.shape.hardware == OWN_ENGINE:
        return None
    own = [each for each in plan.ranked if each.option.serving.scheduler is Scheduler.VLLM]
    best = taken(own, plan.asked.confidence)
    if best is None:
        return "Nothing under vLLM's own scheduler holds: the plan needs setpoint's deadlines to decide."
    return (
        f"With vLLM's own scheduler, which needs nothing of setpoint's in the engine: {best.name} at "
        f"{usd_per_hour(best.topology.usd_per_h)}, every limit with probability {probability(best.headroom.met_probability)}"
        + (f", but {guessed(best.option)}." if best.option.guess else ".")
    )


def why_this(plan: Plan) -> list[str]:
    """The chosen hardware and what binds it, then the best of every other hardware and what it is short of."""
    chosen = plan.chosen
    if chosen is None:
        return []
    found = [f"{_subject(chosen)} is bound by {_bound(chosen)}."]
    found += [_against(other, chosen) for other in others(plan)[:MOST_OTHERS]]
    known = {each.option.shape.hardware for each in plan.ranked}
    left_out: dict[str, Pruned] = {}
    for each in plan.pruned:
        if each.shape.hardware not in known:
            best = left_out.get(each.shape.hardware)
            left_out[each.shape.hardware] = each if best is None or each.excess < best.excess else best
    found += [f"{each.shape.name} {each.words}." for each in left_out.values()]
    return found


def others(plan: Plan) -> list[Ranked]:
    """Of each hardware but the chosen one what would be recommended of it, else its first; in the order of the ranking."""
    groups: dict[str, list[Ranked]] = {}
    for each in plan.ranked:
        groups.setdefault(each.option.shape.hardware, []).append(each)
    if plan.chosen is not None:
        groups.pop(plan.chosen.option.shape.hardware, None)
    best = [taken(group, plan.asked.confidence) or group[0] for group in groups.values()]
    return [each for each in plan.ranked if any(each is one for one in best)]


def _subject(ranked: Ranked) -> str:
    binding = ranked.binding
    return (
        f"At this load each replica of {ranked.option.shape.hardware} decodes {binding.batch:.0f} requests at once in steps of "
        f"{seconds(binding.step_s, ' ')}, fills {binding.kv_share:.0%} of its cache, uses {binding.utilisation:.0%} of its "
        "arithmetic, and"
    ).replace("%", " %")


def _bound(ranked: Ranked) -> str:
    binding = ranked.binding
    words = WORDS[binding.bound]
    return (
        words if binding.decode_bound == binding.bound else f"{words} (steps that only decode by {WORDS[binding.decode_bound]})"
    )


def _against(other: Ranked, chosen: Ranked) -> str:
    price, best = other.topology.usd_per_h, chosen.topology.usd_per_h
    if price is not None and best:
        ratio = price / best
        cost = f"{ratio:.2g} times as much" if ratio >= 1.005 else "as much" if ratio > 0.995 else f"{ratio:.2g} of that"
        cost = f", {cost}"
    else:
        cost = ""
    unsure = "" if other.holds else " and does not hold"
    return (
        f"{devices(other.topology)} would be {usd_per_hour(price)}{cost}{unsure}: bound by {_bound(other)}, "
        f"{other.binding.batch:.0f} requests at once in steps of {seconds(other.binding.step_s, ' ')}"
        + (f", but {guess_briefly(other.option)}." if other.option.guess else ".")
    )


def limit_costs(plan: Plan) -> list[str]:
    """One sentence for each limit: what a looser one saves and a tighter one costs."""
    found = []
    left_out = plan.standing is Standing.SURE and any(each.option.guess for each in plan.ranked)
    looked_at = "anything looked at that is no guess" if left_out else "anything looked at"
    for limit in plan.limits:
        prices = [price for price in plan.shadow if price.limit is limit or price.limit == limit]
        if not prices:
            continue
        looser = [price for price in prices if price.moved_to > limit.limit]
        tighter = [price for price in prices if price.moved_to < limit.limit][::-1]
        parts = [_looser(looser), _tighter(tighter, looked_at)]
        now = f"{limit_name(limit)} {limit_number(limit, limit.limit)}"
        found.append(f"{now}: " + "; ".join(part for part in parts if part) + ".")
    return found


def _looser(prices: list[ShadowPrice]) -> str:
    for price in prices:
        if price.change is not None and price.change < -WORTH_TELLING:
            return f"{_moved(price)} saves {percent_change(price.change)}"
    for price in prices:
        if price.at_scale is not None and price.at_scale < -WORTH_TELLING:
            return f"{_moved(price)} saves nothing at this load, {percent_change(price.at_scale)} a request where load is large"
    return f"not what costs: {limit_number(prices[-1].limit, prices[-1].moved_to)} would save nothing" if prices else ""


def _tighter(prices: list[ShadowPrice], looked_at: str) -> str:
    """``looked_at``: all that the prices are of, where nothing of it does."""
    for price in prices:
        if price.moved_usd_per_h is None:
            return f"{_moved(price)} cannot be met by {looked_at}"
        if price.change is not None and price.change > WORTH_TELLING:
            times = 1.0 + price.change
            more = f"{times:.1f} times as much" if times >= 2 else f"{percent_change(price.change)} more"
            return f"{_moved(price)} costs {more}"
    return f"{_moved(prices[-1])} would cost nothing more" if prices else ""


def _moved(price: ShadowPrice) -> str:
    return f"{limit_number(price.limit, price.limit.limit)} -> {limit_number(price.limit, price.moved_to)}"


def if_doubled(plan: Plan) -> str | None:
    """What twice the load changes."""
    chosen, doubled = plan.chosen, plan.doubled
    if chosen is None:
        return None
    if doubled is None:
        return "Twice the load cannot be carried within the bounds by anything looked at."
    price, before = doubled.topology.usd_per_h, chosen.topology.usd_per_h
    ratio = f", {price / before:.2g} times the price of now" if price and before else ""
    same = "another choice"
    if doubled.option.name == chosen.option.name:
        more = doubled.topology.pool.replicas > chosen.topology.pool.replicas
        same = "more replicas of the same" if more else "it carries that already"
    sure = doubled.headroom.sure(plan.asked.confidence)
    unsure = "" if sure else f" It holds as predicted, but {_doubtful(doubled)}."
    return f"Twice the load takes {doubled.name} at {usd_per_hour(price)}{ratio}: {same}.{unsure}"


def measure_next(plan: Plan) -> str | None:
    """What would make the plan surer: a calibration, or knowledge of the load; ``None`` if nothing matters much."""
    ranked = plan.chosen or plan.nearest
    if ranked is None:
        return None
    spare_now = ranked.headroom
    gain = {
        "measured": spare_now.if_measured - spare_now.met_probability,
        "load": spare_now.if_load_known - spare_now.met_probability,
    }
    hardware = ranked.option.shape.hardware
    binding = ranked.binding
    point = f"steps of about {binding.batch:.0f} decodes with {plan.load.mean_context:.0f} tokens of context each"
    measured = ranked.option.source == "measured" and not ranked.option.guess
    if max(gain.values()) < 0.01 and measured:
        return None
    now = probability(spare_now.met_probability)
    if gain["measured"] >= gain["load"] or not measured:
        return (
            f"To be surer, measure {hardware} with {ranked.option.shape.deployment.engine} where the plan runs it: {point}. "
            f"{_known(plan, ranked.option)}; if they come out as predicted, every limit holds "
            f"with probability {probability(spare_now.if_measured)} instead of {now}."
        )
    return (
        f"To be surer, find out the load: it is taken as known to {plan.asked.load_error:.0%}. Were it exact, every limit "
        f"would hold with probability {probability(spare_now.if_load_known)} instead of {now}."
    ).replace("%. W", " %. W")


def _known(plan: Plan, option: Option) -> str:
    """How well steps are known, and TTFT where it is limited and was found to be known less well; or that this is a guess."""
    if option.guess:
        steps = "steps with drafts" if option.only_drafting else "steps"
        return f"How far {steps} are off is a guess, taken as {option.step_error:.0%}".replace("%", " %")
    ttft = f" and TTFT to {option.ttft_error:.0%}" if ttft_places(plan.limits) and option.ttft_error > option.step_error else ""
    return f"Steps are known to {option.step_error:.0%}{ttft} (one standard error)".replace("%", " %")


def infeasible(plan: Plan) -> str:
    """That nothing holds, what comes nearest, and which constraint would have to give."""
    nearest = plan.nearest
    if nearest is None:
        return _none_simulated(plan)
    rate = plan.asked.load_rps / nearest.topology.pool.replicas
    missed = [
        (limit, excess)
        for index, limit in enumerate(plan.limits)
        if (excess := nearest.option.curve.of_limit(index, rate)) > 1.0
    ]
    missed.sort(key=lambda each: -each[1])
    said = ", ".join(_missed(limit, excess) for limit, excess in missed)
    carried = nearest.option.curve.knee_rps() * nearest.topology.pool.replicas
    load_words = f"; it carries {carried:.3g}/s of the {plan.asked.load_rps:.3g}/s" if carried else ""
    relax = _relax(plan, nearest)
    return (
        f"Nothing meets the requirement. {nearest.name} comes nearest: {said or 'too small for the load'}{load_words}. {relax}"
    )


def _missed(limit: Limit, excess: float) -> str:
    if limit.metric == BACKLOG:
        return "it does not keep up with the load"
    return f"{limit_name(limit)} misses {limit_number(limit, limit.limit)} by a factor of {_factor(excess)}"


def _factor(excess: float) -> str:
    return f"{excess:.2g}" if excess < 1000 else "over 1,000"


def _relax(plan: Plan, nearest: Ranked) -> str:
    """The constraint that has to give least."""
    rate = plan.asked.load_rps / nearest.topology.pool.replicas
    curve = nearest.option.curve
    excess = {place: curve.of_limit(place, rate) for place, limit in enumerate(plan.limits) if limit.metric != BACKLOG}
    knee = curve.knee_rps()
    if knee > 0:
        needed = -(-plan.asked.load_rps // knee)
        gpus = int(needed) * nearest.option.shape.gpus
        return f"Relax the number of devices: about {gpus} of {nearest.option.shape.hardware} would do; or lower the load."
    index = max(excess, key=lambda place: excess[place], default=None)
    if index is None or excess[index] <= 1.0:
        return "Relax the bounds, or lower the load."
    limit = plan.limits[index]
    if limit.metric == "goodput_fraction":
        return f"Relax {limit_name(limit)}, or lower the load."
    return f"{_moved_limit(limit, excess[index] * RELAXED)}."


def _moved_limit(limit: Limit, factor: float) -> str:
    return f"Relax {limit_name(limit)} from {limit_number(limit, limit.limit)} to {limit_number(limit, limit.limit * factor)}"


def _none_simulated(plan: Plan) -> str:
    nearest = min(plan.pruned, key=lambda each: each.excess, default=None)
    if nearest is None:
        return "Nothing meets the requirement: no hardware was left to look at; name some with --hardware."
    relax = {
        "capacity": "Allow more devices to a replica (--max-gpus), narrower weights (--quantization fp8), or larger hardware.",
        "gpus": "Allow more devices (--max-gpus) or a higher price, or lower the load.",
        "cost": "Name other hardware (--hardware) or precisions (--quantization, --kv-cache).",
        "latency": "",
    }[nearest.bound]
    if nearest.limit is not None:
        relax = f"{_moved_limit(nearest.limit, nearest.excess * RELAXED_BOUND)} or more."
    return f"Nothing meets the requirement. {nearest.shape.name} comes nearest: it {nearest.words}. {relax}"
