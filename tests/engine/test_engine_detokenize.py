"""Text from tokens: whole characters only, nothing lost, stop strings found wherever tokens cut them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from setpoint.engine.detokenize import TextStream


@st.composite
def cut_text(draw: st.DrawFn, text: st.SearchStrategy[str]) -> tuple[str, list[bytes]]:
    """A text and its bytes cut anywhere, empty pieces (special tokens) among them."""
    whole = draw(text)
    data = whole.encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=len(data) + 3)))
    return whole, [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def first_stop(text: str, stops: tuple[str, ...]) -> str | None:
    """The text before the stop string that is complete first (of two that end together, the longer)."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return None


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
few_letters = st.text("abé😀", max_size=24)
stop_strings = st.lists(st.text("abé😀", min_size=1, max_size=4), min_size=1, max_size=4).map(tuple)


@given(cut_text(any_text), st.booleans())
def test_any_cut_gives_the_same_text(cut: tuple[str, list[bytes]], told_last: bool) -> None:
    text, pieces = cut
    stream = TextStream(pieces)
    given_out = [stream.feed(i, last=told_last and i == len(pieces) - 1) for i in range(len(pieces))]
    given_out.append(stream.finish())
    assert "".join(given_out) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in each for each in given_out)
    assert not stream.stopped


@given(cut_text(any_text))
def test_without_stop_strings_nothing_but_part_of_a_character_is_held(cut: tuple[str, list[bytes]]) -> None:
    _, pieces = cut
    stream = TextStream(pieces)
    out, data = "", b""
    for token, piece in enumerate(pieces):
        out += stream.feed(token)
        data += piece
        assert out == data.decode("utf-8", "ignore")


@given(cut_text(few_letters), stop_strings)
@example(("abc", [b"abc"]), ("bc", "abcd"))
@example(("aabab", [b"a", b"ab", b"ab"]), ("abab",))
def test_stop_strings_are_found_and_cut_wherever_tokens_end(cut: tuple[str, list[bytes]], stops: tuple[str, ...]) -> None:
    text, pieces = cut
    stream = TextStream(pieces, stops)
    out = ""
    expected = first_stop(text, stops)
    limit = text if expected is None else expected
    for token in range(len(pieces)):
        out += stream.feed(token)
        assert limit.startswith(out), "something of the stop string, or after it, was given out"
    assert stream.stopped == (expected is not None)
    out += stream.finish()
    assert out == limit
    assert stream.finish() == ""


@given(cut_text(few_letters), stop_strings)
def test_what_cannot_be_a_stop_string_any_more_is_given_out_at_once(
    cut: tuple[str, list[bytes]], stops: tuple[str, ...]
) -> None:
    text, pieces = cut
    if first_stop(text, stops) is not None:
        return
    stream = TextStream(pieces, stops)
    out, data = "", b""
    for token, piece in enumerate(pieces):
        out += stream.feed(token)
        data += piece
        seen = data.decode("utf-8", "ignore")
        begun = max((n for stop in stops for n in range(1, len(stop)) if seen.endswith(stop[:n])), default=0)
        assert out == seen[: len(seen) - begun]


def test_a_stop_string_complete_first_wins_however_tokens_are_cut() -> None:
    """Seen: with several in one token, the one that began first won, so the answer depended on the tokenizer."""
    for pieces in ([b"abcd"], [b"abc", b"d"], [b"a", b"b", b"c", b"d"]):
        stream = TextStream(pieces, ("bc", "abcd"))
        assert "".join(stream.feed(token) for token in range(len(pieces))) == "a"
        assert stream.stopped


def test_an_empty_stop_string_stops_nothing() -> None:
    stream = TextStream([b"a", b"b"], ("", "b"))
    assert stream.feed(0) == "a"
    assert stream.feed(1) == ""
    assert stream.stopped


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    stream = TextStream([b"a\xff", b"\xe2\x82", b"b"])
    assert [stream.feed(0), stream.feed(1), stream.feed(2)] == ["a\ufffd", "", "\ufffdb"]
    cut_short = TextStream([b"\xe2\x82"])
    assert (cut_short.feed(0), cut_short.finish()) == ("", "\ufffd")
