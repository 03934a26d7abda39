"""How every page is made from its template: what is undefined is an error, and no text brings markup or control characters."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from setpoint.report.format import printable


def page_environment(templates: Mapping[str, str], *, style_sheet: str, script: str) -> Environment:
    """``templates`` by name; style sheet and script are put into a page as they are."""
    environment = Environment(
        loader=DictLoader(templates),
        autoescape=True,
        finalize=_finished,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # drawn by charts/, where every text is escaped
    environment.globals["style_sheet"] = Markup(style_sheet)
    environment.globals["script"] = Markup(script)
    return environment


def _finished(value: object) -> object:
    """Every text on its way into the page loses its control characters; markup drawn here has none."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
