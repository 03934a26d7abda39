"""The header reader on files made up here: every kind of value before the one wanted, and every kind of damage."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.engine.openvino.gguf import GgufHeader, read_header

DEFAULT = 77
U32, U64, BOOL, STRING, ARRAY = 4, 10, 7, 8, 9


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, items: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + items


def header(*pairs: bytes, count: int | None = None, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", 3, 0, len(pairs) if count is None else count) + b"".join(pairs)


CONTEXT = pair(b"llama.context_length", U32, struct.pack("<I", 8192))
OTHERS = [
    pair(b"general.name", STRING, text(b"a model")),
    pair(b"u8", 0, b"\x01"),
    pair(b"i16", 3, b"\x01\x02"),
    pair(b"f32", 6, struct.pack("<f", 1.5)),
    pair(b"flag", BOOL, b"\x01"),
    pair(b"i64", 11, struct.pack("<q", -1)),
    pair(b"f64", 12, struct.pack("<d", 1.5)),
    pair(b"scores", ARRAY, array(6, 3, struct.pack("<3f", 1, 2, 3))),
    pair(b"tokens", ARRAY, array(STRING, 2, text(b"a") + text(b"bc"))),
    pair(b"nested", ARRAY, array(ARRAY, 2, array(U32, 1, b"\0\0\0\1") + array(STRING, 1, text(b"x")))),
    pair(b"empty", ARRAY, array(STRING, 0, b"")),
]


def read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> int:
    file = tmp_path_factory.getbasetemp() / "made-up.gguf"
    file.write_bytes(data)
    return read_header(file).context_tokens or DEFAULT


@given(before=st.lists(st.sampled_from(OTHERS)), after=st.lists(st.sampled_from(OTHERS), max_size=2))
def test_the_context_length_is_found_behind_anything(
    tmp_path_factory: pytest.TempPathFactory, before: list[bytes], after: list[bytes]
) -> None:
    assert read(tmp_path_factory, header(*before, CONTEXT, *after)) == 8192
    assert read(tmp_path_factory, header(*before, *after)) == DEFAULT


@given(data=st.data())
def test_a_file_cut_short_before_it_gives_the_default(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = header(*OTHERS, CONTEXT)
    assert read(tmp_path_factory, whole[: data.draw(st.integers(0, len(whole) - 1))]) == DEFAULT


@given(noise=st.binary(max_size=200))
def test_noise_never_raises(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    assert read(tmp_path_factory, noise) == DEFAULT
    assert read(tmp_path_factory, header(noise)) >= 1


@pytest.mark.parametrize(
    "data",
    [
        header(CONTEXT, magic=b"GGML"),
        header(pair(b"x", 99, b""), CONTEXT),
        header(pair(b"llama.context_length", 5, struct.pack("<i", -1))),
        header(pair(b"llama.context_length", U32, struct.pack("<I", 0))),
        header(pair(b"llama.context_length", BOOL, b"\x01")),
        header(pair(b"llama.context_length", 6, struct.pack("<f", 512.0))),
        header(pair(b"llama.context_length", STRING, text(b"512"))),
        header(struct.pack("<Q", 1 << 62), CONTEXT),
        header(pair(b"huge", ARRAY, array(U64, 1 << 40, b"")), CONTEXT),
        header(pair(b"deep", ARRAY, array(ARRAY, 1, b"") * 5000), CONTEXT),
    ],
    ids=["magic", "kind", "negative", "zero", "flag", "float", "text", "long-key", "huge-array", "deep-array"],
)
def test_what_cannot_be_a_context_length_gives_the_default(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Seen: deeply nested arrays ended in a traceback, a flag was taken for 1, a negative number for itself."""
    assert read(tmp_path_factory, data) == DEFAULT


def test_a_file_that_is_not_there_gives_the_default(tmp_path: Path) -> None:
    assert read_header(tmp_path / "none.gguf") == GgufHeader()


def numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def test_what_ends_an_answer_and_what_is_spelled_out(tmp_path: Path) -> None:
    """Seen: a model that ends turns by another token than texts ran on to its limit; marks around calls of tools were lost."""
    names = [b"a", b"<|endoftext|>", b"<|im_end|>", b"<tool_call>", b"<|im_end|>", b"<|end_of_my_turn|>"]
    tokens = array(STRING, len(names), b"".join(map(text, names)))
    kinds = array(5, len(names), numbers(1, 3, 3, 4, 1, 3))
    pairs = [pair(b"tokenizer.ggml.tokens", ARRAY, tokens), pair(b"tokenizer.ggml.token_type", ARRAY, kinds)]
    file = tmp_path / "model.gguf"
    for key, told in ((b"eos", 2), (b"eot", 5), (b"eom", -1)):
        pairs.append(pair(b"tokenizer.ggml." + key + b"_token_id", 5, numbers(told)))
    file.write_bytes(header(CONTEXT, *pairs))
    assert read_header(file) == GgufHeader(8192, (1, 2, 5), (3,))
    file.write_bytes(header(*pairs[1:]))
    assert read_header(file) == GgufHeader(None, (2, 5), (3,)), "without names, by their keys"
