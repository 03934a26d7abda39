"""Where a model comes from: every wrong source gets one message that says what would be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from setpoint.engine.models import DEFAULT_CONTEXT, ModelNotFound, cache_root, resolve_model
from setpoint.engine.request import EngineFailed


def folder(at: Path, config: str | None = None) -> Path:
    at.mkdir()
    (at / "openvino_model.xml").write_text("<net/>")
    (at / "openvino_tokenizer.xml").write_text("<net/>")
    if config is not None:
        (at / "config.json").write_text(config)
    return at


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    resolved = resolve_model(str(folder(tmp_path / "mine", json.dumps({"max_position_embeddings": 4096}))))
    assert (resolved.name, resolved.folder, resolved.context_tokens) == ("mine", tmp_path / "mine", 4096)


@pytest.mark.parametrize("config", [None, "{}"])
def test_a_folder_that_does_not_say_its_context_gets_the_default(tmp_path: Path, config: str | None) -> None:
    assert resolve_model(str(folder(tmp_path / "mine", config))).context_tokens == DEFAULT_CONTEXT


@pytest.mark.parametrize(
    "config",
    [
        {"n_positions": 1024},
        {"max_sequence_length": 1024, "text_config": {}},
        {"text_config": {"max_position_embeddings": 1024}},
    ],
    ids=str,
)
def test_the_context_goes_by_several_names(tmp_path: Path, config: dict[str, object]) -> None:
    """Seen: a model with 1,024 positions was given 2,048."""
    assert resolve_model(str(folder(tmp_path / "mine", json.dumps(config)))).context_tokens == 1024


def test_a_model_in_several_files_is_asked_for_by_the_first_and_has_to_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETPOINT_CACHE", str(tmp_path / "cache"))
    first, second = (tmp_path / f"big-{number:05d}-of-00002.gguf" for number in (1, 2))
    for file in (first, second):
        file.write_bytes(b"GGUF nonsense")
    with pytest.raises(ModelNotFound, match=r"give the first, big-00001-of-00002\.gguf"):
        resolve_model(str(second))
    with pytest.raises(ModelNotFound, match="cannot be read as GGUF"):
        resolve_model(str(first))
    second.unlink()
    with pytest.raises(ModelNotFound, match=r"in 2 files, and big-00002-of-00002\.gguf is not beside it"):
        resolve_model(str(first))


@pytest.mark.parametrize("config", ["{", "[]", '{"max_position_embeddings": null}', '{"max_position_embeddings": "many"}'])
def test_a_broken_config_is_named(tmp_path: Path, config: str) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json: cannot be read"):
        resolve_model(str(folder(tmp_path / "mine", config)))


@pytest.mark.parametrize("missing", ["openvino_model.xml", "openvino_tokenizer.xml"])
def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path: Path, missing: str) -> None:
    (folder(tmp_path / "mine") / missing).unlink()
    with pytest.raises(ModelNotFound, match=f"no {missing} in it"):
        resolve_model(str(tmp_path / "mine"))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"x")
    with pytest.raises(ModelNotFound, match=r"give a \.gguf file or a folder"):
        resolve_model(str(file))


@pytest.mark.parametrize("source", ["no-such-model", "./no/such", "/no/such", "models/typo.gguf", "a/b/c"])
def test_a_source_that_does_not_exist_says_what_may_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Seen: a mistyped path to a .gguf file was looked for on the Hugging Face hub."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match=r"does not exist: give 'smollm2-135m', a \.gguf file"):
        resolve_model(source)


def test_a_gguf_file_that_is_none_is_named_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETPOINT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF nonsense")
    said: list[str] = []
    with pytest.raises(ModelNotFound, match=r"broken\.gguf: cannot be read as GGUF"):
        resolve_model(str(file), say=said.append)
    assert said == ["converting broken.gguf (once)"]
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    monkeypatch.setenv("SETPOINT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelNotFound, match="cannot be written there"):
        resolve_model(str(file))


def test_where_converted_models_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETPOINT_CACHE", "/chosen")
    assert cache_root() == Path("/chosen")
    monkeypatch.setenv("SETPOINT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/setpoint")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_root() == Path("/home/somebody/.cache/setpoint")


def test_a_missing_model_is_an_engine_failure() -> None:
    assert issubclass(ModelNotFound, EngineFailed)
