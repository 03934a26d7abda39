"""The servers of the comparison: how each is started, with which flags, on which weights; each a process on a loopback port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from setpoint.engine.models import demo_file
from setpoint.measure.target import Target

DEFAULT, BEST = "default", "best"
STOP_WITHIN_S = 15.0
LAST_LINES = 12
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
VLLM_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}


@dataclass(frozen=True, slots=True)
class Flags:
    """One static configuration of a peer: its own options and environment. other_model: on the Q4_0 file (llama.cpp alone)."""

    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    other_model: bool = False

    @property
    def words(self) -> str:
        """As typed."""
        model = ["(Q4_0 file)"] if self.other_model else []
        return " ".join([*(f"{name}={value}" for name, value in self.env.items()), *self.options, *model]) or "(none)"


SWEPT: dict[str, tuple[Flags, ...]] = {
    "llama.cpp": (
        Flags(("-np", "16", "-c", "16384", "-t", "2"), PASSIVE),
        Flags(("-np", "16", "-c", "16384", "-t", "1")),
        Flags(("-np", "16", "-c", "16384", "-t", "2"), PASSIVE, other_model=True),
        Flags(("-np", "32", "-c", "16384", "-t", "2", "-ub", "128"), PASSIVE, other_model=True),
        Flags(("-np", "8", "-c", "8192", "-t", "2"), PASSIVE),
        Flags(("-np", "32", "-c", "32768", "-t", "2", "-no-kvu"), PASSIVE),
    ),
    "vLLM": (
        Flags(("--max-num-seqs", "16", "--max-num-batched-tokens", "256", "--max-num-queued-reqs", "4")),
        Flags(("--max-num-seqs", "8", "--max-num-batched-tokens", "512", "--max-num-queued-reqs", "4")),
        Flags(("--max-num-seqs", "64", "--max-num-batched-tokens", "2048")),
    ),
}
READY_WITHIN_S = {"setpoint": 60.0, "llama.cpp": 60.0, "vLLM": 280.0}
PRECISION = {
    "setpoint": "Q4_1 weights as in the file, bf16 activations with AMX and 8-bit ones without, 8-bit KV cache",
    "llama.cpp": "Q4_1 weights of the same file, f16 KV cache; where its flags say so the same weights requantised to"
    " Q4_0, for which it has faster kernels",
    "vLLM": "the same weights as bf16 (converted from the file by benchmarks/real/gguf_to_hf.py)",
    "OpenVINO GenAI": "Q4_1 weights as in the file, bf16 activations with AMX and 8-bit ones without, 8-bit KV cache",
}


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the peers are; ``None``: left out."""

    llama: Path | None = None
    llama_model: Path | None = None
    vllm_python: Path | None = None
    vllm_model: Path | None = None

    def sides(self) -> list[str]:
        """The servers that can be started, setpoint first."""
        found = ["setpoint"]
        if self.llama is not None:
            found.append("llama.cpp")
        if self.vllm_python is not None and self.vllm_model is not None:
            found.append("vLLM")
        return found

    def has(self, flags: Flags) -> bool:
        """Whether the model file that the flags want is there."""
        return not flags.other_model or self.llama_model is not None

    def command(self, side: str, example: str, flags: Flags, port: int) -> list[str]:
        """What is started. setpoint serves the example's requirement as it is; the others know nothing of it."""
        at = ["--host", "127.0.0.1", "--port", str(port)]
        if side == "setpoint":
            with as_file(files("setpoint") / "examples" / f"{example}.yaml") as file:
                return [sys.executable, "-P", "-m", "setpoint", "serve", str(file), *at, *flags.options]
        if side == "llama.cpp":
            model = self.llama_model if flags.other_model else demo_file()
            return [str(self.llama), "--model", str(model), *at, *flags.options]
        served = ["--model", str(self.vllm_model), "--served-model-name", "smol", "--max-model-len", "1024"]
        return [str(self.vllm_python), "-m", "vllm.entrypoints.openai.api_server", *served, *at, *flags.options]


@contextmanager
def running(programs: Programs, side: str, example: str, flags: Flags) -> Iterator[Target]:
    """The server, ready; stopped on leaving with all it started. Ends the script with its last words if it does not come up."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, **(VLLM_ENVIRONMENT if side == "vLLM" else {}), **flags.env}
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(
            programs.command(side, example, flags, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            if not _healthy(process, url, READY_WITHIN_S[side]):
                log.seek(0)
                words = log.read().decode("utf-8", errors="replace").splitlines()[-LAST_LINES:]
                raise SystemExit(f"{side} {flags.words}: not ready within {READY_WITHIN_S[side]:g} s\n" + "\n".join(words))
            yield Target(url)
        finally:
            _stop(process)


def _healthy(process: subprocess.Popen[bytes], url: str, within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s and process.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/health", timeout=2.0) as answer:
            if answer.status == 200:
                return True
        time.sleep(0.2)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
