"""The bodies of requests: what is read, what is refused by name, and what is ignored (everything else).

Types are strict (``"5"`` is not a number) and ``null`` means "not given", as in the OpenAI API. Fields whose effect the
server does not have yet are refused unless they hold their neutral value: a wrong answer is worse than a refusal.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from setpoint.engine.constraint import Grammar
from setpoint.engine.request import SamplingParams
from setpoint.server.errors import ApiError, invalid
from setpoint.server.fields import Body, unsupported, wrong
from setpoint.server.messages import MAX_MESSAGES, Message
from setpoint.server.structured import StructureFields
from setpoint.server.tools import MAX_TOOLS, Tool, ToolUse, tool_use

MAX_STOPS: Final = 16
MAX_STOP_CHARACTERS: Final = 256
MAX_STOP_TOKENS: Final = 64
MAX_N: Final = 16
MAX_CHOICES: Final = 64
MAX_BIASED: Final = 1024
MOST_BIAS: Final = 100.0
INT64_MAX: Final = (1 << 63) - 1

BodyModel = TypeVar("BodyModel", bound=Body)
Prompt = str | tuple[int, ...]


def _stops(value: object) -> object:
    """``null``, one string or a list of strings -> a list of strings."""
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise PydanticCustomError("string_type", "must be a string or a list of strings")
    if len(stops) > MAX_STOPS:
        raise wrong(f"has {len(stops)} strings, at most {MAX_STOPS} are allowed")
    if any(not 1 <= len(stop) <= MAX_STOP_CHARACTERS for stop in stops):
        raise wrong(f"each string must have 1 to {MAX_STOP_CHARACTERS} characters")
    return stops


def _prompts(value: object) -> object:
    """A string, token ids, a list of strings, or a list of lists of token ids -> a tuple of strings or tuples of ids."""
    many = isinstance(value, list) and len(value) >= 1 and isinstance(value[0], (str, list))
    prompts: list[object] = value if many and isinstance(value, list) else [value]
    if len(prompts) > MAX_CHOICES:
        raise wrong(f"has {len(prompts)} prompts, at most {MAX_CHOICES} are allowed")
    return tuple(map(_one_prompt, prompts))


def _one_prompt(value: object) -> Prompt:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(token) is int for token in value):
        return tuple(value)
    raise PydanticCustomError("prompt_type", "must be a string, a list of token ids, or a list of either")


class StreamOptions(Body):
    """``include_usage``: end the stream with a chunk that carries the usage. ``continuous_usage_stats``: beside that, every
    chunk carries the usage so far."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


# Field name -> the values that ask for nothing, of fields that other servers have and whose effect this one has not.
NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "allowed_token_ids": (None, []),
    "bad_words": (None, []),
    "include_stop_str_in_output": (None, False),
    "prompt_logprobs": (None,),
    "return_token_ids": (None, False),
    "skip_special_tokens": (None, True),
    "truncate_prompt_tokens": (None,),
    "use_beam_search": (None, False),
}


