"""The mock as a process: started, asked, stopped; its command line; its options."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from mock_client import asking, exchange, post

from setpoint.measure.mock import Behaviour, MockLog, MockOptions, MockProcess
from setpoint.measure.mock.__main__ import main
from setpoint.measure.mock.options import parse_behaviours
from setpoint.measure.mock.process import MockError

STOP_S = 10.0


def test_process_serves_and_is_gone_afterwards() -> None:
    with MockProcess(MockOptions(ttft_s=0.01, behaviours=(Behaviour.MULTI_TOKEN,))) as mock:
        process = psutil.Process(mock.pid)
        reply = asyncio.run(exchange(mock.url, post(asking(6))))
        assert len(reply.texts) == 2
        log = mock.log()
        assert [request.tokens for request in log.requests] == [(0, 4, 2)]
        assert len(log.requests[0].token_times_s) == 6
        assert log.cpu_s > 0
        mock.reset_log()
        assert mock.log().requests == []
    assert not process.is_running()
    with pytest.raises(MockError, match="not running"):
        _ = mock.pid


def test_process_ends_when_its_standard_input_does() -> None:
    command = [sys.executable, "-m", "setpoint.measure.mock", "--until-stdin-closes"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdecimal()
    process.stdin.close()
    assert process.wait(STOP_S) == 0
    process.stdout.close()


def test_port_that_is_taken_is_said() -> None:
    with MockProcess() as mock:
        port = int(mock.url.rpartition(":")[2])
        with pytest.raises(MockError, match=r"did not start: mock: .*in use"), MockProcess(MockOptions(port=port)):
            pass


def test_log_is_dumped_when_stopped(tmp_path: Path) -> None:
    dump = tmp_path / "log.json"
    command = [sys.executable, "-m", "setpoint.measure.mock", "--ttft", "5ms", "--itl", "1ms", "--dump", str(dump)]
    command += ["--behaviour", "no_usage"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    asyncio.run(exchange(url, post(asking(3))))
    process.terminate()
    assert process.wait(STOP_S) == 0
    process.stdout.close()
    log = MockLog.from_json(dump.read_text(encoding="utf-8"))
    assert [(request.behaviour, request.max_tokens) for request in log.requests] == [(Behaviour.NO_USAGE, 3)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--behaviour", "plain,nice"], "behaviour: found 'nice'; use one of plain, multi_token"),
        (["--behaviour", "plain*x"], "behaviour: found 'plain*x'; write NAME or NAME*COUNT"),
        (["--ttft", "50"], "50 has no unit: write 50ms or 50s"),
        (["--frozen", "1s"], "FROM-TO, for example 1s-4s"),
        (["--frozen", "3s-1s"], "frozen_s: found (3.0, 1.0); write FROM and TO"),
        (["--slots", "0"], "slots: found 0; it must be at least 1"),
        (["--itl-cv", "-1"], "itl_cv: found -1.0; it must be at least 0"),
        (["--port", "70000"], "port: found 70000; use 0 to 65535"),
        (["--options", "{"], "options: "),
        (["--options", '{"colour": 1}'], "options: "),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as left:
        code = int(str(left.code))
    said = capsys.readouterr().err
    assert code == 2
    assert words in said.splitlines()[-1]


def test_options_go_through_json_and_behaviours_may_be_multiplied() -> None:
    behaviours = parse_behaviours("plain*3, http_503")
    assert [str(behaviour) for behaviour in behaviours] == ["plain"] * 3 + ["http_503"]
    options = MockOptions(behaviours=behaviours, frozen_s=(1.0, 2.0), slots=3)
    assert MockOptions.from_json(options.to_json()) == options
    assert json.loads(options.to_json())["frozen_s"] == [1.0, 2.0]
