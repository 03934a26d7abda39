"""The output: resumable from whatever a kill leaves, never another's, one writer at a time."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from offline_world import result_for, results, write_input

from setpoint.loop.errors import BadInput
from setpoint.loop.offline.input_index import InputIndex, read_input
from setpoint.loop.offline.output_file import CannotReplace, OutputFile, resume, write_errors
from setpoint.loop.offline.request_line import digest_of, result_id
from setpoint.loop.offline.result_line import Result, read_result
from setpoint.loop.offline.tally import Tally
from setpoint.loop.offline.work import Work

NAMES = [f"request-{number}" for number in range(8)]
# By position: the status of what failed; the first is the request's own fault.
FAILURES: dict[int, int | None] = {0: 400, 3: 500, 5: None}


def finish(output: Path, index: InputIndex, lines: list[bytes]) -> None:
    """What a run does after resuming: write the results that lack."""
    with OutputFile(output) as file:
        found = resume(output, index)
        file.keep(found)
        assert file.begin() == found.again
        assert file.begin() == 0
        for position, _ in index.unanswered():
            file.append(result_for(lines[position]))
            index.mark_answered(position)
        file.sync()


def made(lines: list[bytes], position: int) -> bytes:
    """The result that an earlier run wrote."""
    return result_for(lines[position], failed=position in FAILURES, status=FAILURES.get(position))


@given(st.permutations(range(len(NAMES))), st.integers(0, len(NAMES)), st.data())
def test_from_any_subset_cut_anywhere_each_request_ends_up_in_the_output_once(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], count: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    lines = write_input(folder / "in", NAMES)
    whole = b"".join(made(lines, position) for position in order[:count])
    cut = data.draw(st.integers(0, len(whole)))
    output = folder / "out"
    output.write_bytes(whole[:cut])
    whole_lines = whole[:cut].count(b"\n")
    staying = [position for position in order[:whole_lines] if FAILURES.get(position, 400) == 400]

    index = read_input(folder / "in")
    found = resume(output, index)
    assert (found.answered, found.failed, found.again) == (len(staying), staying.count(0), whole_lines - len(staying))
    assert index.left == len(NAMES) - len(staying)
    assert output.read_bytes() == whole[:cut]

    finish(output, read_input(folder / "in"), lines)
    assert sorted(entry["custom_id"] for entry in results(output)) == NAMES
    assert output.read_bytes().startswith(b"".join(made(lines, position) for position in staying))
    assert read_and_resume(folder / "in", output) == 0


def read_and_resume(source: Path, output: Path) -> int:
    """How many requests are left."""
    index = read_input(source)
    resume(output, index)
    return index.left


def test_zeros_that_a_crashed_machine_leaves_are_cut(tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", NAMES)
    (tmp_path / "out").write_bytes(result_for(lines[3]) + b"\0" * 4096)
    finish(tmp_path / "out", read_input(tmp_path / "in"), lines)
    assert len(results(tmp_path / "out")) == len(NAMES)


def test_an_input_that_has_grown_goes_on(tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", NAMES[:3])
    (tmp_path / "out").write_bytes(b"".join(map(result_for, lines)))
    write_input(tmp_path / "in", NAMES)
    assert read_and_resume(tmp_path / "in", tmp_path / "out") == len(NAMES) - 3


FOREIGN: list[tuple[Callable[[list[bytes]], bytes], str]] = [
    (lambda lines: b"notes of mine\n", "line 1: not a result of a batch"),
    (lambda lines: b"notes without an end", "line 1: not a result of a batch"),
    (lambda lines: b'{"id": 5}\n', "line 1: not a result of a batch"),
    (lambda lines: b"[1]\n", "line 1: not a result of a batch"),
    (lambda lines: b'{"id": "batch_req_00", "error": null}\n', "line 1: not a result of a batch"),
    (lambda lines: b"[" * 100_000 + b"\n", "line 1: not a result of a batch"),
    (lambda lines: result_for(lines[0]) + b"\n" + result_for(lines[1]), "line 2: not a result of a batch"),
    (lambda lines: result_for(lines[0])[:-1] + result_for(lines[1]), "line 1: not a result of a batch"),
    # The same custom_id, but another prompt: this is another input's output.
    (lambda lines: result_for(lines[0].replace(b'"prompt": "request-0"', b'"prompt": "x"')), "line 1: answers a request that"),
    (lambda lines: result_for(lines[0]) * 2, "line 2: answers a request for the second time"),
    (lambda lines: made(lines, 3) * 2, "line 2: answers a request for the second time"),
    (lambda lines: made(lines, 3) + result_for(lines[3]), "line 2: answers a request for the second time"),
]


@pytest.mark.parametrize(("content", "words"), FOREIGN, ids=range(len(FOREIGN)))
def test_a_file_of_something_else_is_refused_and_left_alone(
    content: Callable[[list[bytes]], bytes], words: str, tmp_path: Path
) -> None:
    lines = write_input(tmp_path / "in", NAMES)
    output = tmp_path / "out"
    output.write_bytes(content(lines))
    with pytest.raises(BadInput, match=words) as refused, OutputFile(output):
        resume(output, read_input(tmp_path / "in"))
    assert "--overwrite" in str(refused.value)
    assert output.read_bytes() == content(lines)


PASSING: list[tuple[int | None, str]] = [
    *((status, "x") for status in (500, 501, 502, 504, 520, 302, 408, 409)),
    (None, "connection_cut"),
    (None, "connection_timeout"),
    (None, "malformed_answer"),
]
FINAL: list[tuple[int | None, str]] = [*((status, "x") for status in (400, 404, 413, 422)), (None, "answer_too_large")]


@pytest.mark.parametrize(
    ("status", "code", "may_pass"), [*((*each, True) for each in PASSING), *((*each, False) for each in FINAL)]
)
def test_which_failures_may_pass(status: int | None, code: str, may_pass: bool) -> None:
    written = read_result(Result(result_id(digest_of(b"x")), "x", status, {}, {"code": code, "message": ""}).line())
    assert written is not None
    assert (written.failed, written.may_pass) == (True, may_pass)


def test_what_is_asked_again_goes_in_one_step_and_the_lock_stays(tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", NAMES)
    before = b"".join(made(lines, position) for position in range(6)) + b'{"id": "batch_req_torn'
    (tmp_path / "real").write_bytes(before)
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "out").symlink_to("real")
    (tmp_path / ".real.anew").write_bytes(b"what a kill left")
    index = read_input(tmp_path / "in")
    with OutputFile(tmp_path / "out") as file:
        file.keep(resume(tmp_path / "out", index))
        assert (tmp_path / "out").read_bytes() == before
        assert file.begin() == 2
        staying = b"".join(made(lines, position) for position in (0, 1, 2, 4))
        assert (tmp_path / "out").read_bytes() == staying
        with pytest.raises(BadInput, match="another run is writing it"):
            OutputFile(tmp_path / "out")
        file.append(result_for(lines[3]))
        index.mark_answered(3)
        assert (file.put_back(index), file.put_back(index)) == (1, 0)
    assert (tmp_path / "real").read_bytes() == staying + result_for(lines[3]) + made(lines, 5)
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "out").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "real"]


def opened_with_a_failure(folder: Path) -> tuple[Work, bytes]:
    """A batch of which an earlier run left an answer and a failure that may have passed, and these two lines."""
    lines = write_input(folder / "in", NAMES)
    before = result_for(lines[0]) + made(lines, 3)
    (folder / "out").write_bytes(before)
    index = read_input(folder / "in")
    output = OutputFile(folder / "out")
    found = resume(folder / "out", index)
    output.keep(found)
    return Work(index, output, Tally(len(index), found.answered - found.failed, found.failed, 0.0)), before


def test_an_output_that_there_is_no_room_to_copy_stays_as_it_was(tmp_path: Path) -> None:
    work, before = opened_with_a_failure(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with work.output as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
        try:
            with pytest.raises(CannotReplace, match=r"cannot be replaced \(.*\); make room for a copy beside it"):
                file.begin()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "out").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def raising(error: BaseException) -> Callable[[Path, Path], Path]:
    """Instead of ``Path.replace``."""

    def replace(self: Path, target: Path) -> Path:
        raise error

    return replace


FIXES = [
    (errno.EBUSY, "mount its folder instead of the file alone"),
    (errno.EACCES, "let this user write in its folder"),
    (errno.ENOSPC, "make room for a copy beside it"),
    (errno.EIO, "go on with a copy of it in another folder"),
]


@pytest.mark.parametrize(("number", "fix"), FIXES)
def test_where_it_can_only_be_appended_to_failures_stay_as_settled(
    number: int, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, before = opened_with_a_failure(tmp_path)
    monkeypatch.setattr(Path, "replace", raising(OSError(number, "why")))
    with work.output as file:
        work.begin()
        work.begin()
        said = capsys.readouterr().err
        assert said == f"{tmp_path / 'out'}: not asking again 1 that failed before: the file cannot be replaced (why); {fix}\n"
        assert (work.tally.done, work.tally.failed, work.tally.already, work.tally.again) == (1, 1, 2, 0)
        assert work.index.left == work.tally.left == len(NAMES) - 2
        file.append(b"a result\n")
        work.end()
    assert (tmp_path / "out").read_bytes() == before + b"a result\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_what_ends_the_copying_leaves_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, before = opened_with_a_failure(tmp_path)
    monkeypatch.setattr(Path, "replace", raising(KeyboardInterrupt()))
    with work.output as file:
        with pytest.raises(KeyboardInterrupt):
            file.begin()
        with pytest.raises(KeyboardInterrupt):
            write_errors(tmp_path / "out", tmp_path / "errors")
    assert (tmp_path / "out").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_links_in_the_way_of_a_copy_are_not_followed(tmp_path: Path) -> None:
    work, before = opened_with_a_failure(tmp_path)
    (tmp_path / "mine").write_bytes(b"mine")
    for name in (".out.anew", f".errors.{os.getpid()}"):
        (tmp_path / name).symlink_to("mine")
    with work.output as file:
        assert write_errors(tmp_path / "out", tmp_path / "errors") == 1
        assert file.begin() == 1
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert (tmp_path / "out").read_bytes() + (tmp_path / "errors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors", "in", "mine", "out"]


def test_what_is_copied_is_what_was_opened_whatever_has_its_name_by_now(tmp_path: Path) -> None:
    work, before = opened_with_a_failure(tmp_path)
    (tmp_path / "out").rename(tmp_path / "moved")
    with work.output as file:
        assert file.begin() == 1
        assert file.put_back(work.index) == 1
    assert (tmp_path / "out").read_bytes() == before


def test_two_runs_do_not_write_the_same_file(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with OutputFile(output) as first:
        first.append(b"one\n")
        with pytest.raises(BadInput, match="another run is writing it"):
            OutputFile(output)
    with OutputFile(output) as second:
        second.append(b"two\n")
    assert output.read_bytes() == b"one\ntwo\n"


def test_a_file_that_nothing_came_of_does_not_stay(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "out"):
        assert (tmp_path / "out").exists()
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").touch()
    with OutputFile(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize("place", ["folder", "nowhere/out"])
def test_a_file_that_cannot_be_had(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        OutputFile(tmp_path / place)


def test_a_disk_that_takes_half_a_line_keeps_none_of_it(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with OutputFile(tmp_path / "out") as file:
        file.append(b"whole\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
        try:
            with pytest.raises(BadInput, match=r"out: cannot be written: .*; make room and run the same command again"):
                file.append(b"torn line\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        file.append(b"next\n")
    assert (tmp_path / "out").read_bytes() == b"whole\nnext\n"


def test_errors_are_copied_to_a_file_of_their_own(tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", NAMES)
    made = [result_for(line, failed=place in (1, 4)) for place, line in enumerate(lines)]
    (tmp_path / "out").write_bytes(b"".join(made))
    (tmp_path / "errors").write_text("of an earlier run")
    assert write_errors(tmp_path / "out", tmp_path / "errors") == 2
    assert (tmp_path / "errors").read_bytes() == made[1] + made[4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors", "in", "out"]
    with pytest.raises(BadInput, match=r"--errors .*: cannot be written"):
        write_errors(tmp_path / "out", tmp_path / "nowhere" / "errors")


def test_half_a_surrogate_pair_in_an_answer_is_written(tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", ["\ud800", "x"])
    (tmp_path / "out").write_bytes(result_for(lines[0]))
    index = read_input(tmp_path / "in")
    resume(tmp_path / "out", index)
    assert index.answered(0)
    assert index.digest(1) == digest_of(lines[1])
