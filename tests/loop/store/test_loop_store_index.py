"""The index of runs says the same whatever the order it was filled in, by however many processes, and after damage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_runs import report_of, stored

from setpoint.loop.store.entry import entry_of
from setpoint.loop.store.errors import StoreError
from setpoint.loop.store.index import RunIndex, index_file
from setpoint.loop.store.register import register_quietly, reindex

REGISTER = """
import sys
from pathlib import Path
from setpoint.loop.store.register import register_quietly
print("ready", flush=True)
sys.stdin.readline()
for folder in sorted(Path(sys.argv[1]).iterdir()):
    register_quietly(folder, print)
"""


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_any_order_of_registrations_lists_what_a_walk_over_the_folders_lists(
    runs: list[tuple[int, int]], random: object, twice: bool
) -> None:
    with TemporaryDirectory() as place:
        root = Path(place)
        folders = [
            stored(root / "runs" / f"{number}", 1e9 + second, report_of(f"r{name}"))
            for number, (second, name) in enumerate(runs)
        ]
        walked = RunIndex(root / "walked.sqlite3")
        assert reindex(walked, root / "runs").runs == len(folders)
        order = [*folders, *folders] if twice else list(folders)
        random.shuffle(order)  # type: ignore[attr-defined]
        grown = RunIndex(root / "grown.sqlite3")
        for folder in order:
            grown.add([entry_of(folder)])
        assert grown.entries() == walked.entries()
        assert len(grown.entries()) == len(set(runs))
        assert reindex(grown, root / "runs").new == 0


def test_processes_that_register_at_once_lose_nothing(tmp_path: Path) -> None:
    for process in range(3):
        for number in range(8):
            stored(tmp_path / f"{process}" / f"{number}", 1e9 + 100 * process + number)
    environment = {**os.environ, "SETPOINT_RUNS_INDEX": str(tmp_path / "index" / "runs.sqlite3")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER, str(tmp_path / f"{process}")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(3)
    ]
    for each in started:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in started:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    assert [each.communicate()[0] for each in started] == ["", "", ""]
    index = RunIndex(tmp_path / "index" / "runs.sqlite3")
    assert len(index.entries()) == 24
    assert len(index.folders_file.read_text().splitlines()) == 24


@pytest.mark.parametrize("damage", ["not a database at all", "cut", "no table"])
def test_a_damaged_index_is_filled_again_and_one_line_says_so(tmp_path: Path, damage: str) -> None:
    file, said = tmp_path / "runs.sqlite3", list[str]()
    index = RunIndex(file)
    index.add([entry_of(stored(tmp_path / f"{number}", 1e9 + number)) for number in range(40)])
    before = index.entries()
    shutil.rmtree(tmp_path / "39")
    if damage == "cut":
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "no table":
        file.unlink()
        import sqlite3

        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA user_version = 1")
    else:
        file.write_text(damage)
    again = RunIndex(file, say=said.append)
    assert again.entries() == before[1:]
    (line,) = said
    assert "was damaged: filled again from 39 known run folders" in line
    assert file.with_name("runs.sqlite3.damaged").exists()
    assert RunIndex(file, say=said.append).entries() == before[1:]
    assert len(said) == 1


def test_an_index_of_a_later_setpoint_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    file = tmp_path / "runs.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE more (what TEXT)")
        connection.execute("PRAGMA user_version = 9")
    whole = file.read_bytes()
    with pytest.raises(StoreError, match=r"written by a later setpoint \(version 9, this one reads 1\): update setpoint"):
        RunIndex(file)
    assert file.read_bytes() == whole


def test_a_run_stands_though_the_index_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv("SETPOINT_RUNS_INDEX", str(tmp_path / "in the way" / "runs.sqlite3"))
    said: list[str] = []
    folder = stored(tmp_path / "run")
    register_quietly(folder, said.append)
    (line,) = said
    assert line.startswith("this run is not in the index of runs: ")
    assert "SETPOINT_RUNS_INDEX" in line
    monkeypatch.delenv("SETPOINT_RUNS_INDEX")
    register_quietly(tmp_path / "no run", said.append)
    assert str(tmp_path / "no run") in said[1]


def test_the_index_is_in_the_data_folder_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path))
    assert index_file() == tmp_path / "runs.sqlite3"
    monkeypatch.setenv("SETPOINT_RUNS_INDEX", str(tmp_path / "other"))
    assert index_file() == tmp_path / "other"


def test_of_two_copies_of_a_run_one_is_listed(tmp_path: Path) -> None:
    first = stored(tmp_path / "b")
    shutil.copytree(first, tmp_path / "a")
    index = RunIndex(tmp_path / "runs.sqlite3")
    index.add([entry_of(tmp_path / "b"), entry_of(tmp_path / "a"), entry_of(tmp_path / "b")])
    assert [each.folder for each in index.entries()] == [str((tmp_path / "a").resolve())]
    shutil.rmtree(tmp_path / "a")
    index.add([entry_of(tmp_path / "b")])
    assert [each.folder for each in index.entries()] == [str(first.resolve())]


def test_what_is_no_run_is_left_out_and_said(tmp_path: Path) -> None:
    stored(tmp_path / "runs" / "good")
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "report.json").write_text("{")
    done = reindex(RunIndex(tmp_path / "runs.sqlite3"), tmp_path / "runs")
    assert (done.runs, done.new, [folder.name for folder, _ in done.refused]) == (1, 1, ["bad"])
