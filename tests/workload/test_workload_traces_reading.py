"""Every format is recognised by what it contains and read row by row; what is wrong is counted, named, or refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_trace_files import AZURE_HEADING, azure, burstgpt, mooncake, own, talk, write

from setpoint.record.columns import REQUEST_COLUMNS
from setpoint.workload.traces import FORMATS, Trace, TraceError, read_trace
from setpoint.workload.traces.own import NEEDED
from setpoint.workload.traces.rows import MAX_LINE_CHARS

ROWS = [(1.25, 374, 44), (5.5, 396, 109), (5.5, 879, 55), (60.125, 91, 16)]


def columns_of(trace: Trace) -> tuple[list[float] | None, list[int], list[int]]:
    times = None if trace.times_s is None else [round(time_s, 6) for time_s in trace.times_s.tolist()]
    return times, trace.prompt_tokens.tolist(), trace.output_tokens.tolist()


EXPECTED = ([0.0, 4.25, 4.25, 58.875], [374, 396, 879, 91], [44, 109, 55, 16])


@pytest.mark.parametrize(("zone", "digits"), [("", 7), ("+00:00", 6), ("Z", 3)])
def test_azure_of_either_year(tmp_path: Path, zone: str, digits: int) -> None:
    trace = read_trace(azure(tmp_path / "a.csv", ROWS, zone=zone, digits=digits))
    assert (trace.format, trace.requests, trace.exact) == ("azure", 4, True)
    assert columns_of(trace) == EXPECTED
    assert trace.duration_s == pytest.approx(58.875 * 4 / 3)
    assert trace.rate_rps == pytest.approx(3 / 58.875)


def test_azure_with_other_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufefftimestamp,NumImages,Context_Tokens,Generated Tokens\n12.5,1,3,4\n13,0,5,6\n")
    assert columns_of(read_trace(path)) == ([0.0, 0.5], [3, 5], [4, 6])


def test_burstgpt_leaves_failures_out_and_says_so(tmp_path: Path) -> None:
    rows = [(5, 472, 18), (45, 1087, 230), (46, 100, 0), (118, 417, 276)]
    trace = read_trace(burstgpt(tmp_path / "b.csv", rows))
    assert trace.format == "burstgpt"
    assert columns_of(trace) == ([0.0, 40.0, 113.0], [472, 1087, 417], [18, 230, 276])
    assert "1 of 4 requests were left out: they have no output tokens, they failed." in trace.notes


def test_mooncake_has_blocks(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"timestamp": 27000, "input_length": 1100, "output_length": 52, "hash_ids": [0, 1, 2]},
        {"timestamp": 30500, "input_length": 700, "output_length": 26, "hash_ids": [0, 3]},
        {"created_time": 30000, "input_tokens": 40, "output_tokens": 9, "hash_ids": ["9f86d081884c7d65"]},
    ]
    trace = read_trace(mooncake(tmp_path / "m.jsonl", rows))
    assert (trace.format, columns_of(trace)) == ("mooncake", ([0.0, 3.0, 3.5], [1100, 40, 700], [52, 9, 26]))
    assert trace.blocks is not None
    first, middle, last = (trace.blocks.of(index) for index in range(3))
    assert [block.number for block in first] == [0, 1, 2]
    assert [block.number for block in last] == [0, 3]
    assert {block.tokens for block in (*first, *middle, *last)} == {512}
    assert middle[0].number > 2
    assert "1 rows were not in order of time; they were put in order." in trace.notes


def test_mooncake_without_hashes_has_no_blocks(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"timestamp": 0, "input_length": 5, "output_length": 5},
        {"timestamp": 1.5, "input_length": 6, "output_length": 6},
    ]
    trace = read_trace(mooncake(tmp_path / "m.jsonl", rows))
    assert trace.blocks is None
    assert trace.times_s is not None
    assert trace.times_s.tolist() == [0.0, 0.0015]
    assert any("2 requests have no hash_ids" in note for note in trace.notes)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("as_lines", [False, True])
def test_sharegpt_has_conversations(tmp_path: Path, as_lines: bool) -> None:
    entries = [
        talk("Hello, who are you?", "A model."),
        talk("A", "B" * 42, "C", "D"),
        {"messages": [said("system", "Be kind."), said("user", "Hi"), said("assistant", "Yo")]},
        talk("nobody answers"),
    ]
    text = "\n".join(map(json.dumps, entries)) if as_lines else json.dumps(entries, indent=1)
    path = tmp_path / "s.json"
    path.write_text(text)
    trace = read_trace(path)
    assert (trace.format, trace.requests, trace.exact, trace.times_s) == ("sharegpt", 3, False, None)
    assert (trace.duration_s, trace.rate_rps) == (None, None)
    assert [len(turns) for turns in trace.conversations] == [1, 2, 1]
    assert trace.conversations[2][0].prompt == "Be kind.\n\nHi"
    assert trace.output_tokens.tolist() == [2, 10, 1]
    assert "1 of 4 conversations were left out: nobody asks and is answered in them." in trace.notes


def test_sharegpt_is_read_however_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("setpoint.workload.traces.sharegpt._READ_CHARS", 7)
    path = tmp_path / "s.json"
    path.write_text(json.dumps([talk(f"question {number} \u20ac", f"answer {number}") for number in range(50)]))
    assert [turns[0].answer for turns in read_trace(path).conversations] == [f"answer {number}" for number in range(50)]


def test_own_requests_are_replayed_with_those_that_were_refused(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "candidate": ["a", "a", "a", "b"],
        "intended_s": [3.0, 1.0, 2.0, 0.0],
        "prompt_tokens": [100, 200, 300, 7],
        "output_tokens": [10, 20, None, 7],
        "cached_tokens": [64, None, 0, 7],
        "profile": ["chat", "chat", "chat", "chat"],
    }
    trace = read_trace(own(tmp_path / "requests.parquet", columns))
    assert (trace.format, columns_of(trace)) == ("setpoint", ([0.0, 1.0, 2.0], [200, 300, 100], [20, 15, 10]))
    assert trace.blocks is not None
    assert [len(trace.blocks.of(index)) for index in range(3)] == [0, 0, 1]
    assert trace.blocks.of(2)[0].tokens == 64
    assert any("1 requests had no answer" in note for note in trace.notes)
    assert any("left out are b" in note for note in trace.notes)
    assert read_trace(tmp_path).requests == 3


def test_own_columns_are_those_that_are_written() -> None:
    assert set(NEEDED) <= set(REQUEST_COLUMNS.names)
    assert {"candidate", "cached_tokens", "profile"} <= set(REQUEST_COLUMNS.names)


BAD_ROWS = ["2023-11-16 18:00:59,abc,5", "nonsense,5,5", "2023-11-16 18:00:59,5", "2023-11-16 18:00:59,-5,5", "\x00\x01,\x02"]


def test_bad_rows_are_left_out_counted_and_named(tmp_path: Path) -> None:
    rows = [(float(second), 100 + second, 9) for second in range(59)]
    path = azure(tmp_path / "a.csv", rows)
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:10], BAD_ROWS[0], "", *lines[10:20], BAD_ROWS[2], *lines[20:]]))
    trace = read_trace(path)
    assert trace.requests == 59
    note = next(note for note in trace.notes if "left out" in note)
    assert note.startswith("2 of 61 lines were left out as unreadable (line 11: contexttokens is 'abc'")
    assert "line 23: it has 2 fields, the heading has 3" in note


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_too_many_bad_rows_are_an_error_that_names_the_first(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path / "a.csv", [AZURE_HEADING, "2023-11-16 18:00:00,5,5", bad, "2023-11-16 18:00:01,5,5"])
    with pytest.raises(TraceError, match=r"1 of 3 lines cannot be read, allowed are 5% \(line 3: "):
        read_trace(path)


@pytest.mark.parametrize(
    "bad",
    [
        '{"timestamp": 1}',
        '{"timestamp": "x", "input_length": 1, "output_length": 1}',
        '{"timestamp": 1, "input_length": 1.5, "output_length": 1}',
        '{"timestamp": 1, "input_length": true, "output_length": 1}',
        '{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": 5}',
        '{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [[1]]}',
        "[1]",
        "{",
        "[" * 5000,
        "x" * (MAX_LINE_CHARS + 5),
    ],
)
def test_bad_json_lines_are_named(tmp_path: Path, bad: str) -> None:
    good = '{"timestamp": 1, "input_length": 10, "output_length": 1, "hash_ids": [1]}'
    with pytest.raises(TraceError, match=r"1 of 3 lines cannot be read, allowed are 5% \(line 2: "):
        read_trace(write(tmp_path / "m.jsonl", [good, bad, good]))
    with_many = write(tmp_path / "n.jsonl", [good] * 30 + [bad] + [good] * 30)
    assert read_trace(with_many).requests == 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file; a trace is one of azure"),
        (b"  \n\n", "an empty file"),
        (b"a,b,c\n1,2,3\n", "found text that begins with 'a,b,c'; a trace is one of azure (CSV with TIMESTAMP"),
        (b'{"a": 1, "b": 2}\n', "found JSON objects with the keys a, b; a trace is one of"),
        (b'{"a": ', "found broken JSON that begins with"),
        (gzip.compress(b"x"), "found a compressed file; unpack it first"),
        (b"\x7fELF\0\0\0\0", "found a binary file"),
        (b"PAR1garbage", "cannot be read as Parquet"),
        (b"[1, 2, 3]", "found text that begins with '[1, 2, 3]'"),
        (b"[project]\nname = 1", "found text that begins with '[project]'"),
        (b'[{"a": 1}, {"b": 2}]', "2 of 2 conversations cannot be read"),
        (b'[{"conversations": []}]', "no request in it to replay (all 1 requests in it failed)"),
        (b'[{"conversations": [{"from": "human"', "broken JSON at"),
        (AZURE_HEADING.encode(), "no request in it to replay (it has a heading and no rows)"),
        ((AZURE_HEADING + "\n2023-11-16 18:00:00,5,0\n").encode(), "all 1 requests in it failed"),
    ],
)
def test_what_is_no_trace_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_files_and_formats_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="there is no such file; a trace is one of azure"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(TraceError, match=r"^[^:]+: a folder without requests\.parquet"):
        read_trace(tmp_path)
    with pytest.raises(TraceError, match="trace format alibaba: there is no such format; allowed: azure, mooncake"):
        read_trace(azure(tmp_path / "a.csv", ROWS), format="alibaba")
    with pytest.raises(TraceError, match="the heading has no columns timestamp, requesttokens"):
        read_trace(tmp_path / "a.csv", format="burstgpt")
    columns: dict[str, list[Any]] = {"intended_s": [1.0], "prompt_tokens": [1]}
    with pytest.raises(TraceError, match=r"a Parquet file without output_tokens; a requests\.parquet of setpoint"):
        read_trace(own(tmp_path / "x.parquet", columns))
    with pytest.raises(TraceError, match="no request in it has output tokens"):
        read_trace(own(tmp_path / "y.parquet", {**columns, "output_tokens": [0]}))


def reads_or_explains(path: Path, format: str | None) -> None:
    message = ""
    try:
        assert read_trace(path, format=format).requests > 0
    except TraceError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@given(data=st.binary(max_size=300), format=st.sampled_from([None, *FORMATS]))
def test_any_bytes_are_a_trace_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes, format: str | None) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    reads_or_explains(path, format)


@given(cut=st.integers(0, 400), insert=st.binary(max_size=8))
def test_any_damage_is_a_trace_or_one_line(tmp_path_factory: pytest.TempPathFactory, cut: int, insert: bytes) -> None:
    folder = tmp_path_factory.mktemp("damage")
    files = [
        azure(folder / "a.csv", ROWS * 4),
        mooncake(folder / "m", [{"timestamp": 1, "input_length": 9, "output_length": 9, "hash_ids": [1, 2]}] * 6),
        write(folder / "s", [json.dumps([talk("a", "b", "c", "d")] * 4)]),
        own(folder / "o", {"intended_s": [1.0], "prompt_tokens": [9], "output_tokens": [9]}),
    ]
    for path in files:
        content = path.read_bytes()
        place = cut % len(content)
        path.write_bytes(content[:place] + insert + content[place + 2 :])
        reads_or_explains(path, None)


def test_bailian_traces_have_seconds_and_short_blocks(tmp_path: Path) -> None:
    rows = [
        {"chat_id": at, "parent_chat_id": -1, "timestamp": 61.0 + at, "input_length": 48, "output_length": 5, "type": "text"}
        | {"turn": 1, "hash_ids": [7, 8, 9 + at]}
        for at in range(3)
    ]
    trace = read_trace(mooncake(tmp_path / "qwen.jsonl", rows))
    assert columns_of(trace) == ([0.0, 1.0, 2.0], [48, 48, 48], [5, 5, 5])
    assert trace.blocks is not None
    assert np.unique(trace.blocks.sizes).tolist() == [16]
