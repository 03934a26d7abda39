"""A draft model that cannot guess for the model that is served: one sentence each, before anything is started."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import DEMO_MODEL, ResolvedModel
from setpoint.engine.openvino.graph import WEIGHTS_FILE
from setpoint.engine.request import EngineFailed
from setpoint.engine.speculation import draft_source as source
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import ServingConfig, SpeculationMode


def drafting(model: str | None) -> ServingConfig:
    return ServingConfig(speculation=SpeculationMode.DRAFT, draft_model=model)


@dataclass
class Words:
    """A vocabulary by hand."""

    pieces: list[bytes]
    vocabulary_size: int = field(init=False)

    def __post_init__(self) -> None:
        self.vocabulary_size = len(self.pieces)

    def piece(self, token: int) -> bytes:
        return self.pieces[token]


def as_tokenizer(*pieces: bytes) -> ModelTokenizer:
    return cast(ModelTokenizer, Words(list(pieces)))


def folder(path: Path, name: str, weights: int) -> ResolvedModel:
    (path / name).mkdir()
    (path / name / WEIGHTS_FILE).write_bytes(b"0" * weights)
    return ResolvedModel(name, path / name, 100)


def test_another_vocabulary_is_told_apart(tmp_path: Path) -> None:
    draft, model = folder(tmp_path, "small", 10), folder(tmp_path, "large", 20)
    with pytest.raises(EngineFailed, match="small: its vocabulary has 2 tokens, that of large 3"):
        source._check_vocabulary(draft, as_tokenizer(b"a", b"b"), model, as_tokenizer(b"a", b"b", b"c"))
    with pytest.raises(EngineFailed, match="token 1 is b'x' in its vocabulary and b'b' in that of large"):
        source._check_vocabulary(draft, as_tokenizer(b"a", b"x"), model, as_tokenizer(b"a", b"b"))
    source._check_vocabulary(draft, as_tokenizer(b"a", b"b"), model, as_tokenizer(b"a", b"b"))


def test_a_draft_that_is_not_smaller_is_refused(tmp_path: Path) -> None:
    draft, model = folder(tmp_path, "huge", 3_000_000), folder(tmp_path, "large", 2_000_000)
    with pytest.raises(EngineFailed, match="huge: its weights have 3 MB, those of large 2 MB: give a smaller model"):
        source._check_size(draft, model)
    source._check_size(model, draft)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (drafting(None), "needs a second, smaller model: give it with --draft-model"),
        (drafting("./nothing.gguf"), "--draft-model: model './nothing.gguf' does not exist"),
        (ServingConfig(draft_model="x"), "--draft-model x: only read with --speculation draft, found 'off'"),
    ],
)
def test_what_is_missing_is_named(config: ServingConfig, words: str) -> None:
    with pytest.raises(EngineFailed, match=words):
        source.draft_source(config, cast(ResolvedModel, None), cast(ModelTokenizer, None))


@pytest.mark.model
def test_the_engine_is_not_even_built(demo_model: ResolvedModel, tmp_path: Path) -> None:
    """The model itself is no draft model; a copy of its folder with fewer weights has the right vocabulary."""
    with pytest.raises(EngineFailed, match="give a smaller model"):
        embedded_engine(demo_model, drafting(DEMO_MODEL))
    small = tmp_path / "small"
    small.mkdir()
    for file in demo_model.folder.iterdir():
        if file.name != WEIGHTS_FILE:
            shutil.copy(file, small / file.name)
    (small / WEIGHTS_FILE).write_bytes(b"0")
    tokenizer = ModelTokenizer(demo_model.folder)
    found = source.draft_source(drafting(str(small)), demo_model, tokenizer)
    assert found is not None
    assert found.folder == small
