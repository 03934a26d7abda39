"""``report.html``: one self-contained page, readable offline and with scripts off."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import pyarrow as pa
from jinja2 import Template

from setpoint.record import Report, RequestClass
from setpoint.report.client_words import client_facts
from setpoint.report.figure_set import PHASES, draw
from setpoint.report.page_environment import page_environment
from setpoint.report.server_words import server_facts
from setpoint.report.tables import OVERVIEW_COLUMNS, candidate_rows, check_rows
from setpoint.report.tuning_words import (
    SPACE_COLUMNS,
    comparison_rows,
    comparison_words,
    iteration_rows,
    space_rows,
    summary_words,
)
from setpoint.report.verdicts import headline, in_focus, is_streaming, outcome, split_why
from setpoint.report.words import Fact, flat_facts, read_requirement, requirement_facts

ASSETS = (
    "report.html.j2", "tuning.html.j2", "figures.html.j2", "candidates.html.j2", "definitions.html.j2", "report.css",
    "report.js",
)  # fmt: skip
KIND_WORDS = {"tune": "Tuning report", "measure": "Measurement report", "simulate": "Simulation report"}


@cache
def _template() -> Template:
    """The page's template; the style sheet and the script are put into it as they are."""
    folder = files("setpoint.report").joinpath("assets")
    sources = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ASSETS}
    environment = page_environment(sources, style_sheet=sources["report.css"], script=sources["report.js"])
    return environment.get_template("report.html.j2")


def _title(report: Report) -> str:
    name = (report.requirement or {}).get("name")
    if isinstance(name, str) and name:
        return name
    return report.candidates[0].name if report.candidates else "Unnamed run"


def _asked(report: Report) -> list[Fact]:
    """What was asked, in words where the requirement can be read, else field by field."""
    requirement = read_requirement(report.requirement)
    asserted = [check.asserted for each in report.candidates[:1] for check in each.slo.checks if check.asserted]
    claims = [Fact("Asserted", "; ".join(asserted))] if asserted else []
    if requirement is not None:
        return [*requirement_facts(requirement, report.load), *claims]
    return [*flat_facts(report.requirement or {}), *claims]


def _tuning(tuning: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the page says of the iterations of a tuning."""
    if tuning is None:
        return None
    return {
        "summary": summary_words(tuning),
        "iterations": iteration_rows(tuning),
        "compared": (tuning.get("comparison") or {}).get("candidate"),
        "comparison_words": comparison_words(tuning),
        "comparison": comparison_rows(tuning),
        "space": space_rows(tuning),
        "space_columns": SPACE_COLUMNS,
    }


def render_html(report: Report, requests: pa.Table, steps: pa.Table | None, server: pa.Table | None = None) -> str:
    """The whole page as text.

    The tables have the columns of ``record`` (``steps`` is ``None`` where the engine is not ours, ``server`` where it
    has no metrics), all candidates and phases in one table each. Figures in tables come from ``report``, curves and dots
    from the tables. Nothing on the page is fetched from anywhere.
    """
    requirement = read_requirement(report.requirement)
    figures = draw(report, requests, steps, server)
    focus = in_focus(report)
    description = (report.requirement or {}).get("description")
    return _template().render(
        title=_title(report),
        description=description if isinstance(description, str) else "",
        kind=KIND_WORDS[report.kind],
        asked=_asked(report),
        outcome=outcome(report).value,
        headline=headline(report),
        chosen=report.chosen,
        focus=focus.name if focus is not None else None,
        why=split_why(report)[0],
        validity=report.validity,
        focus_checks=check_rows(focus.slo.checks, "focus") if focus is not None else [],
        candidates=candidate_rows(report, figures.looks),
        overview_columns=OVERVIEW_COLUMNS,
        phases=[phase for phase in PHASES if figures.frontier[phase] or figures.distributions[phase]],
        figures=figures,
        streaming=is_streaming(report, requirement),
        machine=flat_facts(report.machine),
        client=client_facts(focus.client) if focus is not None and focus.client else None,
        server=server_facts(focus.server) if focus is not None and focus.server else None,
        tuning=_tuning(report.tuning),
        knee_words=str(report.knee.get("words", "")) if report.knee else "",
        steps_known=steps is not None and steps.num_rows > 0,
        compares=report.kind != "measure" or len(report.candidates) > 1,
        classes=[str(class_) for class_ in RequestClass],
        schema=report.schema_version,
    )
