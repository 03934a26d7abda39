"""``setpoint plan`` as it is called: a real plan over real simulations, its files, and a user's mistakes in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from setpoint import cli
from setpoint.loop.configs import read_config
from setpoint.plan.scaled import scaled
from setpoint.record import Report

REQUIREMENT = """\
name: search
model: llama-3.1-8b
profile:
  prompt_tokens: {min: 800, max: 1200}
  output_tokens: 16
  shared_prefix_tokens: 400
  arrival: {rate: 30/s}
slo:
  ttft: {p90: 400ms}
  goodput_fraction: 80%
plan: {hardware: [h100-sxm], quantization: bf16, load_uncertainty: 5%}
"""
QUICK = ("--processes", "1", "--scheduler", "vllm", "--tensor-parallel", "1")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A requirement in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "search.yaml"
    path.write_text(REQUIREMENT, encoding="utf-8")
    return path


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of ``setpoint plan`` in this process."""
    monkeypatch.setattr(sys, "argv", ["setpoint", "plan", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_plan_by_simulation_and_its_files(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = called(monkeypatch, str(file), *QUICK, "--output", "plan", "--json", "--confidence", "60%")
    document = json.loads(capsys.readouterr().out)
    assert code == {"sure": 0, "within_error": 3}[document["standing"]]
    folder = file.parent / "plan"
    assert json.loads((folder / "plan.json").read_text()) == document
    report = Report.model_validate_json((folder / "report.json").read_text())
    assert report.chosen == document["chosen"]
    chosen = next(each for each in report.candidates if each.name == report.chosen)
    assert chosen.predicted is not None
    figures = chosen.predicted.sustained
    assert figures.offered > 340  # 400 on average; arrivals are drawn
    assert figures.prefix_hit_rate == pytest.approx(0.4, abs=0.02)
    assert figures.goodput_fraction is not None
    assert figures.goodput_fraction > 0.8
    ranked = next(each for each in document["ranked"] if each["name"] == report.chosen)
    assert ranked["kv"]["expected_prefix_hit_rate"] == pytest.approx(0.4, abs=0.02)
    assert figures.ttft_s.p95 == pytest.approx(ranked["latency_p95_s"], rel=0.5)
    assert read_config(str(folder)).max_running == ranked["config"]["max_running"]
    manifest = list(yaml.safe_load_all((folder / "exports" / "kubernetes.yaml").read_text()))
    assert manifest[0]["spec"]["replicas"] == ranked["replicas"]
    assert document["requirement_id"] in (folder / "exports" / "vllm.sh").read_text()
    assert "<svg" in (folder / "plan.html").read_text()
    assert scaled(chosen.predicted, 2).sustained.offered == 2 * figures.offered


def test_improving_a_command_by_simulation(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "vllm serve meta-llama/Llama-3.1-8B-Instruct --max-num-seqs 2 --port 8001"
    code = called(monkeypatch, str(file), *QUICK, "--json", "--improve", command)
    improvement = json.loads(capsys.readouterr().out)["improvement"]
    assert code in (0, 3)
    assert improvement["best"]["knee_rps"] > 1.2 * improvement["now"]["knee_rps"]
    assert improvement["best"]["flags"]["--max-num-seqs"] > 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.yaml"], "no such file"),
        (["search.yaml", "--hardware", "h10-sxm"], "h100-sxm"),
        (["search.yaml", "--price", "h100-sxm"], "--price"),
        (["search.yaml", "--price", "h10-sxm=2"], "h100-sxm"),
        (["search.yaml", "--objective", "fame"], "--objective fame: allowed: cost, tokens-per-usd, latency, power"),
        (["search.yaml", "--quantization", "fp3"], "fp3"),
        (["search.yaml", "--tensor-parallel", "x"], "--tensor-parallel x: allowed: whole numbers"),
        (["search.yaml", "--scheduler", "best"], "--scheduler best: allowed: setpoint, vllm"),
        (["search.yaml", "--confidence", "100%"], "--confidence 100%"),
        (["search.yaml", "--load-uncertainty", "ten"], "--load-uncertainty ten"),
        (["search.yaml", "--improve", "python x.py"], "begins with vllm serve"),
        (["search.yaml", "--improve", "vllm serve llama-9"], "llama-9"),
        (["search.yaml", "--hardware", "l4,h200", "--improve", "vllm serve qwen3-8b"], "name it with --hardware"),
        (["search.yaml", "--output", "search.yaml"], "there is a file in the way"),
        ([], "no model: name a REQUIREMENT.yaml"),
        (["--model", "qwen3-8b", "--rate", "fast"], "--rate fast"),
        (["--model", "qwen3-8b", "--assert", "fast"], "--assert 'fast'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], said: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("setpoint: ")
    assert said in error
    assert "\n" not in error


def test_an_unknown_model_is_one_line(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(REQUIREMENT.replace("llama-3.1-8b", "lama-3.1-8b"))
    assert called(monkeypatch, str(file)) == 2
    error = capsys.readouterr().err.strip()
    assert "llama-3.1-8b" in error
    assert "\n" not in error


def test_a_plan_without_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    load = ("--rate", "5/s", "--prompt-tokens", "256", "--output-tokens", "8", "--assert", "ttft_p90<1s")
    code = called(monkeypatch, "--model", "qwen3-8b", "--hardware", "l40s", *load, *QUICK, "--json")
    document = json.loads(capsys.readouterr().out)
    assert code in (0, 3)
    assert document["model"] == "qwen3-8b"
    assert {price["limit"] for price in document["shadow_prices"]} == {"sustained ttft p90"}


def test_what_nothing_can_meet_is_exit_code_1(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(REQUIREMENT.replace("30/s", "90000/s"))
    assert called(monkeypatch, str(file), *QUICK, "--max-gpus", "4") == 1
    assert "Nothing meets the requirement" in " ".join(capsys.readouterr().out.split())
