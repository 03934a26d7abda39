"""The run folder: a name never leads out of ``runs``, and what cannot be written is told before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.loop.errors import BadInput
from setpoint.loop.folder import RUNS, claim, default_folder, require_writable_file


@given(st.text())
def test_every_name_is_one_folder_in_runs(name: str) -> None:
    folder = default_folder(name)
    assert folder.parent == RUNS
    assert folder.name not in ("", ".", "..")


def test_a_claimed_folder_is_there_and_empty(tmp_path: Path) -> None:
    claim(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    claim(tmp_path / "a" / "b")


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "nul\0"])
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="--output "):
        claim(tmp_path / name)


def test_a_file_is_looked_at_before_it_is_written(tmp_path: Path) -> None:
    require_writable_file("csv", tmp_path / "new" / "file.csv")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    for path, words in ((tmp_path, "this is a folder"), (tmp_path / "file" / "below.csv", "cannot be made")):
        with pytest.raises(BadInput, match=rf"--csv .*{words}"):
            require_writable_file("csv", path)
