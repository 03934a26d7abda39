"""Every command of the documentation is run, each once and in a temporary folder, or listed here with why it is not.

A command that is in neither list fails, and so does a reason that no command needs any more.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs_commands import distinct

from setpoint.cli import app, main
from setpoint.requirement import example_text

Words = tuple[str, ...]

# Beginnings of commands that are not run, and why. What is parsed of them is checked in test_docs_commands.py.
NOT_RUN = {
    "tune": "serves and measures for minutes; tests/loop/test_loop_tune.py runs the loop on a short load",
    "serve": "serves until it is stopped; tests/loop/test_loop_serve.py and tests/server do",
    "measure": "needs a server and half a minute; tests/loop/test_loop_measure_commands.py measures servers that are there",
    "batch": "needs a server; tests/loop/offline runs it against one",
    "profile-speculation": "runs a model for a minute; tests/engine has its parts",
    "explain": "needs a run of a real engine; tests/loop/explain has them",
    "plan": "searches for more than two seconds; tests/plan runs it on small catalogues",
    "init my.yaml --from-trace": "the trace is not in the repository; tests/loop/test_loop_init_from.py has rows of it",
    "init my.yaml --from-metrics": "needs a server; tests/loop/test_loop_init_from_metrics.py has its metrics",
    "hardware calibrate": "runs a model for a minute, or needs a run of it; tests/loop/test_loop_calibrating.py",
    "simulate --model llama-3.1-8b --hardware h100-sxm --engine vllm --rate 10/s --requests 10000": "ten thousand requests",
    "simulate my.yaml --model llama-3.1-8b --hardware h100-sxm --engine vllm --speculation prompt-lookup": "needs the"
    " output of profile-speculation; tests/loop/simulation reads one",
}
PYTHON_NOT_RUN = {
    "experiments/run.py": "seconds to minutes each; tests/experiments runs every simulated one at its small size",
    "benchmarks/": "measures for minutes, or needs files that are not in the repository",
    "tests/engine/simulation/simulation_replay.py": "thousands of steps; the same worlds run in tests/engine/simulation",
    "-m setpoint.report.files --write-schema": "writes into the sources; tests/report/test_report_files.py compares",
    "-m setpoint.plan.fact_tables": "each takes seconds; tests/plan has the tables",
}
MAKE_NOT_RUN = {
    "demo": "the loop on a real model, five minutes",
    "serve": "serves until it is stopped",
    "test": "this is it",
    "lint": "a part of make test",
    "unit": "this is it",
    "simulate-nightly": "an hour or two",
    "experiments": "half an hour",
}
MEASURED = """id,backend,backend_version,model_path,system,precision,isl,osl,batch_size,tp_size,silicon_ttft_ms,silicon_tpot_ms
a,vllm,1,meta-llama/Llama-3.1-8B-Instruct,h100_sxm,fp8,1024,1024,16,1,150,8
b,vllm,1,meta-llama/Llama-3.1-8B-Instruct,h100_sxm,fp8,1024,1024,64,1,300,12
"""
GPU = """name: my-gpu
dense_tflops: {bf16: 100}
memory_gb: 48
memory_tb_per_s: 1
link_gb_per_s: 32
power_w: 300
"""
CONFIG = """{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16,
"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256, "torch_dtype": "bfloat16",
"max_position_embeddings": 4096}"""
SMALL_LOAD = ("my.yaml", "--model", "llama-3.1-8b", "--hardware", "h100-sxm", "--requests", "60")
COMPARED = ("before", "after", "main", "branch", "a1", "b1", "a2", "b2")


def begins(words: Words, reasons: dict[str, str]) -> list[str]:
    """Which of ``reasons`` the command begins with."""
    text = shlex.join(words)
    return [each for each in reasons if text == each or text.startswith(each if each.endswith("/") else f"{each} ")]


def cheap() -> list[Words]:
    """What is run."""
    return [words for words in distinct("setpoint") if not begins(words, NOT_RUN)]


def _as_measured(run: Path, copy: Path) -> None:
    """A copy of a simulated run that says it was measured, a while later."""
    shutil.copytree(run, copy)
    for name, field, value in (("report.json", "kind", "measure"), ("run.json", "ended_unix_s", 2e9)):
        document = json.loads((copy / name).read_text(encoding="utf-8")) | {field: value}
        (copy / name).write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages say is there: a requirement, tables, and small runs in an index of their own."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "measured.csv").write_text(MEASURED, encoding="utf-8")
    (folder / "my-gpu.yaml").write_text(GPU, encoding="utf-8")
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "config.json").write_text(CONFIG, encoding="utf-8")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SETPOINT_DATA", str(folder / "data"))
        os.chdir(folder)
        try:
            (folder / "my.yaml").write_text(example_text("coding-assistant"), encoding="utf-8")
            for seed, name in enumerate(COMPARED):
                output = ("--seed", str(seed), "--output", f"runs/{name}", "--json")
                app(["simulate", *SMALL_LOAD, *output], standalone_mode=False)
                _as_measured(folder / "runs" / name, folder / "runs" / f"measured-{name}")
            app(["runs", "--reindex", "runs", "--json"], standalone_mode=False)
            yield folder
        finally:
            os.chdir(before)


@pytest.mark.parametrize("words", cheap(), ids=shlex.join)
def test_commands_that_are_cheap_run(
    words: Words, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (world / "my.yaml").write_text(example_text("coding-assistant"), encoding="utf-8")
    if words[0] == "init":
        (world / words[1]).unlink(missing_ok=True)
    monkeypatch.setattr(sys, "argv", ["setpoint", *words])
    monkeypatch.setattr(sys, "stdin", open(os.devnull, encoding="utf-8"))  # noqa: SIM115
    with pytest.raises(SystemExit) as ended:
        main()
    caught = capsys.readouterr()
    assert ended.value.code in (0, None, 1, 3), f"setpoint {shlex.join(words)}: {ended.value.code}\n{caught.err}"
    assert caught.out or caught.err


@pytest.mark.parametrize("reason", NOT_RUN)
def test_each_reason_is_needed(reason: str) -> None:
    assert any(reason in begins(words, NOT_RUN) for words in distinct("setpoint"))


def test_programs_and_targets_are_run_or_listed() -> None:
    python = {shlex.join(words): begins(words, PYTHON_NOT_RUN) for words in distinct("python")}
    made = {word: [word] if word in MAKE_NOT_RUN else [] for words in distinct("make") for word in words if "=" not in word}
    assert [each for each, reasons in (python | made).items() if not reasons] == []
    used = {reason for reasons in (python | made).values() for reason in reasons}
    assert used == set(PYTHON_NOT_RUN) | set(MAKE_NOT_RUN)
