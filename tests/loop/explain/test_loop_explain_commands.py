"""``setpoint explain`` as users run it: a foreign server, folders that are none, and our own server in overload."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from explain_world import Load, config, make_run

sys.path.append(str(Path(__file__).resolve().parent.parent))

from loop_world import mock_in_thread, setpoint

from setpoint.record import EXIT_BAD_INPUT, EXIT_MET

OVERLOAD = """
name: small-overload
model: smollm2-135m
profile:
  prompt_tokens: 60
  output_tokens: 48
  arrival: {process: constant, rate: 30/s}
slo:
  ttft: {p95: 1s}
  goodput_fraction: 99%
"""


def test_folders_that_cannot_be_explained_are_named_in_one_sentence(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", config(), Load(rate_rps=4.0, duration_s=2.0))
    wrong = {
        ("nowhere",): "nowhere: no such folder",
        (".",): "report.json is missing",
        ("run", "--candidate", "other"): "--candidate other: not measured in this run; there are under-test",
        ("run", "--request", "x"): "--request x: is not in this run",
    }
    for arguments, words in wrong.items():
        done = setpoint("explain", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (EXIT_BAD_INPUT, "")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
    (made.folder / "decisions.parquet").write_bytes(b"broken")
    done = setpoint("explain", "run", cwd=tmp_path)
    assert done.returncode == EXIT_BAD_INPUT
    assert "decisions.parquet cannot be read as Parquet" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_foreign_server_is_explained_as_far_as_it_goes(tmp_path: Path) -> None:
    with mock_in_thread() as mock:
        setpoint("measure", mock.url, "--rate", "20/s", "--duration", "1s", "--warmup", "0", "--output", "run", cwd=tmp_path)
    done = setpoint("explain", "run", cwd=tmp_path)
    assert done.returncode == EXIT_MET, done.stderr
    assert "What cannot be told" in done.stdout
    assert "this server is not setpoint's" in " ".join(done.stdout.split())


@pytest.mark.model
def test_our_own_server_in_overload_is_explained(tmp_path: Path) -> None:
    (tmp_path / "overload.yaml").write_text(OVERLOAD, encoding="utf-8")
    arguments = ("overload.yaml", "--duration", "5s", "--warmup", "1s", "--output", "run")
    measured = setpoint("measure", *arguments, cwd=tmp_path)
    assert (tmp_path / "run" / "decisions.parquet").exists(), measured.stderr
    done = setpoint("explain", "run", "--json", cwd=tmp_path)
    assert done.returncode == EXIT_MET, done.stderr
    found = json.loads(done.stdout)
    assert found["cannot"] == []
    refused = {cause["code"]: cause["count"] for cause in found["causes"] if cause["outcome"] == "shed"}
    assert sum(refused.values()) == found["classes"]["shed"] > 0
    assert not refused.keys() & {"not_told", "before_engine"}
    fired = {each["name"]: each["fired"] for each in found["policies"]}
    assert fired["admission by TTFT forecast"] == refused.get("ttft_would_be", 0)
    replayed = {each["name"]: each for each in found["without"]["replays"]}
    assert replayed["no policy"]["waiting_max"] > replayed["replay"]["waiting_max"]
    assert found["without"]["trust"]["same_class"] > 0.5
    example = next(cause for cause in found["causes"] if cause["outcome"] == "shed")["examples"][0]["request_id"]
    told = setpoint("explain", "run", "--request", example, cwd=tmp_path)
    assert "refused" in told.stdout or "dropped" in told.stdout
