"""The base of every part of a requirement, and how a part says that its fields contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Fault(NamedTuple):
    """One contradiction inside a part.

    path: the keys that lead from the part to the field at fault, spelt as in YAML.
    allowed: what the field may be instead, in words.
    """

    path: tuple[str, ...]
    allowed: str

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: allowed: {self.allowed}"


class Part(BaseModel):
    """Base of every part of a requirement: immutable, finite, and an unknown field is an error.

    A subclass that has rules between its fields lists what breaks them in ``faults``; they are checked whenever a part
    is made, by whatever way, and raised as one ``pydantic.ValidationError``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def faults(self) -> Iterator[Fault]:
        """Every contradiction between the fields of this part."""
        return iter(())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = tuple(self.faults())
        if faults:
            message = "; ".join(map(str, faults))
            raise PydanticCustomError("inconsistent", "{message}", {"message": message, "faults": faults})
        return self
