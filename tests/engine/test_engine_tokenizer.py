"""The model's own tokenizer: round trips, specials, the chat template, and a byte table that spells what it decodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_prompts import conversations, plain_texts
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from setpoint.engine.chat_template import ToolStyle
from setpoint.engine.detokenize import TextStream
from setpoint.engine.models import ResolvedModel
from setpoint.engine.openvino.runtime import openvino_genai
from setpoint.engine.request import EngineFailed, InvalidRequest
from setpoint.engine.tokenizer import ModelTokenizer, stop_ids

pytestmark = pytest.mark.model

HARD_TEXTS = (
    " leading and trailing spaces  ",
    "\n\n\tindented\r\nlines\n",
    "naïve café — “quotes” … ½ € ₿",
    "日本語、한국어, العربية, עברית, ไทย, हिन्दी",
    "👩‍👩‍👧‍👦 🇵🇹 e\u0301 \u200b\ufeff",
    "a" * 300,
    "0123456789 3.14159 1e-9 0xFF",
    "\\n is not \n; <0x0A> is not either; ▁ and Ġ are letters here",
)


@pytest.fixture(scope="module")
def genai(demo_model: ResolvedModel) -> openvino_genai.Tokenizer:
    return openvino_genai.Tokenizer(str(demo_model.folder))


def all_texts() -> list[str]:
    return [*plain_texts(), *HARD_TEXTS]


def test_texts_come_back_as_they_went(tokenizer: ModelTokenizer) -> None:
    for text in all_texts():
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert all(0 <= token < tokenizer.vocabulary_size for token in ids)
    assert tokenizer.encode("") == []


# "<" may begin a special token; a few control characters and unassigned planes have bytes that this vocabulary lacks.
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), min_size=1, max_size=40))
@settings(max_examples=200)
def test_any_text_comes_back(tokenizer: ModelTokenizer, text: str) -> None:
    assume(set(text.encode()) <= single_bytes(tokenizer))
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_byte_table_spells_what_the_tokenizer_decodes(tokenizer: ModelTokenizer, genai: openvino_genai.Tokenizer) -> None:
    for text in all_texts():
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == genai.decode(ids, skip_special_tokens=True)
    known = [token for token in range(tokenizer.vocabulary_size) if _is_text(tokenizer.token_bytes[token])]
    assert len(known) > 48_000
    theirs = genai.decode([[token] for token in known], skip_special_tokens=True)
    assert [tokenizer.decode([token]) for token in known] == theirs


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def test_every_byte_can_be_spelt(tokenizer: ModelTokenizer) -> None:
    """Otherwise some text could not be asked for."""
    assert set(b"\t\n\r") | set(range(0x20, 0x7F)) | set(range(0x80, 0xC0)) <= single_bytes(tokenizer)


def single_bytes(tokenizer: ModelTokenizer) -> set[int]:
    return {data[0] for data in tokenizer.token_bytes if len(data) == 1}


def test_special_tokens(tokenizer: ModelTokenizer) -> None:
    (start,) = tokenizer.encode("<|im_start|>", add_special_tokens=False)
    (end,) = tokenizer.encode("<|im_end|>", add_special_tokens=False)
    assert tokenizer.eos_ids == {end, *tokenizer.encode("<|endoftext|>", add_special_tokens=False)}
    assert {start, end} <= tokenizer.special_ids
    assert len(tokenizer.special_ids) == 17
    assert tokenizer.decode([start, *tokenizer.encode("user"), end]) == "user"
    assert {tokenizer.token_bytes[token] for token in tokenizer.special_ids} == {b""}


def test_user_defined_tokens_are_text(demo_model: ResolvedModel, tmp_path: Path) -> None:
    """Seen: in converted files the marks around calls of tools were taken for special tokens, and no call was ever found."""
    for file in demo_model.folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    stated = tmp_path / "generation_config.json"
    stated.unlink()
    stated.write_text('{"eos_token_id": 2, "spelled_token_ids": [1]}')
    spelled = ModelTokenizer(tmp_path)
    assert spelled.decode([1]) == "<|im_start|>"
    assert 1 not in spelled.special_ids
    assert spelled.eos_ids == {2}


def test_tokens_that_the_model_does_not_know(demo_model: ResolvedModel) -> None:
    """Of a tokenizer that some were added to. Seen: one request that named such a token ended everybody's answers."""
    narrow = ModelTokenizer(demo_model.folder)
    narrow.cover(100)
    assert (narrow.vocabulary_size, len(narrow.token_bytes)) == (100, 100)
    assert max(narrow.special_ids) < 100


