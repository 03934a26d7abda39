"""Does a built site load anything over the network? ``python docsite/check_offline.py site`` says what, and fails.

Links that a reader may follow do not count; scripts, styles, fonts, pictures and frames do.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

REMOTE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
STYLE_LOADS = re.compile(r"""(?:url\(\s*|@import\s+)['"]?((?:https?:)?//[^'")\s]+)""", re.IGNORECASE)
LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"}


class _Loads(HTMLParser):
    """Addresses that a browser loads by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and LOADING_RELATIONS & set(values.get("rel", "").lower().split()):
            self.found.append(values.get("href", ""))
        self.found += [values[name] for name in ("src", "poster", "data") if name in values and tag != "a"]
        self.found += [each.split()[0] for each in values.get("srcset", "").split(",") if each.split()]
        self.found += STYLE_LOADS.findall(values.get("style", ""))


def remote_loads(site: Path) -> list[str]:
    """``page: address`` of everything that the pages and styles below ``site`` load from elsewhere."""
    found = []
    for file in sorted(site.rglob("*.html")):
        parser = _Loads()
        parser.feed(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(site)}: {each}" for each in parser.found if REMOTE.match(each)]
    for file in sorted(site.rglob("*.css")):
        addresses = STYLE_LOADS.findall(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(site)}: {each}" for each in addresses]
    return found


def main(site: Path) -> int:
    """0 if the site is whole and needs no network."""
    pages = len(list(site.rglob("*.html")))
    found = remote_loads(site)
    print("\n".join([*found, f"{pages} pages, {len(found)} loads from the network"]))
    return 1 if found or pages == 0 else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "site")))
