"""Writes the tables of docs/peers.md from the result file, so that no number is typed by hand.

    python benchmarks/peers/tables.py

Between ``<!-- NAME -->`` and ``<!-- end -->`` of the page the table of that name is put. ``--check`` writes nothing and ends
with 1 if the page is not as it would be written.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "peers.json"
PAGE = ROOT / "docs" / "peers.md"
PLACE = re.compile(r"(<!-- ([a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOTHING = "Not measured yet.\n"
AT_LEAST_DEFAULTS, AT_LEAST_BEST, AT_LEAST_PILE = 1.5, 1.0, 1.0
MOST_OF_OTHERS = 0.1
BARRED = ("coding-assistant", "recommendation")
PAST_KNEE = {"past": "twice the knee", "overload": "four times the knee"}
Cells = list[dict[str, Any]]
Document = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def groups(document: Document, load: str) -> dict[tuple[str, str, str], Cells]:
    """The turns of each (example, side, variant) of a load, in the order of the file's names."""
    found: dict[tuple[str, str, str], Cells] = {}
    for key, cell in document["cells"].items():
        example, of, side, variant, _ = key.split("|")
        if of == load and not variant.startswith("sweep"):
            found.setdefault((example, side, variant), []).append(cell)
    return dict(sorted(found.items(), key=lambda each: (each[0][0], each[0][1] != "setpoint", each[0])))


def mean(cells: Cells, pick: Callable[[dict[str, Any]], float | None]) -> float | None:
    """Over turns that have it; ``None`` if none has."""
    values = [value for each in cells if (value := pick(each)) is not None]
    return sum(values) / len(values) if values else None


def spread(cells: Cells, name: str, digits: int = 2) -> str:
    """Mean, and from the least to the most turn."""
    values = [float(each[name]) for each in cells]
    middle = f"{sum(values) / len(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ms(value: float | None) -> str:
    """Milliseconds."""
    return "-" if value is None else f"{1e3 * value:.0f} ms"


def level(metric: str, name: str) -> Callable[[dict[str, Any]], float | None]:
    """Picks a percentile."""
    return lambda cell: cell[metric][name]


def ratio(ours: Cells, theirs: Cells, name: str) -> float | None:
    """Ours over theirs, turn means; infinite where theirs is nothing; ``None`` where both are."""
    a, b = (sum(float(each[name]) for each in cells) / len(cells) for cells in (ours, theirs))
    return a / b if b else (float("inf") if a else None)


def times(value: float | None) -> str:
    """A ratio."""
    return "-" if value is None else "they have none" if value == float("inf") else f"{value:.2f}x"


def goodput(document: Document, load: str) -> str:
    """Goodput of one load."""
    found = groups(document, load)
    rows = []
    for (example, side, variant), cells in found.items():
        ours = found.get((example, "setpoint", "default"))
        over = "" if side == "setpoint" or ours is None else times(ratio(ours, cells, "goodput_rps"))
        rows.append(
            (
                example,
                side if side == "setpoint" else f"{side}, {variant}",
                f"{cells[0]['rate_rps']:.1f}/s",
                f"{len(cells)}",
                f"{sum(each['offered'] for each in cells)}",
                spread(cells, "goodput_rps"),
                f"{100 * (mean(cells, lambda each: each['goodput_fraction']) or 0.0):.0f} %",
                f"{sum(each['shed'] for each in cells)}",
                ms(mean(cells, level("ttft_s", "p95"))),
                ms(mean(cells, level("itl_s", "p99"))),
                ms(mean(cells, level("e2e_s", "p99"))),
                over,
            )
        )
    head = ("example", "server", "offered", "turns", "requests", "goodput/s", "good of offered", "refused")
    return table((*head, "TTFT P95", "ITL P99", "E2E P99", "setpoint's goodput over it"), rows) if rows else NOTHING


def light(document: Document) -> str:
    """Latencies where nobody is pressed."""
    rows = [
        (
            example,
            side if side == "setpoint" else f"{side}, {variant}",
            f"{cells[0]['rate_rps']:.1f}/s",
            *(ms(mean(cells, level(metric, name))) for metric in ("ttft_s", "itl_s") for name in ("p50", "p99")),
            ms(mean(cells, level("e2e_s", "p99"))),
            f"{100 * (mean(cells, lambda each: each['goodput_fraction']) or 0.0):.0f} %",
        )
        for (example, side, variant), cells in groups(document, "light").items()
    ]
    head = ("example", "server", "offered", "TTFT P50", "TTFT P99", "ITL P50", "ITL P99", "E2E P99", "good")
    return table(head, rows) if rows else NOTHING