class GenerationBody(StructureFields):
    """What chat and text completion have in common."""

    neutral: ClassVar[dict[str, tuple[object, ...]]] = NEUTRAL

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=INT64_MAX)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=INT64_MAX)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-INT64_MAX, le=INT64_MAX)
    stop: Annotated[list[str], BeforeValidator(_stops)] = Field(default_factory=list)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    ignore_eos: bool | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_N)
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MAX_BIASED)
    stop_token_ids: list[int] | None = Field(default=None, max_length=MAX_STOP_TOKENS)
    min_tokens: int | None = Field(default=None, ge=0, le=INT64_MAX)
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    include_stop_str_in_output: bool | None = None
    prompt_logprobs: Any = None
    return_token_ids: bool | None = None
    skip_special_tokens: bool | None = None
    truncate_prompt_tokens: Any = None
    use_beam_search: bool | None = None

    @field_validator("*")
    @classmethod
    def _refuse_what_is_not_there(cls, value: object, info: ValidationInfo) -> object:
        neutral = cls.neutral.get(info.field_name or "")
        if neutral is not None and not any(type(value) is type(allowed) and value == allowed for allowed in neutral):
            raise unsupported(f"'{info.field_name}'")
        return value

    @field_validator("min_tokens")
    @classmethod
    def _only_where_nothing_ends_earlier(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and not info.data.get("ignore_eos"):
            raise unsupported("'min_tokens' without 'ignore_eos'")
        return value

    @field_validator("stream_options")
    @classmethod
    def _options_only_with_stream(cls, value: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise wrong("needs 'stream' to be true")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _ids_and_bounded(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for token, bias in (value or {}).items():
            if not (token.isascii() and token.isdigit() and len(token) <= 9):
                raise wrong(f"keys are token ids, '{token[:32]}' is none")
            if not -MOST_BIAS <= bias <= MOST_BIAS:
                raise wrong(f"values are numbers from -{MOST_BIAS:.0f} to {MOST_BIAS:.0f}")
        return value

    @property
    def wanted_logprobs(self) -> int | None:
        """How many of the likeliest tokens are to be told beside each; ``None``: no log-probabilities at all."""
        return None

    @property
    def streaming(self) -> bool:
        """Whether the answer is to come token by token."""
        return bool(self.stream)

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def running_usage(self) -> bool:
        """Whether every chunk of a stream is to carry the usage so far."""
        return self.include_usage and self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)

    @property
    def answer_tokens(self) -> int | None:
        """The cap the client gave."""
        return self.max_tokens

    @property
    def cap_field(self) -> str:
        """The field in which it gave it."""
        return "max_tokens"

    def sampling(self, max_tokens: int, grammar: Grammar | None = None) -> SamplingParams:
        """The sampling parameters with the cap and the grammar settled; what is not given takes the engine's default."""
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
            "stop_token_ids": frozenset(self.stop_token_ids) if self.stop_token_ids else None,
            "logprobs": self.wanted_logprobs,
            "grammar": grammar,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        # Written differently, one id may come twice: the last wins, as in any JSON object.
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        return SamplingParams(max_tokens=max_tokens, stop=tuple(self.stop), logit_bias=tuple(bias.items()), **chosen)


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    neutral: ClassVar[dict[str, tuple[object, ...]]] = {
        **NEUTRAL,
        "chat_template": (None,),
        "continue_final_message": (None, False),
        "documents": (None, []),
        "echo": (None, False),
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
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    documents: list[Any] | None = None
    echo: bool | None = None
    reasoning_effort: str | None = Field(default=None, max_length=64)

    @field_validator("chat_template_kwargs")
    @classmethod
    def _not_what_has_a_field(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        taken = next((name for name in ("messages", "tools", "add_generation_prompt") if name in (value or {})), None)
        if taken is not None:
            raise wrong(f"'{taken}' is a field of its own")
        return value

    @property
    def template_variables(self) -> dict[str, Any]:
        """What the chat template is told besides the conversation."""
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return {**effort, **(self.chat_template_kwargs or {})}

    @property
    def answer_tokens(self) -> int | None:
        """``max_completion_tokens``, the newer name, wins over ``max_tokens``."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def cap_field(self) -> str:
        """The one that wins."""
        return "max_completion_tokens" if self.max_completion_tokens is not None else "max_tokens"

    @property
    def wanted_logprobs(self) -> int | None:
        """``top_logprobs`` where ``logprobs`` is true."""
        return self.top_logprobs or 0 if self.logprobs else None

    @field_validator("top_logprobs")
    @classmethod
    def _top_only_with_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and not info.data.get("logprobs"):
            raise wrong("needs 'logprobs' to be true")
        return value

    def tool_use(self) -> ToolUse | None:
        """Which tools may be called, and whether one must be. Raises ``ApiError`` 400."""
        return tool_use(self.tools or (), self.tool_choice, parallel=self.parallel_tool_calls is not False)


class TextBody(GenerationBody):
    """``POST /v1/completions``. Without ``max_tokens`` the answer has at most 16 tokens, as the OpenAI API has it."""

    neutral: ClassVar[dict[str, tuple[object, ...]]] = {
        **NEUTRAL,
        "best_of": (None, 1),
        "echo": (None, False),
        "suffix": (None, ""),
    }

    prompt: Annotated[tuple[Prompt, ...], BeforeValidator(_prompts)]
    logprobs: int | None = Field(default=None, ge=0, le=5)
    best_of: int | None = Field(default=None, ge=1)
    echo: bool | None = None
    suffix: str | None = None
    add_special_tokens: bool | None = None

    @property
    def answer_tokens(self) -> int | None:
        """The cap the client gave, else 16."""
        return self.max_tokens if self.max_tokens is not None else 16

    @property
    def wanted_logprobs(self) -> int | None:
        """``logprobs``, which is a number here."""
        return self.logprobs

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        choices = len(self.prompt) * (self.n or 1)
        if choices > MAX_CHOICES:
            raise wrong(f"{len(self.prompt)} prompts with n {self.n} are {choices} answers, at most {MAX_CHOICES} are allowed")
        return self


class TokenizeBody(Body):
    """``POST /setpoint/tokenize``: exactly one of ``text``, ``prompt`` (the same) and ``messages``."""

    model: str | None = None
    text: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.text, self.prompt, self.messages)) != 1:
            raise wrong("give exactly one of text, prompt and messages")
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