def test_the_chat_template(tokenizer: ModelTokenizer) -> None:
    rendered = tokenizer.render_chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    assert rendered == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ended = tokenizer.render_chat([{"role": "system", "content": "Be brief."}], add_generation_prompt=False)
    assert ended == "<|im_start|>system\nBe brief.<|im_end|>\n"


def test_conversations_render_as_the_library_renders_them(tokenizer: ModelTokenizer, genai: openvino_genai.Tokenizer) -> None:
    for chat in conversations():
        for add in (True, False):
            theirs = genai.apply_chat_template(chat, add_generation_prompt=add)
            assert tokenizer.render_chat(chat, add_generation_prompt=add) == theirs


@pytest.mark.parametrize(
    "messages",
    [[{"role": "user", "content": None}], [{"role": "user"}], [{"content": "hi"}], [{"role": "user", "content": 3}], ["hi"]],
    ids=str,
)
def test_messages_that_the_template_cannot_take_are_refused(
    tokenizer: ModelTokenizer, messages: list[dict[str, object]]
) -> None:
    with pytest.raises(InvalidRequest, match="template refused") as refusal:
        tokenizer.render_chat(messages)
    assert refusal.value.field_name == "messages"


def test_text_as_it_streams_is_the_whole_text(tokenizer: ModelTokenizer) -> None:
    for text in all_texts():
        ids = tokenizer.encode(text, add_special_tokens=False)
        stream = TextStream(tokenizer.token_bytes)
        pieces = [stream.feed(token, last=index == len(ids) - 1) for index, token in enumerate(ids)]
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces), "a character was split"


def test_a_stop_string_is_found_across_real_tokens(tokenizer: ModelTokenizer) -> None:
    text = "The lighthouse stood at the end of a narrow spit of rock. 日本語 follows."
    ids = tokenizer.encode(text, add_special_tokens=False)
    for stop in ("stood at", "ight", "k. 日", "本", "."):
        stream = TextStream(tokenizer.token_bytes, (stop,))
        pieces = []
        for token in ids:
            pieces.append(stream.feed(token))
            if stream.stopped:
                break
        assert stream.stopped
        assert "".join(pieces) == text.partition(stop)[0]
    unmatched = TextStream(tokenizer.token_bytes, ("rock.!", "zzz"))
    pieces = [unmatched.feed(token) for token in ids]
    assert "".join([*pieces, unmatched.finish()]) == text


def test_a_model_with_padded_output_may_choose_a_token_that_spells_nothing(demo_model: ResolvedModel) -> None:
    one = ModelTokenizer(demo_model.folder)
    size = one.vocabulary_size
    one.cover(size + 100)
    assert one.vocabulary_size == size
    assert one.decode([size + 99]) == ""


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="no tokenizer that can be read: Tokenizer vocab is empty"):
        ModelTokenizer(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"eos_token_id": 2}', {2}), ('{"eos_token_id": [2, 7]}', {2, 7}), ("{}", set()), ('{"eos_token_id": null}', set())],
)
def test_stop_ids_come_from_the_generation_config(tmp_path: Path, text: str, expected: set[int]) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    assert stop_ids(tmp_path) == expected


def test_without_a_generation_config_there_are_no_further_stop_ids(tmp_path: Path) -> None:
    assert stop_ids(tmp_path) == frozenset()


@pytest.mark.parametrize("text", ["", "[1]", "no json"])
def test_an_unreadable_generation_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(EngineFailed, match=r"generation_config\.json"):
        stop_ids(tmp_path)


def test_the_demo_models_template_knows_no_tools_and_another_may_be_given(demo_model: ResolvedModel) -> None:
    assert ModelTokenizer(demo_model.folder).tool_style is ToolStyle.NONE
    given_one = ModelTokenizer(demo_model.folder, chat_template="{{ tools }}<tool_call>{{ messages[0].content }}")
    assert given_one.tool_style is ToolStyle.HERMES
    assert given_one.render_chat([{"role": "user", "content": "hi"}]) == "None<tool_call>hi"
    special = min(given_one.special_ids)
    assert given_one.piece(special)
    assert given_one.token_bytes[special] == b""
