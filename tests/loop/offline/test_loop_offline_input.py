"""The input: every mistake is named with its line and field before anything is sent, and a million lines fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from offline_world import entry, write_input

from setpoint.loop.errors import BadInput
from setpoint.loop.offline import request_line
from setpoint.loop.offline.input_index import read_input
from setpoint.loop.offline.request_line import digest_of

FINE = json.dumps(entry("fine"))
DEEP = '{"custom_id": ' + "[" * 100_000 + "]" * 100_000 + "}"


def changed(**fields: object) -> str:
    return json.dumps(entry("other") | fields)


MISTAKES = [
    ("{", "the line: not JSON"),
    ("7", "the line: found 7, must be a JSON object"),
    ('{"custom_id": NaN}', "the line: not JSON: NaN is no number"),
    (changed().replace('"prompt": "other"', '"temperature": 1e999'), "the line: not JSON: the number 1e999 is too large"),
    (DEEP, "the line: "),
    (changed(custom_id=None), "custom_id: found nothing, must be a string"),
    (changed(custom_id=""), 'custom_id: found "", must be a string'),
    (changed(custom_id="x" * 600), "custom_id: found "),
    (changed(custom_id="fine"), "custom_id: found that of line 1 again"),
    (changed(method="GET"), 'method: found "GET", must be "POST"'),
    (changed(url="/v1/embeddings"), 'url: found "/v1/embeddings", must be /v1/chat/completions or /v1/completions'),
    (changed(url=["/v1/completions"]), "url: found "),
    (changed(body=[1]), "body: found [1], must be the JSON object"),
    (changed(body={"stream": True}), "body.stream: found true"),
    (changed(body={"model": 5}), "body.model: found 5"),
]


@pytest.mark.parametrize(("line", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_named_with_its_line_and_field(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f"{FINE}\n\n{line}\n")
    with pytest.raises(BadInput) as refused:
        read_input(path)
    assert str(refused.value).startswith(f"{path}: line 3: {words}")
    assert len(str(refused.value)) < 400


def test_bytes_that_are_no_text_and_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(BadInput, match="line 1: the line: not UTF-8"):
        read_input(path)
    monkeypatch.setattr(request_line, "LINE_BYTES_MAX", 1 << 20)
    path.write_bytes(FINE.encode() + b"\n" + b"x" * (1 << 21))
    with pytest.raises(BadInput, match="line 2: the line: longer than 1 MiB"):
        read_input(path)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_nothing_to_do_is_a_mistake(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="found no request"):
        read_input(path)


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_input(tmp_path / "nothing")
    with pytest.raises(BadInput, match="not a regular file"):
        read_input(tmp_path)


@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=30),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
def test_repeated_names_are_found_wherever_they_are(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], ending: str, last_ends: bool
) -> None:
    path = tmp_path_factory.mktemp("input") / "in.jsonl"
    lines = [json.dumps(entry(name)) for name in names]
    path.write_bytes((ending.join(lines) + (ending if last_ends else "")).encode())
    second = next((place for place, name in enumerate(names) if name in names[:place]), None)
    if second is None:
        index = read_input(path)
        assert [request.custom_id for _, request in index.unanswered()] == names
        assert [index.position_of(digest_of(line.encode())) for line in lines] == list(range(len(names)))
        assert index.position_of(digest_of(b"another")) is None
    else:
        per_line = ending.count("\n")
        first = names.index(names[second])
        with pytest.raises(BadInput, match=rf"line {1 + second * per_line}: .* of line {1 + first * per_line} again"):
            read_input(path)


@pytest.mark.parametrize("change", ["other", "shorter", "longer"])
def test_an_input_that_changes_meanwhile_ends_the_run(change: str, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write_input(path, "abc")
    index = read_input(path)
    write_input(path, {"other": "abd", "shorter": "ab", "longer": "abcd"}[change])
    with pytest.raises(BadInput, match="while the batch ran"):
        list(index.unanswered())


def test_models_asked_for_are_known_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    models: list[Any] = ["b", None, "a", "b"]
    lines = [entry(str(place)) | {"body": {"model": model}} for place, model in enumerate(models)]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_input(path).models == ("b", None, "a")
    path.write_text("\n".join(json.dumps(entry(str(place), model=f"m{place}")) for place in range(65)))
    with pytest.raises(BadInput, match=r"line 65: body\.model: more than 64"):
        read_input(path)
