"""Where runs stand today, how they are named and filtered, and how a requirement went over time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stored_runs import CONFIG, report_of, stored

from setpoint.loop.errors import BadInput
from setpoint.loop.store.entry import entry_of
from setpoint.loop.store.forgetting import delete_run
from setpoint.loop.store.index import RunIndex
from setpoint.loop.store.listing import State, filters, folder_of, found_run, listed, lost, since_s, state_of
from setpoint.loop.store.register import reindex
from setpoint.loop.store.trend import BARS, sparkline, trend
from setpoint.record import Verdict
from setpoint.requirement import example_text

NOW_S = 1_700_000_000.0


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunIndex:
    """An empty index, the one that ``folder_of`` uses too."""
    monkeypatch.setenv("SETPOINT_RUNS_INDEX", str(tmp_path / "runs.sqlite3"))
    return RunIndex()


def add(index: RunIndex, folder: Path) -> str:
    """Register the run in ``folder`` and return its id."""
    entry = entry_of(folder)
    index.add([entry])
    return entry.id


def test_a_moved_run_is_found_again_and_a_deleted_one_is_said(index: RunIndex, tmp_path: Path) -> None:
    run = add(index, stored(tmp_path / "runs" / "a"))
    shutil.move(tmp_path / "runs" / "a", tmp_path / "runs" / "moved")
    assert [state_of(each) for each in index.entries()] == [State.GONE]
    with pytest.raises(BadInput, match=r"is not there any more; if it was moved, 'setpoint runs --reindex DIR'"):
        folder_of(run)
    reindex(index, tmp_path / "runs")
    assert folder_of(run) == tmp_path / "runs" / "moved"
    shutil.rmtree(tmp_path / "runs")
    assert [each.id for each in lost(index.entries())] == [run]
    assert index.forget([run]) == 1
    assert index.entries() == []


def test_a_run_that_was_written_over_stays_in_the_trend(index: RunIndex, tmp_path: Path) -> None:
    first = add(index, stored(tmp_path / "a", NOW_S))
    second = add(index, stored(tmp_path / "a", NOW_S + 9))
    states = {each.id: state for each, state in listed(index.entries(), filters(None, None, None, None, None, NOW_S), 9)}
    assert states == {first: State.REPLACED, second: State.HERE}
    with pytest.raises(BadInput, match="holds another run now"):
        folder_of(first)
    assert [point.entry.id for point in trend(index.entries(), "chat", quantity=None, phase="sustained", kind=None).points] == [
        first,
        second,
    ]
    with pytest.raises(BadInput, match="its files stay"):
        delete_run(found_run(index, first))


def test_runs_are_named_by_a_folder_an_id_latest_or_previous(index: RunIndex, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"latest: no run is known; fill the index"):
        folder_of("latest")
    old = add(index, stored(tmp_path / "old", NOW_S))
    other = add(index, stored(tmp_path / "other", NOW_S + 1, report_of("pages")))
    new = add(index, stored(tmp_path / "new", NOW_S + 2))
    assert folder_of("latest") == folder_of(new[:6]) == tmp_path / "new"
    assert found_run(index, "previous").id == old
    assert folder_of(str(tmp_path / "other")) == tmp_path / "other" == folder_of(other)
    assert folder_of("runs/not there") == Path("runs/not there")
    with pytest.raises(BadInput, match=r"abcdef: no run is called that; 'setpoint runs' lists the ids"):
        folder_of("abcdef")
    shutil.rmtree(tmp_path / "new")
    with pytest.raises(BadInput, match="previous: no measure of pages is known from before"):
        folder_of("previous")
    assert folder_of("latest") == tmp_path / "other"


def test_filters_leave_what_is_wanted(index: RunIndex, tmp_path: Path) -> None:
    add(index, stored(tmp_path / "a", NOW_S - 3600 * 30, report_of("chat")))
    add(index, stored(tmp_path / "b", NOW_S - 60, report_of("chat-2", verdict=Verdict.MISSED)))
    add(index, stored(tmp_path / "c", NOW_S - 60, report_of("pages", kind="tune", machine={"cpu": "Z80"})))

    def names(**wanted: str) -> set[str]:
        options = {name: wanted.get(name) for name in ("requirement", "kind", "machine", "verdict", "since")}
        return {each.name for each, _ in listed(index.entries(), filters(**options, now_s=NOW_S), 9)}

    assert names() == {"chat", "chat-2", "pages"}
    assert names(requirement="chat") == {"chat", "chat-2"}
    assert names(verdict="missed") == {"chat-2"}
    assert names(kind="tune") == names(machine="z80") == {"pages"}
    assert names(machine="this-machine") == {"chat", "chat-2"}
    assert names(since="1d") == {"chat-2", "pages"}
    for option, value in (("kind", "x"), ("verdict", "x"), ("since", "soon"), ("since", "2026-13-40")):
        with pytest.raises(BadInput, match=f"--{option} {value}: allowed"):
            names(**{option: value})


def test_since_takes_dates_and_durations() -> None:
    assert since_s("2d", NOW_S) == NOW_S - 2 * 86_400
    assert since_s("90min", NOW_S) == NOW_S - 5400
    assert since_s("2023-11-14T22:13:20+00:00", NOW_S) == NOW_S


def test_only_the_files_of_a_run_are_deleted(index: RunIndex, tmp_path: Path) -> None:
    run = found_run(index, add(index, stored(tmp_path / "a")))
    (tmp_path / "a" / "mine.txt").write_text("mine")
    delete_run(run)
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["mine.txt"]
    other = found_run(index, add(index, stored(tmp_path / "b")))
    delete_run(other)
    assert not (tmp_path / "b").exists()
    delete_run(other)


def test_what_tune_measured_on_its_way_is_part_of_its_run(index: RunIndex, tmp_path: Path) -> None:
    run = found_run(index, add(index, stored(tmp_path / "runs" / "a", report=report_of(kind="tune"))))
    stored(tmp_path / "runs" / "a" / "measured" / "01-continuous-8")
    exports = tmp_path / "runs" / "a" / "exports"
    exports.mkdir()
    (exports / "vllm.sh").write_text("vllm serve")
    assert reindex(RunIndex(tmp_path / "other.sqlite3"), tmp_path / "runs").runs == 1
    delete_run(run)
    assert not (tmp_path / "runs" / "a").exists()


def test_a_trend_says_what_changed_between_runs(index: RunIndex, tmp_path: Path) -> None:
    add(index, stored(tmp_path / "a", NOW_S, report_of(goodput=0.9)))
    add(index, stored(tmp_path / "b", NOW_S + 1, report_of(goodput=0.5, config=CONFIG | {"max_running": 4})))
    add(index, stored(tmp_path / "c", NOW_S + 2, report_of(goodput=1.0, machine={"versions": {"setpoint": "9"}})))
    add(index, stored(tmp_path / "other", NOW_S + 3, report_of("pages")))
    found = trend(index.entries(), "chat", quantity=None, phase="sustained", kind=None)
    assert [point.changed for point in found.points] == [(), ("configuration",), ("version", "configuration")]
    assert found.series("goodput_fraction") == [0.9, 0.5, 1.0]
    assert found.series("p99") == pytest.approx([0.15 / 0.9, 0.3, 0.15])
    assert found.warnings == (
        "These runs are of 2 versions and 2 configurations: a step in the figures may be theirs; see what changed beside each.",
    )
    with pytest.raises(BadInput, match=r"nothing: no tune or measure run of it is known; there are chat, pages"):
        trend(index.entries(), "nothing", quantity=None, phase="sustained", kind=None)


def test_a_trend_of_a_file_says_that_the_requirement_is_another_now(index: RunIndex, tmp_path: Path) -> None:
    file = tmp_path / "coding.yaml"
    file.write_text(example_text("coding-assistant"), encoding="utf-8")
    add(index, stored(tmp_path / "a", NOW_S, report_of("coding-assistant")))
    found = trend(index.entries(), str(file), quantity="ttft", phase="sustained", kind=None)
    assert found.warnings == ("None of these runs was of the requirement as the file has it now.",)


@example([0.0, 5e-324, 1e-323])
@example([-1.7e308, 0.0, 1.7e308])
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), max_size=30))
def test_bars_are_as_high_as_their_values(values: list[float | None]) -> None:
    import math

    bars = sparkline(values)
    known = [place for place, value in enumerate(values) if value is not None and math.isfinite(value)]
    if not known:
        assert bars == ""
        return
    assert len(bars) == len(values)
    assert all((bars[place] == " ") == (place not in known) for place in range(len(values)))
    for a in known:
        for b in known:
            if values[a] <= values[b]:  # type: ignore[operator]
                assert BARS.index(bars[a]) <= BARS.index(bars[b])
