"""The bodies of requests: what is read, what is refused by name, and what is ignored (everything else).

Types are strict (``"5"`` is not a number) and ``null`` means "not given", as in the OpenAI API. Fields whose effect the
server does not have yet are refused unless they hold their neutral value: a wrong answer is worse than a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from setpoint.engine.request import SamplingParams
from setpoint.server.errors import ApiError, invalid

MAX_STOPS: Final = 16
MAX_STOP_CHARACTERS: Final = 256
MAX_MESSAGES: Final = 4096
MAX_PARTS: Final = 4096
TEXT_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
INT64_MAX: Final = (1 << 63) - 1

BodyModel = TypeVar("BodyModel", bound="Body")


def _unsupported(what: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported_parameter", "{what} is not supported by this server", {"what": what})


def _invalid(message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{message}", {"message": message})


def _stops(value: object) -> object:
    """``null``, one string or a list of strings -> a list of strings."""
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise PydanticCustomError("string_type", "must be a string or a list of strings")
    if len(stops) > MAX_STOPS:
        raise _invalid(f"has {len(stops)} strings, at most {MAX_STOPS} are allowed")
    if any(not 1 <= len(stop) <= MAX_STOP_CHARACTERS for stop in stops):
        raise _invalid(f"each string must have 1 to {MAX_STOP_CHARACTERS} characters")
    return stops


def _content(value: object) -> object:
    """``null``, a string, or a list of text parts -> a string; parts are joined by newlines."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise PydanticCustomError("string_type", "must be a string or a list of text parts")
    if len(value) > MAX_PARTS:
        raise _invalid(f"has {len(value)} parts, at most {MAX_PARTS} are allowed")
    texts: list[str] = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            raise PydanticCustomError("string_type", "each part must be an object with a 'type'")
        if kind != "text":
            raise _unsupported(f"content of type '{kind[:64]}'")
        text = part.get("text")
        if not isinstance(text, str):
            raise PydanticCustomError("string_type", "each text part must have a string 'text'")
        texts.append(text)
    return "\n".join(texts)


def _prompt(value: object) -> object:
    """A string, a list of one string, a list of token ids, or a list of one such list -> a string or a tuple of ids."""
    if isinstance(value, list) and len(value) >= 1 and isinstance(value[0], (str, list)):
        if len(value) > 1:
            raise _unsupported("more than one prompt in a request")
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(token) is int for token in value):
        return tuple(value)
    raise PydanticCustomError("prompt_type", "must be a string, a list holding one string, or a list of token ids")


class Body(BaseModel):
    """Base of every body."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class StreamOptions(Body):
    """``include_usage``: end the stream with a chunk that carries the usage."""

    include_usage: bool | None = None


class GenerationBody(Body):
    """What chat and text completion have in common."""

    # Field name -> the values that ask for nothing.
    neutral: ClassVar[dict[str, tuple[object, ...]]] = {}

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=INT64_MAX)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=INT64_MAX)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-INT64_MAX, le=INT64_MAX)
    stop: Annotated[list[str], BeforeValidator(_stops)] = []
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    ignore_eos: bool | None = None
    n: int | None = Field(default=None, ge=1)
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("*")
    @classmethod
    def _refuse_what_is_not_there(cls, value: object, info: ValidationInfo) -> object:
        neutral = cls.neutral.get(info.field_name or "")
        if neutral is not None and not any(type(value) is type(allowed) and value == allowed for allowed in neutral):
            raise _unsupported(f"'{info.field_name}'")
        return value

    @field_validator("stream_options")
    @classmethod
    def _options_only_with_stream(cls, value: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise _invalid("needs 'stream' to be true")
        return value

    @property
    def streaming(self) -> bool:
        """Whether the answer is to come token by token."""
        return bool(self.stream)

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def answer_tokens(self) -> int | None:
        """The cap the client gave."""
        return self.max_tokens

    def sampling(self, max_tokens: int) -> SamplingParams:
        """The sampling parameters with the cap already settled; what is not given takes the engine's default."""
        given: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k == -1 else self.top_k,
            "min_p": self.min_p,
            "seed": self.seed,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "ignore_eos": self.ignore_eos,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        return SamplingParams(max_tokens=max_tokens, stop=tuple(self.stop), **chosen)


