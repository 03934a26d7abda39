"""Our own server as a child: what it says when it cannot serve, and what happens when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import psutil
import pytest
from loop_world import all_gone

from setpoint.engine.request import EngineFailed
from setpoint.loop.errors import ServerDied
from setpoint.loop.own_server import _while_it_lives, on_own_server
from setpoint.measure.event_loop import run
from setpoint.measure.probe import discover
from setpoint.measure.target import Target
from setpoint.policy.configuration import ServingConfig

CONFIG = ServingConfig(kv_cache_tokens=1024)


async def never(target: Target) -> None:
    raise AssertionError("there is no server to work with")


def test_the_last_words_of_a_server_that_does_not_come_up(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    with pytest.raises(EngineFailed, match=r"^model 'nothing' does not exist: .* \(log: .*a\.log\)$"):
        run(on_own_server("nothing", CONFIG, never, log=log))
    assert "does not exist" in log.read_text()
    with pytest.raises(EngineFailed, match=r"^model 'nothing' does not exist") as failed:
        run(on_own_server("nothing", CONFIG, never, log=None))
    assert "log:" not in str(failed.value)


def test_work_that_comes_to_something_when_it_is_cancelled_is_not_lost(tmp_path: Path) -> None:
    async def main() -> str:
        begun = asyncio.Event()

        async def work() -> str:
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return "kept"

        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
        try:
            working = asyncio.ensure_future(_while_it_lives(process, work(), tmp_path / "a.log", keep=True))
            await begun.wait()
            working.cancel()
            return await working
        finally:
            process.kill()
            await process.wait()

    assert run(main()) == "kept"


@pytest.mark.model
def test_a_server_that_is_killed_ends_the_work_and_wants_nobodys_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETPOINT_API_KEY", "for somebody else's server")
    servers: list[psutil.Process] = []
    others = psutil.Process().children()  # of other tests, such as the resource tracker of a process pool

    async def work(target: Target) -> None:
        assert (await discover(target)).is_setpoint
        servers.extend(child for child in psutil.Process().children() if child not in others)
        servers[-1].kill()
        await asyncio.Event().wait()

    with pytest.raises(ServerDied, match=r"ended before its work did: ended by SIGKILL"):
        run(on_own_server("smollm2-135m", CONFIG, work, log=tmp_path / "a.log"))
    assert all_gone(servers)
