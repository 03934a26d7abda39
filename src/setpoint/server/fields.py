"""What all bodies of requests have in common, and the two ways in which a field is refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Body(BaseModel):
    """Base of every body and of its parts. Types are strict; fields that nobody reads are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


def unsupported(what: str) -> PydanticCustomError:
    """The server does not have what a field asks for."""
    return PydanticCustomError("unsupported_parameter", "{what} is not supported by this server", {"what": what})


def wrong(message: str) -> PydanticCustomError:
    """A field has a value that it cannot have."""
    return PydanticCustomError("invalid_value", "{message}", {"message": message})
