"""The description of the API is that of the server that gives it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from scripted_engine import ScriptedEngine
from serving import serving

from setpoint.server.app import create_app
from setpoint.server.openapi import description
from setpoint.server.schema import ChatBody, TextBody, TokenizeBody


def test_every_path_described_is_served_with_that_method() -> None:
    routes = {re.sub(r":\w+", "", route.path): route.methods for route in create_app(ScriptedEngine()).routes}  # type: ignore[attr-defined]
    for path, operations in description("echo")["paths"].items():
        for method in operations:
            assert path in routes
            assert routes[path] is None or method.upper() in routes[path]


@pytest.mark.parametrize("model", [ChatBody, TextBody, TokenizeBody])
def test_every_field_that_is_read_is_described(model: Any) -> None:
    schema = description("echo")["components"]["schemas"][model.__name__]
    assert set(schema["properties"]) == set(model.model_fields)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/completions", {"prompt": ["a"]}),
        ("/v1/completions", {"prompt": [1, 2]}),
        ("/v1/completions", {"prompt": [[1, 2]], "stop": None}),
        ("/v1/completions", {"prompt": "a", "stop": "b"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": None}, {"role": "user", "content": ""}]}),
    ],
)
def test_what_the_description_allows_beyond_the_models_types_is_taken(path: str, body: dict[str, object]) -> None:
    with serving() as served:
        assert served.ask("POST", path, {**body, "max_tokens": 1}).status == 200


def test_it_is_served_and_needs_a_key_like_all_else() -> None:
    with serving(api_keys=["k"]) as served:
        assert served.ask("GET", "/openapi.json").status == 401
        reply = served.ask("GET", "/openapi.json", headers={"authorization": "Bearer k"})
        assert reply.json == description("echo")
