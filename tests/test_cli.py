"""The command line: every mistake is one line and exit code 2, and help is readable and quick."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from setpoint import __version__, cli
from setpoint.loop.interrupts import EXIT_INTERRUPTED
from setpoint.record import EXIT_BAD_INPUT

NOWHERE = "http://127.0.0.1:9"
TINY = """
name: tiny
profile:
  prompt_tokens: 16
  output_tokens: 8
  arrival: {rate: 8/s}
"""
NO_MODEL = TINY + "model: ./nothing.gguf\n"
COMMANDS = ("serve", "tune", "measure", "batch", "compare", "init")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of several kinds, and nobody's key in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SETPOINT_API_KEY", raising=False)
    (tmp_path / "ok.yaml").write_text(TINY)
    (tmp_path / "no-model.yaml").write_text(NO_MODEL)
    (tmp_path / "broken.yaml").write_text("a: [\n")
    (tmp_path / "plain").write_text("")
    (tmp_path / "empty").mkdir()
    return tmp_path


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the command in this process."""
    monkeypatch.setattr(sys, "argv", ["setpoint", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


MISTAKES = [
    (["tune"], "Missing argument"),
    (["frobnicate"], "No such command"),
    (["tune", "ok.yaml", "--nope"], "No such option"),
    (["tune", "nothing.yaml"], "no such file"),
    (["tune", "empty"], "a directory"),
    (["tune", "broken.yaml"], "broken.yaml:2: found a YAML error"),
    (["tune", "no-model.yaml"], "model './nothing.gguf' does not exist"),
    (["tune", "ok.yaml", "--only", "nobody"], "--only nobody: not a candidate; the candidates are "),
    (["tune", "ok.yaml", "--grid", "--only", "setpoint-8x128"], "--only setpoint-8x128: not a candidate"),
    (["tune", "ok.yaml", "--duration", "soon"], "--duration soon: allowed: a duration"),
    (["tune", "ok.yaml", "--duration", "0"], "--duration 0: allowed: more than 0"),
    (["tune", "ok.yaml", "--duration", "nan"], "--duration nan: allowed: more than 0"),
    (["tune", "ok.yaml", "--seed", "-1"], "--seed"),
    # The folder is looked at before the model, let alone a measurement.
    (["tune", "no-model.yaml", "--output", "plain"], "--output plain: there is a file in the way"),
    (["tune", "no-model.yaml", "--output", "plain/x"], "--output plain/x: there is a file in the way"),
    (["measure", "no-model.yaml", "--output", "plain"], "--output plain: there is a file in the way"),
    (["measure", NOWHERE, "--output", "plain"], "--output plain: there is a file in the way"),
    (["profile-speculation", "nothing", "--output", "empty"], "--output empty: this is a folder; name a file"),
    (["profile-speculation", "nothing", "--output", "plain/x.json"], "--output plain/x.json: plain cannot be made"),
    (["measure", NOWHERE], "connection refused"),
    (["measure", "http://["], "cannot be read"),
    (["measure", "http://a..b"], "cannot be read"),
    (["measure", "ftp://a"], "use http:// or https://"),
    (["measure", "http://127.0.0.1:99999"], "port"),
    (["measure", NOWHERE, "--rate", "0"], "--rate: "),
    (["measure", NOWHERE, "--rate", "fast"], "--rate fast: allowed: a rate"),
    (["measure", NOWHERE, "--rate", "nan"], "--rate: "),
    (["measure", NOWHERE, "--arrival", "tide"], "--arrival: "),
    (["measure", NOWHERE, "--cv", "2"], "--cv: allowed: no cv with poisson arrivals"),
    (["measure", NOWHERE, "--burst-rate", "0.5/s"], "--burst-rate: allowed: above the sustained rate"),
    (["measure", NOWHERE, "--burst-duration", "3s"], "--burst-duration: there is no burst"),
    (["measure", NOWHERE, "--requests", "9", "--duration", "9"], "--requests: "),
    (["measure", NOWHERE, "--shared-prefix-tokens", "128"], "--shared-prefix-tokens: allowed: less than"),
    (["measure", NOWHERE, "--endpoint", "images"], "allowed are completions, chat"),
    (["measure", NOWHERE, "--header", "x"], "write it as 'Name: value'"),
    (["measure", NOWHERE, "--config", "{}"], "--config: belongs to measuring a requirement file"),
    (["measure", NOWHERE, "--requirement", "nothing.yaml"], "no such file"),
    (["measure", NOWHERE, "--assert", "ttft<1s"], "--assert 'ttft<1s': allowed is [burst:]METRIC<VALUE"),
    (["measure", NOWHERE, "--assert", "ttft_p99<500"], "--assert 'ttft_p99<500': allowed for ttft_p99 is a duration"),
    (["measure", NOWHERE, "--assert", "ttft_p99<0ms"], "--assert"),
    (["measure", NOWHERE, "--assert", "ttft_p99<8d"], "--assert"),
    (["measure", "http://m\u00fcnchen.example"], "write it as xn--mnchen-3ya.example"),
    (["measure", NOWHERE, "--assert", "burst:ttft_p99<1s"], "--assert burst:...: there is no burst; add --burst-rate"),
    (["measure", NOWHERE, "--until", "soon"], "--until soon: allowed: a percentile and how well"),
    (["measure", NOWHERE, "--until", "p99<10%", "--requests", "9"], "--until: says how long to measure"),
    (["measure", NOWHERE, "--until", "p99<10%", "--burst-rate", "3x"], "--until: ends the run early, so no burst can follow"),
    (["measure", NOWHERE, "--until", "p99<10%", "--workers", "2"], "--until: is looked after by one process"),
    (["measure", NOWHERE, "--find-knee"], "--find-knee: needs a limit to hold"),
    (["measure", NOWHERE, "--find-knee", "--assert", "ttft_p95<1s", "--concurrency", "4"], "leave out --concurrency"),
    (["measure", NOWHERE, "--find-knee", "--assert", "ttft_p95<1s", "--duration", "9s"], "leave out --duration"),
    (["measure", NOWHERE, "--find-knee", "--assert", "ttft_p95<1s", "--requests", "9"], "leave out --requests"),
    (["measure", NOWHERE, "--find-knee", "--assert", "ttft_p95<1s", "--warmup", "0"], "leave out --warmup"),
    (["plan", "ok.yaml", "--concurrency", "64"], "--concurrency: belongs to setpoint measure"),
    (["measure", NOWHERE, "--concurrency", "4", "--rate", "2"], "--rate: not together with --concurrency"),
    (["measure", NOWHERE, "--trace", "nothing.csv"], "--trace: "),
    (["measure", NOWHERE, "--trace", "plain"], "--trace: "),
    (["measure", NOWHERE, "--trace", "plain", "--prompt-tokens", "9"], "--prompt-tokens: not together with --trace"),
    (["measure", NOWHERE, "--speed-up", "2"], "--speed-up: there is no trace; add --trace FILE"),
    (["measure", NOWHERE, "--extra-body", "{"], "--extra-body: this is no JSON"),
    (["measure", NOWHERE, "--extra-body", "[1]"], "--extra-body: a JSON object is needed"),
    (["measure", NOWHERE, "--workers", "many"], "--workers many: allowed: auto, or a number"),
    (["measure", NOWHERE, "--prompt-tokens", "few"], "--prompt-tokens few: allowed: a number such as 128"),
    (["measure", NOWHERE, "--steps", "2/s"], "--steps 2/s: allowed: rates and how long each lasts"),
    (["measure", NOWHERE, "--arrival", "ramp"], "--to-rate: "),
    (["measure", NOWHERE, "--think-time", "3s"], "--think-time: there are no conversations; add --turns"),
    (["measure", NOWHERE, "--per-token"], "--per-token: tokens.parquet goes into the run folder; add --output DIR"),
    (["measure", NOWHERE, "--junit", "empty"], "--junit empty: this is a folder; name a file"),
    (["measure", NOWHERE, "--csv", "plain/x.csv"], "--csv plain/x.csv: plain cannot be made"),
    (["measure", "ok.yaml", "--find-knee", "--assert", "ttft_p95<1s"], "--find-knee: belongs to measuring a URL"),
    (["compare", "empty", "empty"], "report.json is missing"),
    (["compare", "empty"], "compare"),
    (["init", "new.yaml", "--from-trace", "plain"], "plain"),
    (["init", "new.yaml", "--from-trace", "plain", "--prompt-tokens", "9"], "--prompt-tokens: --from-trace shows it"),
    (["init", "new.yaml", "--from-trace", "plain", "--from-metrics", NOWHERE], "--from-metrics: one source is enough"),
    (["init", "new.yaml", "--from-metrics", NOWHERE], NOWHERE),
    (["init", "new.yaml", "--interval", "3s"], "--interval: there are no metrics to look at"),
    (["measure", "ok.yaml", "--model", "x"], "--model: belongs to measuring a URL"),
    (["measure", "ok.yaml", "--config", "nothing"], "--config nothing: neither a run folder"),
    (["batch", "nothing", "out"], "--server: found none"),
    (["batch", "nothing", "out", "--server", NOWHERE], "nothing: no such file"),
    (["batch", "plain", "out", "--server", NOWHERE], "plain: found no request"),
    (["batch", "broken.yaml", "out", "--server", NOWHERE], "broken.yaml: line 1: the line: not JSON"),
    (["serve", ""], "found no model"),
    (["serve", "nothing"], "model 'nothing' does not exist"),
    (["serve", "empty"], "not an OpenVINO model folder"),
    (["serve", "broken.yaml"], "broken.yaml:2"),
    (["serve", "ok.yaml", "--config", "empty"], "not the folder of a finished run"),
    (["serve", "ok.yaml", "--config", "plain"], "plain: the whole: Invalid JSON"),
    (["serve", "ok.yaml", "--config", '{"mode": "x"}'], "--config: mode: "),
    (["serve", "ok.yaml", "--max-running", "5000"], "--max-running: "),
    (["serve", "ok.yaml", "--mode", "eager"], "--mode"),
    (["serve", "ok.yaml", "--port", "70000"], "--port"),
    (["serve", "ok.yaml", "--api-key", ""], "--api-key: found an empty key"),
    (["init", "ok.yaml"], "exists already"),
    (["init", "empty", "--force"], "cannot be written"),
    (["init", "plain/x.yaml"], "cannot be written"),
    (["init", "new.yaml", "--example", "x"], "the shipped examples are"),
    (["init", "new.yaml", "--example", "night-batch", "--rate", "1/s"], "--example: takes the example as it is"),
    (["init", "new.yaml", "--rate", "fast"], '--rate: found "fast"'),
    (["init", "new.yaml", "--objective", "fame"], "--objective: "),
    (["init", "new.yaml", "--name", ""], "--name: "),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_told_in_words_with_exit_code_2(
    work: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, *arguments) == EXIT_BAD_INPUT
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert not (work / "new.yaml").exists()


def test_a_run_without_a_chosen_configuration_cannot_be_served(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {
        "schema": 1,
        "kind": "tune",
        "requirement": None,
        "machine": {},
        "candidates": [],
        "chosen": None,
        "why": "",
        "validity": {"valid": True, "reasons": []},
    }
    (work / "empty" / "report.json").write_text(json.dumps(report))
    assert called(monkeypatch, "serve", "ok.yaml", "--config", "empty") == EXIT_BAD_INPUT
    assert "no configuration met the requirement" in capsys.readouterr().err


@pytest.mark.parametrize("given", [[], ["--trust-fairness-id"]])
def test_a_header_names_the_tenant_beside_keys_only_when_asked_for(
    work: Path, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: dict[str, object] = {}

    def recorded(*_: object, **options: object) -> int:
        passed.update(options)
        return 0

    monkeypatch.setattr("setpoint.loop.serve.serve", recorded)
    assert called(monkeypatch, "serve", "ok.yaml", "--api-key", "k", *given) == 0
    assert (passed["api_keys"], passed["trust_fairness_id"]) == (["k"], bool(given))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_fits_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert called(monkeypatch, name, "--help") == 0
    out = capsys.readouterr().out
    assert "Examples" in out
    assert f"setpoint {name} " in out
    assert max(map(len, out.splitlines())) <= 80
    # No option's name is cut.
    assert "…" not in out


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"setpoint {__version__}\n"


def test_help_waits_for_no_engine_and_no_server() -> None:
    heavy = ("openvino", "openvino_genai", "uvicorn", "starlette", "jinja2", "setpoint.engine.step_loop")
    code = f"import sys, setpoint.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_interrupt_while_the_command_line_is_loaded_is_no_traceback() -> None:
    code = """
import sys

class Interrupted:
    def find_spec(name, path, target=None):
        if name == "setpoint.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted)
from setpoint.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_INTERRUPTED, "", "stopped\n")
