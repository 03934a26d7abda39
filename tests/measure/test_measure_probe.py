"""The look at a target before the load: what it finds, and one clear message for each way it can be wrong."""

from __future__ import annotations

import asyncio

import pytest
from mock_server import mock_server

from setpoint.measure.event_loop import run
from setpoint.measure.probe import Discovery, ProbeError, discover
from setpoint.measure.target import Target, TargetError


def look(pages: dict[str, object], *, api_key: str | None = None, model: str = "", path: str = "") -> Discovery:
    async def main() -> Discovery:
        async with mock_server() as mock:
            mock.pages |= {name: lambda asked: pages[asked.partition("?")[0]] for name in pages}
            mock.api_key = "secret" if api_key is not None else None
            return await discover(Target(mock.url + path, model, api_key=api_key))

    return run(main())


ONE_MODEL: dict[str, object] = {"/v1/models": {"object": "list", "data": [{"id": "smol", "max_model_len": 2048}]}}
TWO_MODELS: dict[str, object] = {"/v1/models": {"data": [{"id": "smol"}, {"id": "big"}]}}


def test_only_model_is_taken() -> None:
    found = look(ONE_MODEL)
    assert (found.target.model, found.models, found.max_model_len) == ("smol", ("smol",), 2048)
    assert (found.is_setpoint, found.has_metrics) == (False, False)


def test_setpoints_own_server_is_recognised() -> None:
    pages = ONE_MODEL | {"/setpoint/steps": {"now_s": 1.0, "next": 0, "columns": {}}, "/metrics": "setpoint_x 1\n"}
    found = look(pages)
    assert (found.is_setpoint, found.has_metrics) == (True, True)


def test_kind_is_told_by_the_metrics() -> None:
    found = look(ONE_MODEL | {"/metrics": 'vllm:num_requests_running{model_name="smol"} 0\n'})
    assert (found.kind, found.takes_token_ids, found.is_setpoint) == ("vllm", True, False)
    assert look(ONE_MODEL | {"/metrics": "dynamo_frontend_queued_requests 0\n"}).kind == "dynamo"


def test_kind_is_told_by_the_owner_of_the_model() -> None:
    for owner, takes_ids in (("sglang", True), ("llamacpp", True), ("tgi", False)):
        found = look({"/v1/models": {"data": [{"id": "smol", "owned_by": owner}]}})
        assert (found.kind, found.takes_token_ids) == (owner, takes_ids)
    found = look({"/v1/models": {"data": [{"id": "smol", "owned_by": "somebody"}]}})
    assert (found.kind, found.takes_token_ids) == (None, False)


def test_context_of_llamacpp_is_in_the_models_meta_or_in_the_props() -> None:
    meta: dict[str, object] = {"/v1/models": {"data": [{"id": "smol", "meta": {"n_ctx": 512, "n_ctx_train": 8192}}]}}
    assert look(meta).max_model_len == 512
    older: dict[str, object] = {"/v1/models": {"data": [{"id": "smol", "meta": {"n_ctx_train": 8192}}]}}
    assert look(older).max_model_len is None
    props: dict[str, object] = {"/props": {"default_generation_settings": {"n_ctx": 1024}, "total_slots": 4}}
    assert look(older | props).max_model_len == 1024


def test_alias_of_a_model_may_be_asked_for() -> None:
    found = look({"/v1/models": {"data": [{"id": "file.gguf", "aliases": ["smol"]}]}}, model="smol")
    assert found.target.model == "smol"


def test_url_may_end_with_v1() -> None:
    assert look(ONE_MODEL, path="/v1/").target.model == "smol"


def test_key_is_sent() -> None:
    assert look(ONE_MODEL, api_key="secret").target.model == "smol"


def test_wrong_key_asks_for_a_key() -> None:
    with pytest.raises(ProbeError, match=r"HTTP 401.*--api-key"):
        look(ONE_MODEL, api_key="wrong")


def test_several_models_need_a_choice() -> None:
    with pytest.raises(ProbeError, match=r"several models; choose one with --model: smol, big"):
        look(TWO_MODELS)
    assert look(TWO_MODELS, model="big").target.model == "big"


def test_unknown_model_lists_those_served() -> None:
    with pytest.raises(ProbeError, match=r"'huge' is not served at .*; it offers: smol, big"):
        look(TWO_MODELS, model="huge")


