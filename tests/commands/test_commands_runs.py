"""``setpoint runs`` and ``setpoint compare`` by id, from the command line to what they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from setpoint.cli import main

Run = Callable[..., tuple[int, str, str]]
LOAD = ("--model", "llama-3.1-8b", "--hardware", "h100-sxm", "--rate", "20/s", "--requests", "60", "--warmup", "0s")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The program's exit code, output and errors for a list of words, in an empty folder with an empty index."""
    monkeypatch.setenv("SETPOINT_RUNS_INDEX", str(tmp_path / "runs.sqlite3"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def called(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["setpoint", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        caught = capsys.readouterr()
        return int(ended.value.code or 0), caught.out, caught.err

    return called


def test_every_run_that_is_written_is_listed_compared_and_forgotten(run: Run) -> None:
    assert "no run is known" in run("runs")[1]
    for seed in ("0", "1"):
        assert run("simulate", *LOAD, "--seed", seed, "--output", f"runs/{seed}", "--json")[0] == 0
    found = json.loads(run("runs", "--json")[1])
    assert [Path(each["folder"]).name for each in found] == ["1", "0"]
    assert {each["kind"] for each in found} == {"simulate"}
    assert {each["system"] for each in found} == {"simulated 1 x h100-sxm"}
    newest, oldest = (each["id"] for each in found)
    code, out, _ = run("compare", oldest, newest[:5])
    assert code in (0, 1)
    assert (code, out) == run("compare", "previous", "latest")[:2] == run("compare", oldest, "latest")[:2]
    shown = run("runs", "show", newest)[1]
    assert newest in shown
    assert "simulated 1 x h100-sxm" in shown
    name = found[0]["name"]
    trend = json.loads(run("runs", "trend", name, "--kind", "simulate", "--json")[1])
    assert [each["id"] for each in trend["runs"]] == [oldest, newest]
    assert oldest in run("runs", "trend", name, "--kind", "simulate")[1]
    assert "stays" in run("runs", "forget", oldest)[2]
    assert Path("runs/0/report.json").exists()
    assert "was deleted" in run("runs", "forget", newest, "--delete-folders")[2]
    assert not Path("runs/1").exists()
    code, out, errors = run("runs", "--reindex", "runs")
    assert "1 runs below runs, 1 of them new" in errors
    assert oldest in out
    assert "0 runs whose folder is gone" in run("runs", "prune")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("runs", "show", "latest"), "setpoint: latest: no run is known; fill the index with 'setpoint runs --reindex DIR'\n"),
        (("runs", "--kind", "x"), "setpoint: --kind x: allowed are tune, measure, simulate, plan\n"),
        (("runs", "--reindex", "nowhere"), "setpoint: --reindex nowhere: is no folder; name one that holds run folders\n"),
        (("runs", "trend", "x"), "setpoint: x: no tune or measure run of it is known; there are none at all\n"),
        (("compare", "abc", "latest"), "setpoint: abc: no run is called that; 'setpoint runs' lists the ids\n"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, words: tuple[str, ...], message: str) -> None:
    assert run(*words) == (2, "", message)


def test_calibrations_are_listed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path / "data"))
    assert "no calibration of steps is known" in run("runs", "calibrations")[1]
    assert run("runs", "calibrations", "--json") == (0, "[]\n", "")
