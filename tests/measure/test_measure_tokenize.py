"""The served model's tokenizer in the dialects of vLLM and setpoint, llama.cpp and TGI, over real connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from setpoint.measure.probe import ProbeError
from setpoint.measure.target import Target
from setpoint.measure.tokenize import RemoteTokenizer

Answers = dict[str, Callable[[dict[str, Any]], object]]
BOS, TEMPLATE = 1, [7, 7, 7]


def ids(text: str) -> list[int]:
    return [ord(mark) for mark in text]


def vllm_tokenize(asked: dict[str, Any]) -> object:
    if "messages" in asked:
        return {"tokens": TEMPLATE + ids(asked["messages"][0]["content"]), "count": 0, "max_model_len": 9}
    if "prompt" not in asked:
        return 400
    return {"tokens": ([BOS] if asked["add_special_tokens"] else []) + ids(asked["prompt"])}


def sglang_tokenize(asked: dict[str, Any]) -> object:
    return vllm_tokenize(asked) if "prompt" in asked else 422


def llamacpp_tokenize(asked: dict[str, Any]) -> object:
    if "content" not in asked:
        return {"tokens": []}
    return {"tokens": ([BOS] if asked["add_special"] else []) + ids(asked["content"])}


def llamacpp_template(asked: dict[str, Any]) -> object:
    return {"prompt": f"<u>{asked['messages'][0]['content']}<a>"}


def tgi_tokenize(asked: dict[str, Any]) -> object:
    return [{"id": BOS, "text": ""}, *({"id": one, "text": ""} for one in ids(asked["inputs"]))] if "inputs" in asked else 422


VLLM: Answers = {"/tokenize": vllm_tokenize}
SGLANG: Answers = {"/tokenize": sglang_tokenize}
LLAMACPP: Answers = {"/tokenize": llamacpp_tokenize, "/apply-template": llamacpp_template}
TGI: Answers = {"/tokenize": tgi_tokenize}
BEHIND: Answers = {"/setpoint/tokenize": vllm_tokenize}


@contextmanager
def tokenizer_at(answers: Answers) -> Iterator[RemoteTokenizer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = answers[self.path](asked) if self.path in answers else 404
            body = b"{}" if isinstance(answer, int) else json.dumps(answer).encode()
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield RemoteTokenizer(Target(f"http://127.0.0.1:{server.server_address[1]}", "m"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("answers", [VLLM, SGLANG, LLAMACPP, BEHIND])
def test_text_with_and_without_what_the_server_adds(answers: Answers) -> None:
    with tokenizer_at(answers) as tokenizer:
        assert tokenizer.works()
        assert tokenizer.encode("ab") == ids("ab")
        assert tokenizer.encode_prompt("ab") == [BOS, *ids("ab")]


def test_tgi_always_adds() -> None:
    with tokenizer_at(TGI) as tokenizer:
        assert tokenizer.works()
        assert tokenizer.encode("ab") == tokenizer.encode_prompt("ab") == [BOS, *ids("ab")]


def test_conversation_holds_the_chat_template() -> None:
    with tokenizer_at(VLLM) as tokenizer:
        assert tokenizer.works()
        assert tokenizer.works_for_chat()
        assert tokenizer.encode_chat("ab") == TEMPLATE + ids("ab")
    with tokenizer_at(LLAMACPP) as tokenizer:
        assert tokenizer.works()
        assert tokenizer.works_for_chat()
        assert tokenizer.encode_chat("ab") == [BOS, *ids("<u>ab<a>")]


@pytest.mark.parametrize("answers", [SGLANG, TGI])
def test_server_that_does_not_tell_its_template(answers: Answers) -> None:
    with tokenizer_at(answers) as tokenizer:
        assert tokenizer.works()
        assert not tokenizer.works_for_chat()


def test_server_without_a_tokenizer() -> None:
    with tokenizer_at({}) as tokenizer:
        assert not tokenizer.works()
        with pytest.raises(ProbeError, match=r"tokenize: HTTP 404"):
            tokenizer.encode("a")
