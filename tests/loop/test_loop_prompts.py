"""Prompts counted by the server's own tokenizer, over a connection that the server may close between two questions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from setpoint.loop.prompts import NearlyExact, prompts_for
from setpoint.measure.probe import ProbeError
from setpoint.measure.target import Target
from setpoint.measure.tokenize import RemoteTokenizer
from setpoint.workload.prompts import EstimatedPrompts, TextPrompts, TokenIdPrompts


class _Tokenizer(BaseHTTPRequestHandler):
    """One token a character. Says that it keeps the connection and closes it all the same."""

    protocol_version = "HTTP/1.1"
    answers: object = None
    status = 200
    template = "<user>"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = asked["prompt"] if "prompt" in asked else self.template + asked["messages"][0]["content"]
        tokens = {"tokens": [ord(mark) for mark in text]}
        body = json.dumps(tokens if self.answers is None else self.answers).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def tokenizer_at(**traits: object) -> Iterator[Target]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Tokenizer,), traits))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Target(f"http://127.0.0.1:{server.server_address[1]}", "m")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_closed_connection_is_opened_again() -> None:
    with tokenizer_at() as target:
        tokenizer = RemoteTokenizer(target)
        assert tokenizer.works()
        assert [list(tokenizer.encode(text)) for text in ("ab", "c")] == [[97, 98], [99]]


def test_the_kind_of_prompt_follows_from_what_the_server_can() -> None:
    with tokenizer_at() as target:
        assert isinstance(prompts_for(target, token_ids_accepted=True), TokenIdPrompts)
        assert isinstance(prompts_for(target, token_ids_accepted=False), TextPrompts)
        assert isinstance(prompts_for(target, token_ids_accepted=True, chat=True), TextPrompts)


def test_chat_prompts_count_the_template() -> None:
    with tokenizer_at() as target:
        prompt = prompts_for(target, token_ids_accepted=True, chat=True)(tokens=60, shared_prefix_tokens=0, seed=0, serial=0)
    assert prompt.exact
    assert isinstance(prompt.content, str)
    assert prompt.tokens == len("<user>") + len(prompt.content)


def test_a_template_that_is_not_told_makes_the_count_an_estimate() -> None:
    with tokenizer_at(template="") as target:
        prompt = prompts_for(target, token_ids_accepted=True, chat=True)(tokens=60, shared_prefix_tokens=0, seed=0, serial=0)
    assert not prompt.exact


def test_a_tokenizer_of_ones_own_is_asked_instead_of_the_servers() -> None:
    def encode(text: str) -> list[int]:
        return [ord(mark) for mark in text]

    nobody = Target("http://127.0.0.1:1", "m")
    ids = prompts_for(nobody, token_ids_accepted=True, tokenizer=encode)
    assert isinstance(ids, TokenIdPrompts)
    assert ids(tokens=30, shared_prefix_tokens=0, seed=0, serial=0).exact
    text = prompts_for(nobody, token_ids_accepted=False, tokenizer=encode)
    assert isinstance(text, NearlyExact)
    assert not text(tokens=60, shared_prefix_tokens=0, seed=0, serial=0).exact


@pytest.mark.parametrize("traits", [{"status": 404}, {"answers": []}, {"answers": {"tokens": "abc"}}])
def test_a_server_without_a_tokenizer_gets_estimates(traits: dict[str, object]) -> None:
    with tokenizer_at(**traits) as target:
        assert isinstance(prompts_for(target, token_ids_accepted=True), EstimatedPrompts)


def test_a_server_that_went_away_is_told_in_words() -> None:
    with tokenizer_at() as target:
        tokenizer = RemoteTokenizer(target)
    with pytest.raises(ProbeError, match=r"/tokenize: .*refused"):
        tokenizer.encode("a")
