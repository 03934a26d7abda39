"""SIGTERM ends a measurement as Ctrl-C does, also where a shell started it in the background with SIGINT ignored."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

WAITS = """
import asyncio, signal, sys
signal.signal(signal.SIGINT, {sigint})
from setpoint.loop.interrupts import terminate_as_interrupt
from setpoint.measure.event_loop import run

async def wait():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    finally:
        print("cleaned up", flush=True)

try:
    with terminate_as_interrupt():
        run(wait())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("sigint", ["signal.default_int_handler", "signal.SIG_IGN"])
def test_sigterm_interrupts_and_cleans_up(sigint: str) -> None:
    command = [sys.executable, "-c", WAITS.format(sigint=sigint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert out.splitlines() == ["cleaned up", "interrupted"]
