"""What MkDocs calls while it builds: pages written from the code, the decisions in the navigation, links put right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from links import for_site
from pages import generated_pages

DECISIONS = "Decisions"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the section of decisions from its folder: a new one needs no line in mkdocs.yml."""
    folder = Path(config.docs_dir) / "decisions"
    decisions = [f"decisions/{file.name}" for file in sorted(folder.glob("*.md"))]
    for section in config.nav or []:
        if isinstance(section, dict) and DECISIONS in section:
            section[DECISIONS] = decisions
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from the code."""
    for place, text in generated_pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that lead out of the docs."""
    return for_site(markdown, page.file.src_uri)
