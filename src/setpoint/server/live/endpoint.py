"""Puts an account around every generation request, whatever way it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from setpoint.server.errors import ApiError, engine_error
from setpoint.server.gate import OWNER, REQUEST_ID
from setpoint.server.live.account import RequestAccount
from setpoint.server.quota import KeyQuotas

if TYPE_CHECKING:
    from setpoint.server.context import ServerContext

ACCOUNT: Final = "setpoint.account"


class Accounted:
    """ASGI application around an endpoint that generates; its request's account is ``account_of(scope)``.

    quotas: what its owner may have; who is over that is counted as well.
    """

    def __init__(
        self, app: ASGIApp, context: ServerContext, quotas: KeyQuotas, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app = app
        self._context = context
        self._quotas = quotas
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        account = scope[ACCOUNT] = RequestAccount(self._context.live.book, scope[REQUEST_ID])
        try:
            with self._quotas.one(scope[OWNER]):
                await self._app(scope, receive, send)
        except ApiError as error:
            account.refused(error)
            raise
        except Exception as error:
            account.refused(engine_error(str(error)))
            raise
        finally:
            account.close(self._clock(), draining=self._context.draining)


def account_of(scope: Scope) -> RequestAccount:
    """The account of the request that is being answered."""
    account: RequestAccount = scope[ACCOUNT]
    return account
