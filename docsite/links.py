"""Links of the pages: in the repository they may lead to any file, on the site only to pages."""

from __future__ import annotations

import re
from os.path import normpath, relpath
from pathlib import PurePosixPath

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
EXAMPLES = "src/setpoint/examples/"


def for_site(markdown: str, page: str) -> str:
    """``markdown`` of the page at ``page`` (under ``docs/``), links out of ``docs/`` put right.

    CONTRIBUTING.md and the shipped requirements have pages of their own; of any other file the path is shown instead.
    """
    parts = FENCE.split(markdown)
    return "".join(
        part if number % 2 else LINK.sub(lambda found: _link(found, page), part) for number, part in enumerate(parts)
    )


def _link(found: re.Match[str], page: str) -> str:
    text, target = found["text"], found["target"]
    if "://" in target or target.startswith(("#", "mailto:")):
        return found[0]
    path, _, anchor = target.partition("#")
    # CONTRIBUTING.md lies beside docs/ in the repository, and among the pages on the site.
    here = PurePosixPath(".") if page == "contributing.md" else PurePosixPath("docs") / PurePosixPath(page).parent
    file = normpath(str(here / path))
    if file == "CONTRIBUTING.md":
        return f"[{text}]({_relative('contributing.md', page)}{_anchored(anchor)})"
    if file.startswith(EXAMPLES) and file.endswith(".yaml"):
        return f"[{text}]({_relative('reference/examples.md', page)}#{PurePosixPath(file).stem})"
    if file.startswith("docs/"):
        return f"[{text}]({_relative(file.removeprefix('docs/'), page)}{_anchored(anchor)})"
    return f"`{file}`" if text in (file, f"`{file}`") else f"{text} (`{file}`)"


def _relative(target: str, page: str) -> str:
    return relpath(target, str(PurePosixPath(page).parent))


def _anchored(anchor: str) -> str:
    return f"#{anchor}" if anchor else ""