def pile(document: Document) -> str:
    """Raw throughput."""
    found = groups(document, "pile")
    ours = next((cells for (_, side, _), cells in found.items() if side == "setpoint"), None)
    rows = [
        (
            side if side == "setpoint" else f"{side}, {variant}",
            f"{len(cells)}",
            f"{cells[0]['requests']} at {cells[0]['clients']} at once",
            spread(cells, "output_tokens_per_s", 0),
            "" if side == "setpoint" or ours is None else times(ratio(ours, cells, "output_tokens_per_s")),
        )
        for (_, side, variant), cells in found.items()
    ]
    return table(("engine", "turns", "requests", "output tokens/s", "setpoint over it"), rows) if rows else NOTHING


def sweep(document: Document) -> str:
    """What was tried for the best static flags."""
    rows = []
    for key, cell in document["cells"].items():
        example, _, side, variant, _ = key.split("|")
        if variant.startswith("sweep"):
            rows.append((side, f"`{cell['flags']}`", example, f"{cell['rate_rps']:.1f}/s", f"{cell['goodput_fraction']:.0%}"))
    return table(("peer", "flags", "example", "offered", "good of offered"), sorted(rows)) if rows else NOTHING


def bars(document: Document) -> str:
    """What was asked and what was found."""
    rows = []
    for load, words in PAST_KNEE.items():
        found = groups(document, load)
        for (example, side, variant), cells in found.items():
            ours = found.get((example, "setpoint", "default"))
            if side != "setpoint" and example in BARRED and ours is not None:
                least = AT_LEAST_DEFAULTS if variant == "default" else AT_LEAST_BEST
                times_theirs = ratio(ours, cells, "goodput_rps")
                rows.append(_bar(f"{example} at {words}: goodput over {side}, {variant}", least, times_theirs))
    piles = groups(document, "pile")
    ours = next((cells for (_, side, _), cells in piles.items() if side == "setpoint"), None)
    for (_, side, variant), cells in piles.items():
        if side == "llama.cpp" and ours is not None:
            times_theirs = ratio(ours, cells, "output_tokens_per_s")
            rows.append(_bar(f"night-batch: output tokens/s over {side}, {variant}", AT_LEAST_PILE, times_theirs))
    return table(("what", "at least", "found", "holds"), rows) if rows else NOTHING


def _bar(what: str, least: float, found: float | None) -> tuple[str, str, str, str]:
    holds = found is not None and found >= least
    return what, f"{least:g}x", "neither has any" if found is None else times(found), "yes" if holds else "**no**"


def doubt(cell: dict[str, Any]) -> str:
    """Why a cell is not to be believed; empty if it is."""
    share = cell.get("others_cpu_share", 0.0)
    reasons = [f"others used {share:.0%} of the machine meanwhile"] if share > MOST_OF_OTHERS else []
    return "; ".join([*reasons, *([] if cell["valid"] else cell.get("reasons", ["the load generator says so"]))])


def conditions(document: Document) -> str:
    """The machine, the sittings, the precisions."""
    machine = document["machine"]
    lines = [f"{machine['cpu']}, {machine['cores_usable']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB.", ""]
    lines += [f"- {side}: {words}." for side, words in document["precision"].items()]
    lines += ["", f"{len(document['sittings'])} sittings; CPU use before each: "]
    lines[-1] += ", ".join(f"{each['cpu_percent_before']:g} %" for each in document["sittings"]) + "."
    doubtful = [f"{key.replace('|', ', ')}: {why}" for key, cell in document["cells"].items() if (why := doubt(cell))]
    if doubtful:
        lines += ["", f"Of {len(document['cells'])} cells {len(doubtful)} are doubtful:", ""]
        lines += [f"- {each}" for each in doubtful]
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[Document], str]] = {
    "conditions": conditions,
    "bars": bars,
    "past": lambda document: goodput(document, "past"),
    "overload": lambda document: goodput(document, "overload"),
    "light": light,
    "pile": pile,
    "sweep": sweep,
}


def written(text: str) -> str:
    """The page with its tables as the result file has them."""
    document = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else None

    def put(place: re.Match[str]) -> str:
        body = NOTHING if document is None else TABLES[place[2]](document)
        return f"{place[1]}{body}{place[3]}"

    return PLACE.sub(put, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    given = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    if given.check:
        return 0 if written(text) == text else 1
    PAGE.write_text(written(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
