"""Deferred reading of streams: the same tokens at the right times however the bytes were cut into chunks."""

from __future__ import annotations

import json
from array import array

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from setpoint.measure.answer import PIECES_GAP_SHARE, Answer, read_json_answer, reconcile
from setpoint.measure.sse import SLICE_CHUNKS, StreamReader


def event(text: str, newline: str = "\n", **more: object) -> bytes:
    body = {"choices": [{"text": text, "finish_reason": None} | more]}
    return f"data: {json.dumps(body)}{newline}{newline}".encode()


def read(chunks: list[bytes]) -> Answer:
    """Read chunks that were received at 0 s, 1 s, 2 s, ..."""
    return StreamReader().finish(array("d", range(len(chunks))), list(chunks))


DONE = b"data: [DONE]\n\n"


@given(
    texts=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 2000), max_size=40),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_cut_of_the_bytes_gives_each_token_the_time_of_the_chunk_that_completed_it(
    texts: list[str], cuts: list[int], newline: str
) -> None:
    events = [event(text, newline) for text in texts]
    body = b"".join(events) + DONE
    places = sorted({cut for cut in cuts if cut < len(body)} | {0})
    chunks = [body[start:stop] for start, stop in zip(places, [*places[1:], len(body)], strict=True)]
    answer = read(chunks)
    assert answer.complete
    assert answer.error == ""
    chunk_ends = np.cumsum([len(chunk) for chunk in chunks])
    event_ends = np.cumsum([len(one) for one in events])
    assert answer.token_times_s.tolist() == np.searchsorted(chunk_ends, event_ends).tolist()


def test_reading_in_steps_while_chunks_arrive_lets_go_of_their_bytes() -> None:
    reader = StreamReader()
    times_s: array[float] = array("d")
    chunks: list[bytes] = []
    for position in range(3 * SLICE_CHUNKS):
        times_s.append(float(position))
        chunks.append(event("w"))
        if position % 50 == 49:
            assert not reader.advance(times_s, chunks)
            assert not any(chunks)
    assert reader.finish(times_s, chunks).token_times_s.tolist() == list(range(3 * SLICE_CHUNKS))


def test_one_advance_reads_a_bounded_slice() -> None:
    reader = StreamReader()
    chunks = [event("w")] * (SLICE_CHUNKS + 1)
    times_s: array[float] = array("d", range(len(chunks)))
    assert reader.advance(times_s, chunks)
    assert len(reader.event_times_s) == SLICE_CHUNKS
    assert not reader.advance(times_s, chunks)


def test_slice_ends_with_the_chunk_that_reaches_its_bytes() -> None:
    reader = StreamReader()
    chunks = [event("word " * 8) * 1000] * 5
    times_s: array[float] = array("d", range(len(chunks)))
    assert reader.advance(times_s, chunks)
    assert (reader.read_chunks, len(reader.event_times_s)) == (1, 1000)
    assert reader.finish(times_s, chunks).token_times_s.tolist() == [float(second) for second in range(5) for _ in range(1000)]


def test_last_event_without_blank_line_counts_if_it_is_whole() -> None:
    assert read([event("w"), event("w").rstrip()]).token_times_s.tolist() == [0.0, 1.0]
    assert read([event("w"), DONE.rstrip()]).complete
    broken = read([event("w"), event("w")[:20]])
    assert broken.token_times_s.tolist() == [0.0]
    assert not broken.complete
    assert broken.error == ""


def test_running_usage_tells_the_tokens_of_each_event() -> None:
    def counted(tokens: int) -> bytes:
        body = {"choices": [{"text": "ab", "finish_reason": None}], "usage": {"completion_tokens": tokens}}
        return f"data: {json.dumps(body)}\n\n".encode()

    assert read([counted(1), counted(4), counted(6), DONE]).token_times_s.tolist() == [0, 1, 1, 1, 2, 2]


def test_token_ids_tell_the_tokens_of_an_event() -> None:
    assert read([event("ab", token_ids=[1, 2]), event("", token_ids=[3]), DONE]).token_times_s.tolist() == [0, 0, 1]


def test_usage_and_finish_reason_are_taken() -> None:
    last = {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}},
    }
    answer = read([event("a"), event("b", finish_reason="stop"), f"data: {json.dumps(last)}\n\n".encode(), DONE])
    assert (answer.prompt_tokens, answer.output_tokens, answer.cached_tokens) == (9, 2, 8)
    assert (answer.finish_reason, answer.complete) == ("stop", True)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(1, 200))