def test_server_without_a_list_of_models_is_believed_to_serve_the_one_named() -> None:
    found = look({}, model="huge")
    assert (found.target.model, found.models, found.max_model_len) == ("huge", ("huge",), None)


@pytest.mark.parametrize("page", ["<html>", {"data": []}])
def test_page_that_lists_no_model_does_not_matter_where_one_is_named(page: object) -> None:
    assert look({"/v1/models": page}, model="huge").target.model == "huge"


def test_wrong_path_says_how_to_give_the_url() -> None:
    with pytest.raises(ProbeError, match=r"HTTP 404.*up to, but not including, /v1"):
        look({})


@pytest.mark.parametrize("page", ["<html>", {"data": []}, [1]])
def test_page_that_lists_no_model(page: object) -> None:
    with pytest.raises(ProbeError, match="lists no model"):
        look({"/v1/models": page})


def test_nobody_listens() -> None:
    async def main() -> None:
        async with mock_server() as mock:
            url = mock.url
        await discover(Target(url))

    with pytest.raises(ProbeError, match=r"connection refused\. Is the server running"):
        run(main())


def test_server_that_never_answers() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
        try:
            await discover(Target(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), timeout_s=0.2)
        finally:
            server.close()

    with pytest.raises(ProbeError, match=r"no complete answer to GET /v1/models within 0.2 s"):
        run(main())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host", "use http:// or https://"),
        ("http://host:99999", "is not a number from 0 to 65535"),
        ("http://", "names no host"),
        ("http://host/?a=1", "has a query"),
        ("http://user:secret@host", "a user name or password stands before 'host'"),
        ("http://secret@host:port", "a user name or password stands before 'host'"),
    ],
)
def test_bad_urls_are_named(url: str, words: str) -> None:
    with pytest.raises(TargetError, match=words) as refused:
        Target(url)
    assert "secret" not in str(refused.value)


def test_addresses() -> None:
    address = Target("https://host/base/v1/").address
    assert (address.host, address.port, address.tls, address.base_path) == ("host", 443, True, "/base")
    assert address.api_path == "/base/v1"
    assert address.authority == "host"
    assert Target("[::1]:8000").address.authority == "[::1]:8000"


@pytest.mark.parametrize(
    ("path", "base_path", "api_path"),
    [
        ("", "", "/v1"),
        ("/", "", "/v1"),
        ("/v1", "", "/v1"),
        ("/openai/v1/", "/openai", "/openai/v1"),
        ("/base", "/base", "/base/v1"),
        ("/v3", "", "/v3"),
        ("/api/paas/v4", "/api/paas", "/api/paas/v4"),
        ("/v1beta/openai/", "", "/v1beta/openai"),
        ("/vllm", "/vllm", "/vllm/v1"),
    ],
)
def test_version_in_the_url_is_the_one_that_is_asked(path: str, base_path: str, api_path: str) -> None:
    address = Target(f"http://host{path}").address
    assert (address.base_path, address.api_path) == (base_path, api_path)


def test_models_are_looked_for_under_the_version_of_the_url() -> None:
    assert look({"/v3/models": ONE_MODEL["/v1/models"], "/metrics": "vllm:num_requests_running 0\n"}, path="/v3").kind == "vllm"
    with pytest.raises(ProbeError, match=r"GET /v4/models\): HTTP 404"):
        look(ONE_MODEL, path="/v4")


@pytest.mark.parametrize(("name", "value"), [("x-a", "b\r\nc: d"), ("x-a", "é"), ("Host", "other")])
def test_headers_that_cannot_be_sent_are_named(name: str, value: str) -> None:
    with pytest.raises(TargetError, match=f"headers: '{name}'"):
        Target("host", headers={name: value})


def test_key_never_shows() -> None:
    assert "secret" not in repr(Target("host", api_key="secret", headers={"x-key": "secret"}))


def test_a_gateway_that_passes_names_on_is_believed() -> None:
    found = look({"/v1/models": {"data": [{"id": "openai/*"}, {"id": "smol"}]}}, model="openai/gpt-x")
    assert found.target.model == "openai/gpt-x"
    with pytest.raises(ProbeError, match="'other/x' is not served"):
        look({"/v1/models": {"data": [{"id": "openai/*"}]}}, model="other/x")
