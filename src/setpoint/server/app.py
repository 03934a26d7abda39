"""The application: routes, the gate in front of them, and the engine's life around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from setpoint.engine.service import EngineService
from setpoint.policy.views import RequestLimits
from setpoint.server.companion import Companion, CompanionEndpoint
from setpoint.server.connection import Guard
from setpoint.server.context import ServerContext
from setpoint.server.dashboard import Dashboard
from setpoint.server.errors import ApiError
from setpoint.server.gate import ApiKeys, Gate
from setpoint.server.generation import ChatCompletions, TextCompletions
from setpoint.server.introspection import Introspection
from setpoint.server.limits import ServerLimits
from setpoint.server.live.checks import Objectives
from setpoint.server.live.endpoint import Accounted
from setpoint.server.live.ticker import ticking
from setpoint.server.openapi import ApiDescription
from setpoint.server.process_metrics import ProcessMetrics
from setpoint.server.quota import KeyQuotas
from setpoint.server.refused import refusals


def _routes(context: ServerContext, companion: Companion | None, *, key_needed: bool) -> list[Route]:
    quotas = KeyQuotas(context.limits)
    about = Introspection(context)
    dashboard = Dashboard(context, key_needed=key_needed)
    beside = [] if companion is None else [Route(companion.path, CompanionEndpoint(companion).state)]
    return [
        Route("/v1/chat/completions", Accounted(ChatCompletions(context), context, quotas), methods=["POST"], name="chat"),
        Route("/v1/completions", Accounted(TextCompletions(context), context, quotas), methods=["POST"], name="text"),
        Route("/v1/models", about.models),
        Route("/v1/models/{name:path}", about.model),
        Route("/health", about.health),
        Route("/metrics", about.metrics),
        Route("/openapi.json", ApiDescription(context).openapi),
        Route("/setpoint/requests", about.requests),
        Route("/setpoint/steps", about.steps),
        Route("/setpoint/decisions", about.decisions),
        Route("/dashboard", dashboard.page),
        Route("/setpoint/live", dashboard.live),
        Route("/setpoint/tokenize", about.tokenize, methods=["POST"]),
        Route("/tokenize", about.tokenize, methods=["POST"]),
        *beside,
        *refusals(),
    ]


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors (no such path, wrong method) as OpenAI error objects."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:256]}"
    if error.status_code == 404:
        return ApiError(404, f"Unknown request URL: {where}.", code="unknown_url").response()
    if error.status_code == 405:
        message = f"{where}: the method is not allowed here."
        return ApiError(405, message, code="method_not_allowed", headers=error.headers).response()
    return ApiError(error.status_code, str(error.detail), code="http_error", headers=error.headers).response()


def create_app(
    engine: EngineService,
    *,
    api_keys: Sequence[str] = (),
    trust_fairness_id: bool = False,
    model_names: Sequence[str] = (),
    default_limits: RequestLimits | None = None,
    server_limits: ServerLimits | None = None,
    objectives: Objectives | None = None,
    about: Mapping[str, object] | None = None,
    companion: Companion | None = None,
) -> Starlette:
    """The OpenAI-compatible application over ``engine``, which it starts and stops with its own life.

    api_keys: keys that open everything but ``/health`` and the empty page of ``/dashboard``; none: everything is open.
    trust_fairness_id: with keys too, ``x-gateway-inference-fairness-id`` names the tenant; without keys it always does.
    model_names: names a request may ask for, the first of them the one that answers carry (default: the engine's).
    default_limits: the SLO of an interactive request without ``x-slo-*`` headers. server_limits: what one client may take.
    objectives: the requirement that the live view holds the server against. about: the serving configuration as the
    dashboard shows it. companion: lives beside the server. ``app.state.context`` is the ``ServerContext``.
    """
    context = ServerContext(
        engine,
        model_names=model_names,
        default_limits=default_limits,
        limits=server_limits,
        objectives=objectives,
        about=about,
    )
    routes = _routes(context, companion, key_needed=bool(api_keys))
    if companion is not None:
        context.metrics.registry.register(companion.metrics)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await context.start()
        try:
            with ticking(context.metrics.tick):
                if companion is not None:
                    await companion.start(context)
                yield
        finally:
            if companion is not None:
                await companion.stop()
            await context.stop()

    paths = [route.path for route in routes]
    process = ProcessMetrics(context.metrics.registry)
    gate = Middleware(
        Gate,
        keys=ApiKeys(api_keys),
        trust_fairness_id=trust_fairness_id or not api_keys,
        responses=context.metrics.responses,
        paths=paths,
    )
    app = Starlette(
        routes=routes,
        middleware=[gate],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.context = context
    app.state.guard = process.watched(Guard(context.limits, process.cut))
    return app
