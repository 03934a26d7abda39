"""Long texts take another way to the same tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.engine.long_texts import LONG_CHARACTERS, LongTexts
from setpoint.engine.models import ResolvedModel
from setpoint.engine.request import InvalidRequest
from setpoint.engine.tokenizer import ModelTokenizer

pytestmark = pytest.mark.model

PIECES = ("hello world ", "a", "  \n\t", "<|im_end|>", "日本語", "😀", "\x00", "naïve\u0301 ", "12,345.67", "\u200d")


@pytest.fixture(scope="module")
def tokenizer(demo_model: ResolvedModel) -> ModelTokenizer:
    return ModelTokenizer(demo_model.folder, off_lock=True)


def long_way(tokenizer: ModelTokenizer) -> LongTexts:
    """The demo model's tokenizer must have it: without it long prompts hold up everybody's tokens."""
    assert tokenizer._long is not None
    return tokenizer._long


@given(pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=20), min_size=1, max_size=40), special=st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_text_has_the_same_tokens_either_way(tokenizer: ModelTokenizer, pieces: list[str], special: bool) -> None:
    text = "".join(pieces)[:LONG_CHARACTERS]
    if text.endswith("\0"):
        with pytest.raises(InvalidRequest, match="NUL"):
            long_way(tokenizer).encode(text, add_special_tokens=special)
    elif text:
        expected = tokenizer.encode(text, add_special_tokens=special)
        assert long_way(tokenizer).encode(text, add_special_tokens=special) == expected


def test_a_long_text_takes_it_and_is_spelled_by_its_tokens(tokenizer: ModelTokenizer) -> None:
    text = "The quick brown fox jumps. " * (LONG_CHARACTERS // 20)
    assert len(text) > LONG_CHARACTERS
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert ids == long_way(tokenizer).encode(text, add_special_tokens=False)


@pytest.mark.parametrize("off_lock", [True, False])
def test_a_text_longer_than_the_model_s_context_is_not_cut(demo_model: ResolvedModel, off_lock: bool) -> None:
    """Seen: of a longer text only the last 8,192 tokens came, whatever the model's context: a number in the graph."""
    tokenizer = ModelTokenizer(demo_model.folder, off_lock=off_lock)
    text = "first words, " + "and then some more of them " * 3000
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) > 3000 * 6
    assert tokenizer.decode(ids) == text
