"""Compiling grammars off the event loop and off the engine's thread, one at a time, within bounds."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from setpoint.engine.constraint import Grammar, GrammarSpec, SupportsGrammars
from setpoint.engine.request import InvalidRequest
from setpoint.server.errors import invalid, overloaded, shutting_down

MAX_PENDING: Final = 256
COMPILE_TIMEOUT_S: Final = 20.0


class GrammarWorker:
    """One thread that compiles for one engine."""

    def __init__(self, compiler: SupportsGrammars) -> None:
        self._compiler = compiler
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="setpoint-grammar")
        self._pending = 0
        self._closed = False

    async def compile(self, spec: GrammarSpec) -> Grammar:
        """Raises ``ApiError``: 400 that names the field if it cannot be compiled, in time or at all; 503 if too many wait."""
        if self._closed:
            raise shutting_down()
        if self._pending >= MAX_PENDING:
            raise overloaded("too many grammars are waiting to be compiled", None)
        self._pending += 1
        begun = threading.Event()

        def work() -> Grammar:
            begun.set()
            return self._compiler.compile_grammar(spec)

        try:
            async with asyncio.timeout(COMPILE_TIMEOUT_S):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._worker, work)
        except TimeoutError:
            if not begun.is_set():
                raise overloaded("other grammars took all the time to compile this one", None) from None
            message = f"{spec.field}: was not compiled within {COMPILE_TIMEOUT_S:.0f} s; make it simpler."
            raise invalid(message, spec.field) from None
        except InvalidRequest as error:
            raise invalid(f"{error}.", error.field_name or spec.field) from None
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Take no more; the thread ends once it is done with what it has."""
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)
