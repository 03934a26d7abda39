"""What ends a command early. The message is all that the user gets to see, so it names what was found and what to do."""

from __future__ import annotations

from pydantic import ValidationError

MAX_FOUND_CHARS = 60


class BadInput(Exception):
    """A mistake of the user's: exit code 2."""


class ServerDied(Exception):
    """A server that was being measured ended by itself, so what was measured is no run: exit code 4."""


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The dotted field of the first problem (empty for the whole) and one sentence about it."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    faults = problem.get("ctx", {}).get("faults")
    if faults:
        fault = faults[0]
        return ".".join(filter(None, (field, *fault.path))), f"allowed: {fault.allowed}"
    found = repr(problem["input"])
    shown = found if len(found) <= MAX_FOUND_CHARS else f"{found[:MAX_FOUND_CHARS]}..."
    return field, f"{problem['msg']}, found {shown}"
