"""``setpoint batch`` as users run it, against a scripted server: words, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))

from loop_world import running, setpoint, wait_for_words
from offline_world import MODEL, FakeServer, entry, fake_server, refuse, result_for, results, write_input

from setpoint.loop.interrupts import EXIT_INTERRUPTED
from setpoint.record import EXIT_BAD_INPUT, EXIT_MET, EXIT_MISSED


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with fake_server() as server:
        yield server


def test_done_failed_and_done_again(fake: FakeServer, tmp_path: Path) -> None:
    write_input(tmp_path / "in", "abc")
    fake.scripts = {"b": [refuse(400)]}
    arguments = ["batch", "in", "out", "--server", fake.url, "--errors", "errors", "--concurrency", "2"]
    first = setpoint(*arguments, "--json", cwd=tmp_path)
    assert first.returncode == EXIT_MISSED, first.stderr
    summary = json.loads(first.stdout)
    assert {name: summary[name] for name in ("requests", "done", "failed", "left", "exit_code")} == {
        "requests": 3,
        "done": 2,
        "failed": 1,
        "left": 0,
        "exit_code": EXIT_MISSED,
    }
    assert "3/3 | 1 failed" in first.stderr
    assert [entry["custom_id"] for entry in results(tmp_path / "errors")] == ["b"]

    again = setpoint(*arguments, cwd=tmp_path)
    assert again.returncode == EXIT_MISSED
    assert "3 of 3 requests are done already" in again.stderr
    assert sum(fake.asked.values()) == 3

    anew = setpoint(*arguments, "--overwrite", cwd=tmp_path)
    assert (anew.returncode, anew.stderr.count("failed")) == (EXIT_MET, 1)
    assert anew.stdout.startswith("3 requests: 3 done, 0 failed, 0 left; 3 in this run, ")
    assert len(results(tmp_path / "out")) == 3
    assert results(tmp_path / "errors") == []


def test_what_the_server_failed_to_do_is_asked_again_and_counted(fake: FakeServer, tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", "abc")
    kept = [result_for(lines[0]), result_for(lines[1], failed=True, status=500), result_for(lines[2], failed=True)]
    (tmp_path / "out").write_bytes(b"".join(kept))
    arguments = ["batch", "in", "out", "--server", fake.url, "--errors", "errors"]
    first = setpoint(*arguments, cwd=tmp_path)
    assert first.returncode == EXIT_MISSED, first.stderr
    assert "out: 2 of 3 requests are done already" in first.stderr
    assert "out: asking again 1 that failed before" in first.stderr
    assert first.stdout.startswith("3 requests: 2 done, 1 failed, 0 left; 1 in this run, ")
    assert "; asked again: 1 that had failed\n" in first.stdout
    assert fake.asked == {"b": 1}
    assert [entry["custom_id"] for entry in results(tmp_path / "out")] == ["a", "c", "b"]
    assert [entry["custom_id"] for entry in results(tmp_path / "errors")] == ["c"]

    again = setpoint(*arguments, "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["asked_again"] == 0
    assert fake.asked == {"b": 1}


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(fake: FakeServer, tmp_path: Path) -> None:
    write_input(tmp_path / "in", "abc")
    fake.scripts = {"c": [refuse(503, retry_after="60")]}
    arguments = ["batch", "in", "out", "--server", fake.url]
    with running(*arguments, cwd=tmp_path) as process:
        assert process.stderr is not None
        wait_for_words(process.stderr, "2/3 | 0 failed")
        second = setpoint(*arguments, cwd=tmp_path)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert second.returncode == EXIT_BAD_INPUT
    assert second.stderr == "setpoint: out: another run is writing it; wait for its end, or name another file\n"
    assert process.returncode == EXIT_INTERRUPTED
    assert "3 requests: 2 done, 0 failed, 1 left" in out
    assert "interrupted; what is done is kept, run the same command again to go on" in out
    assert "Traceback" not in err
    last = setpoint(*arguments, cwd=tmp_path)
    assert last.returncode == EXIT_MET
    assert fake.asked == {"a": 1, "b": 1, "c": 2}


def test_ctrl_c_puts_back_what_was_asked_again_for_nothing(fake: FakeServer, tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", "abc")
    failure = result_for(lines[1], failed=True, status=500)
    (tmp_path / "out").write_bytes(result_for(lines[0]) + failure)
    fake.scripts = {"b": [refuse(503, retry_after="60")]}
    arguments = ["batch", "in", "out", "--server", fake.url, "--errors", "errors"]
    with running(*arguments, cwd=tmp_path) as process:
        assert process.stderr is not None
        wait_for_words(process.stderr, "2/3 | 0 failed")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED
    assert out.startswith("3 requests: 2 done, 1 failed, 0 left; 1 in this run, ")
    assert "; asked again: 1 that had failed\n" in out
    assert "interrupted; what is done is kept, run the same command again to go on" in out
    assert [entry["custom_id"] for entry in results(tmp_path / "out")] == ["a", "c", "b"]
    assert (tmp_path / "errors").read_bytes() == failure
    assert setpoint(*arguments, cwd=tmp_path).returncode == EXIT_MET
    assert fake.asked == {"b": 2, "c": 1}


def test_giving_up_leaves_the_rest(fake: FakeServer, tmp_path: Path) -> None:
    write_input(tmp_path / "in", "a")
    fake.scripts = {"a": [refuse(503)] * 99}
    done = setpoint("batch", "in", "out", "--server", fake.url, "--give-up-after", "0.1", cwd=tmp_path)
    assert done.returncode == EXIT_MISSED
    assert "no request was answered for 0.1 s: HTTP 503: not now; what is done is kept" in done.stdout
    assert not (tmp_path / "out").exists()


MISTAKES = [
    ([], "--server: found none"),
    (["--server", "URL", "--serve", "m"], "--serve: not together with --server"),
    (["--server", "URL", "--config", "{}"], "--config: not together with --server; it belongs to --serve"),
    (["--serve", "m", "--model", "x"], "--model: not together with --serve; it belongs to --server"),
    (["--serve", "nothing"], "model 'nothing' does not exist"),
    (["--server", "URL", "--concurrency", "0"], "--concurrency 0: allowed: auto, or a number from 1"),
    (["--server", "URL", "--timeout", "soon"], "--timeout soon: allowed: a duration"),
    (["--server", "http://127.0.0.1:9"], "connection refused"),
    (["--server", "URL", "--model", "other"], "'other' is not served"),
    (["--server", "URL", "--errors", "out"], "--errors out: is the input or the output"),
    (["--server", "URL", "--errors", "nowhere/x"], "--errors nowhere/x: there is no folder nowhere"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_mistakes_send_nothing_and_leave_the_output_alone(
    arguments: list[str], words: str, fake: FakeServer, tmp_path: Path
) -> None:
    write_input(tmp_path / "in", "a")
    (tmp_path / "out").write_bytes(b'{"id": "batch_req_torn')
    named = [fake.url if word == "URL" else word for word in arguments]
    done = setpoint("batch", "in", "out", *named, cwd=tmp_path)
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.startswith("setpoint: ")
    assert words in done.stderr
    assert done.stdout == ""
    assert fake.asked == {}
    assert (tmp_path / "out").read_bytes() == b'{"id": "batch_req_torn'


def test_a_bad_line_or_the_wrong_output_sends_nothing(fake: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(json.dumps(entry("a")) + "\n" + json.dumps(entry("a")))
    done = setpoint("batch", "in", "out", "--server", fake.url, cwd=tmp_path)
    assert done.stderr == "setpoint: in: line 2: custom_id: found that of line 1 again; give each request its own\n"
    assert not (tmp_path / "out").exists()
    same = setpoint("batch", "in", "in", "--server", fake.url, cwd=tmp_path)
    assert "in: is the input itself" in same.stderr
    (tmp_path / "in").write_text(json.dumps(entry("a", model=MODEL)) + "\n" + json.dumps(entry("b", model="other")))
    unknown = setpoint("batch", "in", "out", "--server", fake.url, cwd=tmp_path)
    assert "in: body.model: 'other' is not served at" in unknown.stderr
    assert {done.returncode, same.returncode, unknown.returncode} == {EXIT_BAD_INPUT}
    assert fake.asked == {}
