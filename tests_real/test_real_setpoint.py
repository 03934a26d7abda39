"""``setpoint measure`` against setpoint's own server from this checkout, on the demo model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_run import check_accounts, check_figures, check_tokens, measure
from real_server import free_port, real_server

# Both tokenizers of the demo model need no more than this for the chat template and a topic.
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "setpoint", "serve", "smollm2-135m", "--port", str(port), "--threads", "1"]
    command += ["--mode", "continuous", "--max-running", "4", "--max-waiting", "4"]
    log = tmp_path_factory.mktemp("setpoint") / "server.log"
    with real_server(command, port, log, ready_within_s=120) as url:
        yield url


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_both_sides_count_the_same(server: str, endpoint: str, tmp_path: Path) -> None:
    run = measure(
        server,
        tmp_path / "run",
        *("--rate", "2/s", "--arrival", "constant", "--duration", "10s", "--warmup", "0s", "--endpoint", endpoint),
        *("--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", str(OUTPUT_TOKENS)),
    )
    check_accounts(run, kind="setpoint", offered=20)
    check_tokens(run, prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS)
    check_figures(run)
    # Its own records tell the wait of every request, not only of those that a histogram took in.
    assert run.measures["queue_wait_s"]["n"] == 20
    assert run.rise("queue_waits") == 20


def test_both_sides_count_the_same_refusals(server: str, tmp_path: Path) -> None:
    run = measure(
        server,
        tmp_path / "run",
        *("--rate", "30/s", "--arrival", "constant", "--duration", "2s", "--warmup", "0s"),
        *("--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", "40"),
    )
    check_accounts(run, kind="setpoint", offered=60)
    assert run.count("shed") > 0
    assert run.rise("rejected") + run.rise("shed") == run.count("shed")
    assert run.rise("requests_ended") == run.count("ok") + run.count("late")
    assert run.values("waiting").max() >= 1
    assert run.values("running").max() == 4