_NEUTRAL_FORMAT = {"type": "text"}


class Message(Body):
    """One message of a conversation; text only. ``developer`` is taken as ``system``, which templates know."""

    role: str
    content: Annotated[str | None, BeforeValidator(_content)] = None
    tool_calls: list[Any] | None = None

    @field_validator("role")
    @classmethod
    def _role(cls, value: str) -> str:
        if value in ("tool", "function"):
            raise _unsupported(f"role '{value}'")
        if value not in TEXT_ROLES:
            raise _invalid(f"must be one of {', '.join(sorted(TEXT_ROLES))}")
        return TEXT_ROLES[value]

    @field_validator("tool_calls")
    @classmethod
    def _no_tool_calls(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise _unsupported("'tool_calls'")
        return value

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise _invalid("content is missing")
        return self

    def as_template_sees_it(self) -> dict[str, object]:
        """``{"role", "content"}``."""
        return {"role": self.role, "content": self.content or ""}


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    neutral: ClassVar[dict[str, tuple[object, ...]]] = {
        "n": (None, 1),
        "logit_bias": (None, {}),
        "response_format": (None, _NEUTRAL_FORMAT),
        "logprobs": (None, False),
        "top_logprobs": (None, 0),
        "tools": (None, []),
        "tool_choice": (None, "none", "auto"),
        "functions": (None, []),
        "function_call": (None, "none", "auto"),
        "modalities": (None, ["text"]),
        "audio": (None,),
    }

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=INT64_MAX)
    add_generation_prompt: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None

    @property
    def answer_tokens(self) -> int | None:
        """``max_completion_tokens``, the newer name, wins over ``max_tokens``."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TextBody(GenerationBody):
    """``POST /v1/completions``. Without ``max_tokens`` the answer has at most 16 tokens, as the OpenAI API has it."""

    neutral: ClassVar[dict[str, tuple[object, ...]]] = {
        "n": (None, 1),
        "logit_bias": (None, {}),
        "response_format": (None, _NEUTRAL_FORMAT),
        "logprobs": (None,),
        "best_of": (None, 1),
        "echo": (None, False),
        "suffix": (None, ""),
    }

    prompt: Annotated[str | tuple[int, ...], BeforeValidator(_prompt)]
    logprobs: int | None = Field(default=None, ge=0, le=20)
    best_of: int | None = Field(default=None, ge=1)
    echo: bool | None = None
    suffix: str | None = None

    @property
    def answer_tokens(self) -> int | None:
        """The cap the client gave, else 16."""
        return self.max_tokens if self.max_tokens is not None else 16


class TokenizeBody(Body):
    """``POST /setpoint/tokenize``: exactly one of ``text``, ``prompt`` (the same) and ``messages``."""

    model: str | None = None
    text: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.text, self.prompt, self.messages)) != 1:
            raise _invalid("give exactly one of text, prompt and messages")
        return self


def _param(location: tuple[int | str, ...]) -> str | None:
    """``("messages", 0, "content")`` -> ``messages[0].content``, without the parts that only name a union's branch."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "tuple"):
            name += f".{part}" if name else part
    return name or None


def _error(detail: ErrorDetails) -> ApiError:
    kind, param = detail["type"], _param(detail["loc"])
    if kind == "json_invalid":
        return invalid(f"The body is not valid JSON: {detail['msg']}", None, code="invalid_json")
    if kind in ("unsupported_parameter", "invalid_value"):
        code = kind
    elif kind == "missing":
        code = "missing_required_parameter"
    else:
        code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    where = f"{param}: " if param else ""
    return invalid(f"{where}{detail['msg']}.", param, code=code)


def parse_body(model: type[BodyModel], raw: bytes) -> BodyModel:
    """The body as ``model``. Raises ``ApiError`` 400 for the first thing that is wrong with it."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _error(first) from None
