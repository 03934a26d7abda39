"""The docs site: every page is in the navigation, what is written from the code is whole, nothing comes over the network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from setpoint.cli import app

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docsite"))

from check_offline import main, remote_loads  # noqa: E402
from links import for_site  # noqa: E402
from pages import commands, generated_pages  # noqa: E402


class _Plain(yaml.SafeLoader):
    """YAML in which a tag of MkDocs's own is nothing."""


_Plain.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def navigated(part: Any) -> list[str]:
    """Every page below a part of the navigation."""
    if isinstance(part, str):
        return [part]
    return [page for each in (part.values() if isinstance(part, dict) else part) for page in navigated(each)]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generated_pages()


def test_every_page_is_in_the_navigation_once(pages: dict[str, str]) -> None:
    configuration = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Plain)
    named = navigated(configuration["nav"])
    written = [str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md")]
    there = {each for each in written if not each.startswith("decisions/")} | set(pages)
    assert sorted(named) == sorted(there), "the navigation in mkdocs.yml and the pages under docs/ are to be the same"


def test_every_command_and_option_is_in_the_reference(pages: dict[str, str]) -> None:
    text = pages["reference/commands.md"]
    for words, command in commands(typer.main.get_command(app)):
        assert f"\n## {' '.join(words)}\n" in text
        for each in command.params:
            if each.param_type_name == "option" and not each.hidden:
                assert all(f"`{name}`" in text for name in each.opts), each.opts
    assert "setpoint runs trend" in text


def test_the_other_references_name_what_they_are_of(pages: dict[str, str]) -> None:
    assert all(f"`{name}`" in pages["reference/requirement-fields.md"] for name in ("slo", "profile", "objective", "limit_s"))
    assert all(f"`{name}`" in pages["reference/report-fields.md"] for name in ("schema", "p99_ci", "goodput_fraction", "knee"))
    modules = {file.stem for file in (ROOT / "src/setpoint/policy").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"^## (\w+)$", pages["reference/policy-modules.md"], re.MULTILINE)) == modules
    assert "## night-batch\n\n```yaml" in pages["reference/examples.md"]


def test_tables_have_as_many_cells_in_every_row(pages: dict[str, str]) -> None:
    for place, text in pages.items():
        for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
            counts = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
            assert len(counts) == 1, f"{place}: {block}"


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("index.md", "[a](start.md#x)", "[a](start.md#x)"),
        ("index.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("decisions/1.md", "[a](../policies.md)", "[a](../policies.md)"),
        ("decisions/1.md", "[a](../../CONTRIBUTING.md#b)", "[a](../contributing.md#b)"),
        ("start.md", "[it](../src/setpoint/examples/night-batch.yaml)", "[it](reference/examples.md#night-batch)"),
        ("start.md", "[b](../benchmarks/results)", "b (`benchmarks/results`)"),
        ("start.md", "[`src/x.py`](../src/x.py)", "`src/x.py`"),
        ("contributing.md", "[p](docs/policies.md)", "[p](policies.md)"),
        (
            "start.md",
            "![p](images/report.png) [x](#y) [z](https://a.b/c)",
            "![p](images/report.png) [x](#y) [z](https://a.b/c)",
        ),
        ("start.md", "```\n[b](../benchmarks)\n```\n", "```\n[b](../benchmarks)\n```\n"),
    ],
)
def test_links_lead_to_pages(page: str, link: str, becomes: str) -> None:
    assert for_site(link, page) == becomes


def test_what_a_page_would_load_over_the_network_is_found(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text('<link rel="canonical" href="https://a/"><a href="https://b/">b</a><img src="x.png"><script src="a.js">')
    assert remote_loads(tmp_path) == []
    assert main(tmp_path) == 0
    page.write_text('<script src="https://c/x.js"></script><img srcset="//d/y.png 2x"><link rel="stylesheet" href="http://e">')
    (tmp_path / "a.css").write_text('@import "https://f/g.css"; a { background: url(data:x) } b { background: url(//h/i.png) }')
    found = remote_loads(tmp_path)
    assert [each.split(": ")[1] for each in found] == [
        "https://c/x.js",
        "//d/y.png",
        "http://e",
        "https://f/g.css",
        "//h/i.png",
    ]
    assert main(tmp_path) == 1
    assert main(tmp_path / "nowhere") == 1