def test_reconciled_times_have_the_count_of_usage_and_keep_first_and_order(times: list[float], usage: int) -> None:
    events = np.array(sorted(times))
    tokens = reconcile(events, usage)
    assert len(tokens) == usage or usage < len(tokens) <= len(events)
    assert (np.diff(tokens) >= 0).all()
    assert tokens[0] == events[0]
    assert set(tokens) <= set(events)
    assert tokens[-1] == events[-1]
    # Whatever the server counted, no gap is reported that nobody saw (but for pieces of one token taken together).
    seen_s = np.diff(events)
    together_s = PIECES_GAP_SHARE * seen_s.max(initial=0.0) * (len(events) - min(usage, len(events)))
    assert np.diff(tokens).max(initial=0.0) <= seen_s.max(initial=0.0) + together_s + 1e-9
    if usage >= len(events):
        shares = np.unique(tokens, return_counts=True)[1] / np.unique(events, return_counts=True)[1]
        assert shares.max() - shares.min() <= 1


def test_count_below_the_events_takes_pieces_of_one_token_together_and_nothing_else() -> None:
    halves = np.array([1.0, 1.001, 2.0, 2.001, 3.0, 3.001])
    assert reconcile(halves, 3).tolist() == [1.0, 2.0, 3.001]
    apart = np.array([1.0, 1.9, 3.0, 4.0])
    assert reconcile(apart, 3).tolist() == apart.tolist()
    assert reconcile(np.array([1.0, 2.0, 3.0, 4.0, 4.0]), 4).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert reconcile(np.array([1.0, 1.0, 1.0]), 2).tolist() == [1.0, 1.0]
    assert reconcile(np.array([1.0, 2.0]), 1).tolist() == [1.0, 2.0]
    every_20_ms = np.array([0.02 * place for place in range(24)])
    for usage in (1, 2, 12, 23):
        assert reconcile(every_20_ms, usage).tolist() == every_20_ms.tolist()


def test_surplus_is_silent_events_first_then_the_end_token() -> None:
    times, silent = np.array([1.0, 3.0]), np.array([0.5, 2.0])
    assert reconcile(times, 3, silent_s=silent, end_s=4.0).tolist() == [1.0, 2.0, 3.0]
    assert reconcile(times, 4, silent_s=silent, end_s=4.0).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert reconcile(times, 4, silent_s=silent, end_s=4.0, end_token=False).tolist() == [0.5, 1.0, 2.0, 3.0]
    assert reconcile(times, 5, silent_s=silent, end_s=4.0).tolist() == [0.5, 1.0, 2.0, 3.0, 4.0]
    assert reconcile(times, 6, silent_s=silent, end_s=4.0).tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert reconcile(times, 3, silent_s=silent[:0], end_s=4.0).tolist() == [1.0, 3.0, 4.0]
    assert reconcile(times, 4, silent_s=silent[:0], end_s=4.0).tolist() == [1.0, 1.0, 3.0, 3.0]
    assert reconcile(times[:0], 2, end_s=4.0).tolist() == [4.0, 4.0]
    assert reconcile(times, 0).tolist() == [1.0, 3.0]


def test_json_answers_that_cannot_be_read_say_so() -> None:
    assert read_json_answer(b"<html>").error.startswith("the answer is not JSON")
    assert read_json_answer(b"[]").error == "the answer has no choices"
    failed = read_json_answer(b'{"error": {"message": "no blocks left"}}')
    assert (failed.error, failed.unreadable) == ("no blocks left", False)


def usage(**counts: object) -> bytes:
    return f"data: {json.dumps({'choices': [], 'usage': counts})}\n\n".encode()


def chat(**delta: object) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': None}]})}\n\n".encode()


def test_empty_events_at_the_beginning_are_tokens_only_if_there_is_one_for_each_that_is_missing() -> None:
    in_threes = read([chat(), chat(content="abc"), chat(content="def"), usage(completion_tokens=6), DONE])
    assert in_threes.token_times_s.tolist() == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0], "the first event was not a token"
    halves = read([chat(), chat(), chat(content="é"), chat(content="b"), usage(completion_tokens=4), DONE])
    assert halves.token_times_s.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_tokens_that_were_thought_and_not_sent_came_in_no_event() -> None:
    told = usage(completion_tokens=10, completion_tokens_details={"reasoning_tokens": 7})
    hidden = read([chat(content="a"), chat(content="b"), chat(content="c"), told, DONE])
    assert hidden.token_times_s.tolist() == [0.0, 1.0, 2.0]
    assert hidden.output_tokens == 3
    shown = read([*(chat(reasoning_content="x") for _ in range(7)), *(chat(content="y") for _ in range(3)), told, DONE])
    assert shown.output_tokens == 10
    assert shown.token_times_s.tolist() == [float(at) for at in range(10)]
    inside = read([*(chat(content="x") for _ in range(10)), told, DONE])
    assert inside.output_tokens == 10, "thoughts between marks are content"
    cut = read([usage(completion_tokens=9, completion_tokens_details={"reasoning_tokens": 9}), DONE])
    assert not cut.token_times_s.size, "nothing came"


def test_a_count_that_no_request_has_is_not_believed() -> None:
    answer = read([chat(content="a"), chat(content="b"), usage(prompt_tokens=2**32 - 1, completion_tokens=2**32 - 1), DONE])
    assert (answer.output_tokens, answer.prompt_tokens) == (2, None)
