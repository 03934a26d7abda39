"""The mock in a process of its own, which ends with the one that started it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Self

from setpoint.measure.mock.log import MockLog
from setpoint.measure.mock.options import MockOptions

STOP_S = 5.0
ANSWER_S = 60.0


class MockError(RuntimeError):
    """The mock did not start; the message is what it said."""


class MockProcess:
    """Starts the mock on ``__enter__`` and stops it on ``__exit__``. Raises ``MockError`` if it cannot serve.

    url: where it serves, ``http://127.0.0.1:PORT``. pid: of its process.
    """

    def __init__(self, options: MockOptions | None = None) -> None:
        self.options = options or MockOptions()
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "setpoint.measure.mock", "--until-stdin-closes", "--options", self.options.to_json()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port.isdecimal():
            _, said = self._process.communicate()
            self._process = None
            raise MockError(f"the mock server did not start: {said.strip()[-500:] or 'it said nothing'}")
        self.url = f"http://{self.options.host}:{port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id; raises ``MockError`` unless it runs."""
        if self._process is None:
            raise MockError("the mock server is not running; use it inside its with block")
        return self._process.pid

    def log(self) -> MockLog:
        """What the mock did so far (or since ``reset_log``)."""
        with urllib.request.urlopen(f"{self.url}/mock/log", timeout=ANSWER_S) as reply:
            return MockLog.from_json(reply.read())

    def reset_log(self) -> None:
        """Forget what happened; the next request counts as the first."""
        request = urllib.request.Request(f"{self.url}/mock/reset", data=b"", method="POST")
        with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:
            reply.read()

    def stop(self) -> None:
        """End the process, at once if it does not end by itself; a second call changes nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=STOP_S)
