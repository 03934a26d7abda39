"""``/dashboard``: one self-contained page, and the JSON it reads. Nothing on the page is fetched from anywhere else.

The page itself holds nothing of the server but whether a key is needed, so it is open; its data is not.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from setpoint.server.introspection import since_of
from setpoint.server.live.payload import live_json

if TYPE_CHECKING:
    from setpoint.server.context import ServerContext

ASSETS: Final = ("dashboard.html.j2", "dashboard.css", "charts.js", "dashboard.js")


def _digest(text: str) -> str:
    """The source expression of an inline text for a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def page(*, key_needed: bool) -> tuple[str, str]:
    """The page's HTML and its content security policy: its own style and script, its own server, nothing else."""
    folder = files("setpoint.server").joinpath("assets")
    sources = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ASSETS}
    style = f"\n{sources['dashboard.css']}"
    script = f"\n{sources['charts.js']}\n{sources['dashboard.js']}"
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("dashboard.html.j2").render(
        style=Markup(style), script=Markup(script), key_needed=key_needed
    )
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


class Dashboard:
    """The page and its data."""

    def __init__(self, context: ServerContext, *, key_needed: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        self._context = context
        self._key_needed = key_needed
        self._clock = clock

    async def page(self, request: Request) -> Response:
        """``GET /dashboard``."""
        html, policy = page(key_needed=self._key_needed)
        headers = {
            "content-security-policy": policy,
            "cache-control": "no-cache",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
        return Response(html, media_type="text/html", headers=headers)

    async def live(self, request: Request) -> Response:
        """``GET /setpoint/live?since=N``: the present state and the samples from number N on. Raises ``ApiError`` 400."""
        context = self._context
        since = since_of(request)
        text = live_json(context.live, since, now_s=self._clock(), model=context.model_names[0], health=context.health().value)
        return Response(text, media_type="application/json", headers={"cache-control": "no-store"})
