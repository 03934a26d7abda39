"""The commands of the documentation's shell blocks, as words, for the tests that parse and run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPERATORS = {"&&", "||", "|", ";", "&"}
REDIRECTIONS = {">", ">>", "<"}


class Command(NamedTuple):
    """One command of a shell block, as words, and the page it is on."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def split_commands(block: str) -> Iterator[list[str]]:
    """The commands of a shell block: lines joined at backslashes, comments and ``$`` prompts gone, operators split."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word in OPERATORS:
                yield words
                words = []
            elif word in REDIRECTIONS:
                next(lexer)
            else:
                words.append(word)
        yield words


def commands_of(page: Path) -> Iterator[Command]:
    """Every command in the page's ``sh`` blocks, without variables set in front of it."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language != "sh":
            continue
        for words in split_commands(block):
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield Command(str(page.relative_to(ROOT)), tuple(words))


COMMANDS = [command for page in PAGES for command in commands_of(page)]


def program(command: Command) -> str:
    """The program's name; one of the checkout's own environment counts as the same."""
    return command.words[0].removeprefix(".venv/bin/")


def calls(name: str) -> list[Command]:
    """The commands that call the program ``name``."""
    return [command for command in COMMANDS if program(command) == name]


def distinct(name: str) -> list[tuple[str, ...]]:
    """What is called of the program ``name``, each once, without its own name."""
    return list(dict.fromkeys(command.words[1:] for command in calls(name)))
