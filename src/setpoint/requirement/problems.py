"""What is wrong with a requirement file, collected so that the user sees all of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_SHOWN = 20
MAX_FOUND_CHARS = 60


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong. ``line`` counts from 1; 0 is the whole file. ``field`` is a dotted path or empty."""

    line: int
    field: str
    found: str
    allowed: str

    def render(self, file_name: str) -> str:
        """One line: file, line, field, what was found, what is allowed."""
        where = [escaped(file_name)]
        if self.line:
            where.append(str(self.line))
        place = ":".join(where) + ": " + (f"{self.field}: " if self.field else "")
        return f"{place}found {self.found}; allowed: {self.allowed}"


class RequirementError(Exception):
    """A requirement that cannot be used. ``str()`` is the whole message: one line for each problem, in file order."""

    def __init__(self, file_name: str, problems: tuple[Problem, ...]) -> None:
        self.file_name = file_name
        self.problems = tuple(sorted(problems))
        lines = [problem.render(file_name) for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            lines.append(f"{escaped(file_name)}: and {len(self.problems) - MAX_SHOWN} more problems")
        super().__init__("\n".join(lines))


@dataclass(slots=True)
class Problems:
    """Collects problems while a file is read, each only once."""

    file_name: str
    items: dict[Problem, None] = field(default_factory=dict)

    def add(self, line: int, path: tuple[str, ...], found: str, allowed: str) -> None:
        """Notes that the field at ``path`` holds ``found`` where only ``allowed`` is possible."""
        self.items[Problem(line, ".".join(map(printable, path)), found, allowed)] = None

    def raise_if_any(self) -> None:
        """Raises ``RequirementError`` with everything noted so far, if there is anything."""
        if self.items:
            raise RequirementError(self.file_name, tuple(self.items))


def escaped(text: str) -> str:
    """``text`` on one line, its control characters as escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def printable(text: str) -> str:
    """``text`` on one line, without control characters, cut to a length that fits a message."""
    shown = escaped(text)
    return shown if len(shown) <= MAX_FOUND_CHARS else shown[: MAX_FOUND_CHARS - 1] + "…"


def quoted(text: str) -> str:
    """``text`` as a message quotes it."""
    return f'"{printable(text)}"'
