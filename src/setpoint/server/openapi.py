"""``/openapi.json``: what this server reads and answers, made from the models that read it."""

from __future__ import annotations

import copy
from typing import Any, Final

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from setpoint.server.context import ServerContext
from setpoint.server.headers import CLASSES, FAIRNESS_HEADER, MAX_SLO_MS, SLO_HEADERS
from setpoint.server.messages import MAX_PARTS
from setpoint.server.schema import MAX_CHOICES, MAX_STOP_CHARACTERS, MAX_STOPS, ChatBody, TextBody, TokenizeBody

Json = dict[str, Any]
NULL: Final[Json] = {"type": "null"}
_STOP: Final[Json] = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
_PART: Final[Json] = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_IDS: Final[Json] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
# Fields that are read more generously than the type they become: model name -> field -> schema of what clients may send.
GENEROUS: Final[dict[str, dict[str, Json]]] = {
    "ChatBody": {"stop": {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MAX_STOPS}, NULL]}},
    "TextBody": {
        "stop": {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MAX_STOPS}, NULL]},
        "prompt": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": MAX_CHOICES},
                _IDS,
                {"type": "array", "items": _IDS, "minItems": 1, "maxItems": MAX_CHOICES},
            ]
        },
    },
    "Message": {
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART, "maxItems": MAX_PARTS}, NULL]},
    },
}
_ERROR: Final[Json] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}
ERRORS: Final = {
    "400": "The request is wrong; `param` names the field or header.",
    "401": "The API key is missing or wrong.",
    "404": "The model or path is not served here.",
    "405": "The path has no such method.",
    "408": "The request did not arrive in time.",
    "413": "The body is too large.",
    "429": "The key's own quota is used up; see `Retry-After`.",
    "431": "The headers are too large.",
    "500": "The engine failed this request.",
    "503": "Not admitted, shed, draining or restarting; see `Retry-After`.",
}


def _schemas() -> Json:
    """The schemas of all bodies, by name, as clients may send them."""
    models: list[Any] = [(ChatBody, "validation"), (TextBody, "validation"), (TokenizeBody, "validation")]
    _, together = models_json_schema(models, ref_template="#/components/schemas/{model}")
    schemas: Json = copy.deepcopy(together["$defs"])
    for name, fields in GENEROUS.items():
        for field, schema in fields.items():
            default = schemas[name]["properties"][field].get("default", None)
            schemas[name]["properties"][field] = schema if default is None else {**schema, "default": None}
    return schemas


def _errors() -> Json:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": words, "content": content} for status, words in ERRORS.items()}


def _headers() -> list[Json]:
    limit = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SLO_MS}
    named = dict.fromkeys(SLO_HEADERS, limit)
    named["x-setpoint-class"] = {"type": "string", "enum": list(CLASSES)}
    named[FAIRNESS_HEADER] = {"type": "string", "pattern": r"^[!-~]{1,256}$"}
    return [{"name": name, "in": "header", "required": False, "schema": schema} for name, schema in named.items()]


def _post(words: str, model: str, answers: tuple[str, ...], parameters: list[Json] | None = None) -> Json:
    return {
        "summary": words,
        "operationId": model,
        "parameters": parameters or [],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}},
        },
        "responses": {
            "200": {"description": "The answer.", "content": {kind: {"schema": {}} for kind in answers}},
            **_errors(),
        },
    }


def _get(words: str, name: str, *, also: Json | None = None, parameters: list[Json] | None = None) -> Json:
    answer = {"description": words, "content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "summary": words,
        "operationId": name,
        "parameters": parameters or [],
        "responses": {"200": answer, **_errors(), **(also or {})},
    }


def description(title: str) -> Json:
    """The whole document."""
    answers = ("application/json", "text/event-stream")
    since = {"name": "since", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1}}
    model = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    health = {"503": {"description": "Not healthy.", "content": {"application/json": {"schema": {"type": "object"}}}}}
    tokenize = _post("Token ids of a text or conversation", "TokenizeBody", ("application/json",))
    return {
        "openapi": "3.1.0",
        "info": {"title": f"setpoint serving {title}", "version": "1"},
        "paths": {
            "/v1/chat/completions": {"post": _post("A conversation's next message", "ChatBody", answers, _headers())},
            "/v1/completions": {"post": _post("A text's continuation", "TextBody", answers, _headers())},
            "/tokenize": {"post": tokenize},
            "/v1/models": {"get": _get("Models served", "models")},
            "/v1/models/{name}": {"get": _get("One model", "model", parameters=[model])},
            "/health": {"get": _get("Whether the server is well", "health", also=health)},
            "/setpoint/requests": {"get": _get("Ended requests", "requests", parameters=[since])},
            "/setpoint/steps": {"get": _get("The engine's steps", "steps", parameters=[since])},
        },
        "components": {
            "schemas": {**_schemas(), "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


class ApiDescription:
    """The endpoint; the document is made once."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._document: Json | None = None

    async def openapi(self, request: Request) -> Response:
        """``GET /openapi.json``."""
        if self._document is None:
            self._document = description(self._context.model_names[0])
        return JSONResponse(self._document)
