"""``setpoint measure`` against llama.cpp's server, on the demo model's own file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_run import check_accounts, check_figures, check_tokens, measure
from real_server import ROOT, free_port, real_server

from setpoint.engine.models import demo_file

BINARY = "SETPOINT_LLAMA_SERVER"
BUILT = ROOT / "build" / "llamacpp" / "build" / "bin" / "llama-server"
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 20


def llama_server() -> Path:
    """The binary; without one the test fails and says how to have one."""
    binary = Path(os.environ.get(BINARY, BUILT))
    if not binary.is_file():
        pytest.fail(
            f"there is no llama-server at {binary}: build it with benchmarks/peers/build_llamacpp.sh (5 to 13 minutes),"
            f" or set {BINARY} to the path of one"
        )
    return binary


@contextmanager
def llamacpp(log: Path, *options: str) -> Iterator[str]:
    """The server on the demo model with one thread, with ``options`` of its own."""
    port = free_port()
    command = [str(llama_server()), "--model", str(demo_file()), "--port", str(port), "--host", "127.0.0.1"]
    command += ["--threads", "1", "--threads-batch", "1", "--ctx-size", "2048", *options]
    with real_server(command, port, log, ready_within_s=60) as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llamacpp(tmp_path_factory.mktemp("llamacpp") / "server.log", "--parallel", "4", "--metrics") as url:
        yield url


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_both_sides_count_the_same(server: str, endpoint: str, tmp_path: Path) -> None:
    run = measure(
        server,
        tmp_path / "run",
        *("--rate", "2/s", "--arrival", "constant", "--duration", "10s", "--warmup", "0s", "--endpoint", endpoint),
        *("--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", str(OUTPUT_TOKENS)),
    )
    check_accounts(run, kind="llamacpp", offered=20)
    check_tokens(run, prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS)
    check_figures(run)
    # The server finds again what a slot still holds of an earlier prompt, and both sides know how much that was.
    assert run.rise("cached_prompt_tokens") == run.total("cached_tokens")


def test_queue_is_seen_when_the_slots_are_full(server: str, tmp_path: Path) -> None:
    run = measure(
        server,
        tmp_path / "run",
        *("--rate", "20/s", "--arrival", "constant", "--duration", "1s", "--warmup", "0s"),
        *("--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", "30"),
    )
    check_accounts(run, kind="llamacpp", offered=20)
    # Its queue has no bound: nothing is refused, everything waits.
    assert run.count("shed") == 0
    assert run.values("waiting").max() >= 5
    assert run.values("running").max() == 4
    assert run.rise("output_tokens") == run.total("output_tokens") == 20 * 30


def test_speculation_is_told(tmp_path: Path) -> None:
    drafts = (
        "--model-draft",
        str(demo_file()),
        "--spec-type",
        "draft-simple",
        "--spec-draft-n-max",
        "3",
        "--threads-draft",
        "1",
    )
    with llamacpp(tmp_path / "server.log", "--parallel", "1", "--metrics", *drafts) as url:
        run = measure(
            url,
            tmp_path / "run",
            *("--rate", "1/s", "--arrival", "constant", "--duration", "5s", "--warmup", "0s"),
            *("--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", str(OUTPUT_TOKENS)),
        )
    check_accounts(run, kind="llamacpp", offered=5)
    check_tokens(run, prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS)
    # A model that drafts for itself is nearly always right: three drafts and the bonus token.
    assert 2.5 < run.measures["acceptance_length"] <= 4
    assert run.rise("accepted_tokens") <= run.rise("draft_tokens")


def test_server_without_metrics_is_measured_and_told_about(tmp_path: Path) -> None:
    with llamacpp(tmp_path / "server.log", "--parallel", "2") as url:
        run = measure(
            url,
            tmp_path / "run",
            *("--rate", "2/s", "--arrival", "constant", "--duration", "3s", "--warmup", "0s"),
            *("--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", str(OUTPUT_TOKENS)),
        )
    assert run.measures["ok"] == run.measures["offered"] == 6
    assert run.server["kind"] == "llamacpp"
    assert "start llama-server with --metrics" in run.server["notes"][0]
    assert run.summary["kv_usage_peak"] is not None
    assert run.summary["output_tokens"] is None
