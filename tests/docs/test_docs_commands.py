"""What the documentation says exists: commands and their options, make targets, links, files, paths of the server."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from docs_commands import COMMANDS, FENCE, PAGES, ROOT, Command, calls, program

from setpoint.cli import app
from setpoint.loop.candidates import candidates_for
from setpoint.requirement import example_names, example_text, parse_requirement

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SOURCE_PATH = re.compile(r"\b(?:src|tests|docs|benchmarks)/[\w./-]*\w/?")
METRIC = re.compile(r"`setpoint_(\w+)`")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
ROUTE = re.compile(r'Route\("([^"]+)"')
# Programs that commands in the pages may call besides setpoint, make and Python; their options are not checked.
OTHER_PROGRAMS = {".", "cd", "curl", "git", "pip", "pytest", "test"}
OPTION = re.compile(r"--[a-z][a-z-]*")


def parse_setpoint(words: tuple[str, ...]) -> None:
    """Parse as the program would, without running it. Raises what the parser raises; ``--help`` ends it early."""
    group: Any = typer.main.get_command(app)
    if not words or words[0].startswith("-"):
        assert set(words) <= {"--help", "--version"}, f"options of setpoint itself: {words}"
        return
    rest = list(words)
    while hasattr(group, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in group.commands, f"no command {rest[0]}; there are {', '.join(group.commands)}"
        group = group.commands[rest.pop(0)]
    if "--help" not in rest:
        group.make_context(words[0], rest)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", calls("setpoint"), ids=str)
def test_setpoint_commands_parse(command: Command) -> None:
    try:
        parse_setpoint(command.words[1:])
    except Exception as error:
        pytest.fail(f"{command}: {getattr(error, 'message', error)}")


@pytest.mark.parametrize("command", calls("make"), ids=str)
def test_make_targets_exist(command: Command) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    wanted = {word for word in command.words[1:] if "=" not in word}
    assert wanted <= targets, f"{command}: the Makefile has {', '.join(sorted(targets))}"


@pytest.mark.parametrize("command", calls("python"), ids=str)
def test_python_modules_and_files_exist(command: Command) -> None:
    _, first, *rest = command.words
    if first == "-m":
        assert rest[0] in ("venv", "pip") or importlib.util.find_spec(rest[0]) is not None, str(command)
    else:
        assert (ROOT / first).is_file(), str(command)
        sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / first).parent.glob("*.py"))
        unknown = [word for word in rest if OPTION.fullmatch(word) and f'"{word}"' not in sources]
        assert unknown == [], f"{command}: {first} and its neighbours have no such option"


@pytest.mark.parametrize("command", calls("curl"), ids=str)
def test_paths_asked_for_exist(command: Command) -> None:
    routes = set(ROUTE.findall((ROOT / "src/setpoint/server/app.py").read_text(encoding="utf-8")))
    urls = [word for word in command.words if word.startswith("http://")]
    paths = {"/" + url.partition("?")[0].split("/", 3)[3] for url in urls}
    assert paths, f"{command}: no URL"
    assert paths <= routes, f"{command}: the server has {', '.join(sorted(routes))}"


def test_every_command_is_of_a_known_program() -> None:
    known = OTHER_PROGRAMS | {"setpoint", "make", "python"}
    assert [str(command) for command in COMMANDS if program(command) not in known] == []


def test_pages_show_every_setpoint_command() -> None:
    group: Any = typer.main.get_command(app)
    shown = {command.words[1] for command in calls("setpoint") if len(command.words) > 1}
    assert set(group.commands) <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{link}: there is no {target}"
        if anchor and file.suffix == ".md":
            assert anchor in headings(file), f"{link}: no such heading in {file.name}"


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of the page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_exist(page: Path) -> None:
    missing = [path for path in SOURCE_PATH.findall(page.read_text(encoding="utf-8")) if not (ROOT / path).exists()]
    assert missing == []


def test_metrics_named_are_the_servers() -> None:
    files = ("server/metrics", "server/process_metrics", "loop/adapt/metrics")
    source = "".join((ROOT / f"src/setpoint/{name}.py").read_text() for name in files)
    named = {name for page in PAGES for name in METRIC.findall(page.read_text(encoding="utf-8"))}
    absent = [name for name in sorted(named) if not re.search(rf'"(setpoint_)?{name.removesuffix("_total")}"', source)]
    assert absent == []


def test_candidates_listed_are_those_of_tune() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/tuning.md").read_text(encoding="utf-8"), re.MULTILINE)
    real = {name for each in example_names() for name in candidates_for(parse_requirement(example_text(each), each))}
    assert set(rows) == real, "the table in docs/tuning.md is to be that of src/setpoint/loop/candidates.py"


def test_requirements_shown_are_judged_as_the_page_says() -> None:
    page = (ROOT / "docs/requirement.md").read_text(encoding="utf-8")
    good, bad = (block for language, block in FENCE.findall(page) if language == "yaml")
    assert parse_requirement(good, "good.yaml").name == "my-chat"
    message = next(block for language, block in FENCE.findall(page) if language == "text")
    with pytest.raises(Exception, match="found this key") as refused:
        parse_requirement(bad, "bad.yaml")
    assert f"setpoint: {refused.value}" == message.strip()
