"""``plan.html``: one self-contained page, readable offline and with scripts off; styles and script are the report's."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Template

from setpoint.plan.figures import colours_of, context_figure, load_figure, pareto_figure
from setpoint.plan.planner import Plan, Ranked, Standing
from setpoint.plan.words import error, probability, spare, unsure, usd_per_hour, usd_per_million
from setpoint.report.format import number, percent, seconds
from setpoint.report.page_environment import page_environment
from setpoint.report.words import requirement_facts


def render_page(plan: Plan, document: dict[str, Any]) -> str:
    """The whole page as text. Nothing on it is fetched from anywhere."""
    verdict, headline = _banner(plan)
    figures = [
        figure for figure in (pareto_figure(plan), load_figure(plan), context_figure(plan, plan.contexts)) if figure is not None
    ]
    colours = colours_of(plan)
    return _template().render(
        title=plan.asked.requirement.name,
        description=plan.asked.requirement.description,
        requirement_id=document["requirement_id"],
        verdict=verdict,
        headline=headline,
        answers=document["answers"],
        chosen=plan.chosen.name if plan.chosen else None,
        asked=requirement_facts(plan.asked.requirement, None),
        figures=figures,
        rows=[_row(each, colours, each is plan.chosen) for each in plan.ranked],
        colours=list(colours.items()),
        pruned=document["pruned"],
        shadow=[_shadow(each) for each in document["shadow_prices"]],
        exports=document["exports"],
        memory=[_memory(each) for each in document["ranked"][:12]],
        simulations=plan.simulations,
    )


def _banner(plan: Plan) -> tuple[str, str]:
    """The verdict by whose colours it is shown, and the headline."""
    guess = plan.chosen is not None and plan.chosen.option.guess
    return {
        Standing.SURE: ("met", "A plan meets the requirement"),
        Standing.WITHIN_ERROR: ("inconclusive", f"Met as predicted, but {unsure(guess)}"),
        Standing.INFEASIBLE: ("missed", "Nothing meets the requirement"),
    }[plan.standing]


@cache
def _template() -> Template:
    own = files("setpoint.plan").joinpath("assets")
    shared = files("setpoint.report").joinpath("assets")
    sources = {"plan.html.j2": own.joinpath("plan.html.j2").read_text(encoding="utf-8")}
    style = shared.joinpath("report.css").read_text(encoding="utf-8") + own.joinpath("plan.css").read_text(encoding="utf-8")
    script = shared.joinpath("report.js").read_text(encoding="utf-8")
    environment = page_environment(sources, style_sheet=style, script=script)
    return environment.get_template("plan.html.j2")


def _row(ranked: Ranked, colours: dict[str, str], chosen: bool) -> dict[str, Any]:
    return {
        "name": ranked.name,
        "chosen": chosen,
        "colour": colours[ranked.option.shape.hardware],
        "price": usd_per_hour(ranked.topology.usd_per_h),
        "per_million": usd_per_million(ranked.usd_per_good_request),
        "tokens_per_usd": number(ranked.tokens_per_usd),
        "latency": seconds(ranked.latency_s),
        "knee": spare(ranked.headroom.knee_distance),
        "sure": probability(ranked.headroom.met_probability),
        "within_error": ranked.headroom.within_error,
        "holds": ranked.holds,
        "bound": ranked.binding.bound,
        "utilisation": percent(ranked.binding.utilisation),
        "source": f"{ranked.option.source}, {error(ranked.option.step_error, ranked.option.guess)}".replace("%", " %"),
    }


def _shadow(price: dict[str, Any]) -> dict[str, str]:
    def change(value: float | None, missing: str) -> str:
        return missing if value is None else f"{value * 100:+.0f} %"

    return {
        "limit": price["limit"],
        "from": f"{price['from']:g}",
        "to": f"{price['to']:g}",
        "change": change(price["change"], "cannot be met"),
        "at_scale": change(price["change_at_scale"], "–"),
        "with": price["with"] or "–",
    }


def _memory(ranked: dict[str, Any]) -> dict[str, str]:
    kv = ranked["kv"]
    return {
        "name": ranked["name"],
        "blocks": f"{kv['blocks']:,} x {kv['block_tokens']}",
        "precision": kv["precision"],
        "usage": percent(kv["expected_usage"]),
        "hit_rate": percent(kv["expected_prefix_hit_rate"]),
        "pressure": f"{kv['pressure_from_context_tokens']:,.0f}",
    }
