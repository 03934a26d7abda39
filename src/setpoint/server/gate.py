"""The first thing every request passes: its name, its key, and a last net for errors nobody foresaw."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Collection, Sequence
from typing import Final

from prometheus_client import Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from setpoint.server.errors import ApiError, engine_error
from setpoint.server.headers import request_id, tenant_name

REQUEST_ID: Final = "setpoint.request_id"
OPEN_PATHS: Final = ("/health", "/dashboard")
OWNER: Final = "setpoint.owner"
TENANT: Final = "setpoint.tenant"
logger = logging.getLogger("setpoint.server")


class ApiKeys:
    """The keys that open the server. Comparison takes the same time whatever key is given, and looks at all of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        if any(not key for key in keys):
            raise ValueError("an API key must not be empty")
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def owner(self, authorization: str) -> str | None:
        """Who an ``Authorization`` header value speaks for: ``key:1`` for the first key, ``None`` for none of them.

        Without keys everything is open, and belongs to nobody: the empty name. A name never tells the key.
        """
        if not self._digests:
            return ""
        scheme, _, given = authorization.partition(" ")
        digest = hashlib.sha256(given.strip().encode("latin-1", "replace")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            return None
        return f"key:{matches.index(True) + 1}"


def _unauthorized() -> ApiError:
    message = "The API key is missing or wrong; send it as 'Authorization: Bearer KEY'."
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


class Gate:
    """ASGI middleware: names the request, its owner and its tenant, checks the key, counts responses, answers stray errors.

    ``paths`` are the server's own; responses elsewhere are counted under one label, so that labels stay bounded.
    trust_fairness_id: a header may name the tenant in place of the key.
    """

    def __init__(
        self, app: ASGIApp, *, keys: ApiKeys, trust_fairness_id: bool, responses: Counter, paths: Collection[str]
    ) -> None:
        self._app = app
        self._keys = keys
        self._trust_fairness_id = trust_fairness_id
        self._responses = responses
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        name = scope[REQUEST_ID] = request_id(headers)
        path = scope["path"] if scope["path"] in self._paths else "other"
        started = False

        async def named_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = name
                self._responses.labels(path, str(message["status"])).inc()
            await send(message)

        owner = "" if scope["path"] in OPEN_PATHS else self._keys.owner(headers.get("authorization", ""))
        if owner is None:
            await _unauthorized().response()(scope, receive, named_send)
            return
        try:
            scope[OWNER] = owner
            scope[TENANT] = tenant_name(headers, owner, header_trusted=self._trust_fairness_id)
            await self._app(scope, receive, named_send)
        except ApiError as error:
            await error.response()(scope, receive, named_send)
        except Exception:
            logger.exception("request %s to %s failed", name, path)
            if started:
                raise
            message = f"The server failed; its log has the details under request {name}."
            await engine_error(message).response()(scope, receive, named_send)
