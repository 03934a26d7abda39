"""Writes the result tables of docs/contention.md from the result files, so that no number is typed by hand.

    python benchmarks/contention/tables.py

Between ``<!-- NAME -->`` and ``<!-- end -->`` of the page the table of ``contention_NAME.json`` is put; where there is no such
file, a line that says so. ``--check`` writes nothing and ends with 1 if the page is not as it would be written.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from script import RESULTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contention.md"
PLACE = re.compile(r"(<!-- ([a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Document = dict[str, Any]


def number(value: Any) -> str:
    """Three digits; what never came is a word, and of too few samples there is no number."""
    if value is None or value == "nan" or value != value:
        return "-"
    if isinstance(value, str):
        return "never" if value == "inf" else value
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def share(value: Any) -> str:
    """Percent."""
    return "-" if value is None else f"{100 * value:.1f} %"


def seconds(value: Any) -> str:
    """With unit."""
    return f"{number(value)} s" if isinstance(value, int | float) else number(value)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def criteria(document: Document) -> str:
    """What was asked and what was found."""
    rows = []
    for each in document["criteria"]:
        asked = f"{'at most' if each['sense'] == 'at_most' else 'at least'} {number(each['limit'])}"
        found = [each["name"], asked, number(each["value"]), number(each["samples"]), "yes" if each["holds"] else "**no**"]
        rows.append(found)
    return table(["what", "asked", "found", "samples", "holds"], rows) if rows else ""


def knee(document: Document) -> str:
    """The knees."""
    rows = [
        [name, share(each["least_goodput_fraction"]), f"{number(each['knee_rps'])}/s", str(len(each["loads"]))]
        for name, each in document["examples"].items()
    ]
    return table(["example", "good of offered, at least", "knee", "loads"], rows)


def overload(document: Document) -> str:
    """Every side at every load."""
    rows = [
        [
            name,
            side,
            f"{load['factor']}x ({number(load['rate_rps'])}/s)",
            str(load["offered"]),
            share(load["admitted"] / load["offered"]),
            share(load["late_of_admitted"]),
            f"{number(load['goodput_rps'])}/s",
            number(load["goodput_tokens_per_s"]),
            seconds(load["ttft_p99_s"]),
            seconds(load["e2e_p99_s"]),
            number(load["e2e_spread"]),
        ]
        for name, sides in document["examples"].items()
        for side, loads in sides.items()
        for load in loads
    ]
    head = ["example", "server", "load", "offered", "admitted", "late of admitted", "goodput", "good tokens/s"]
    return table([*head, "TTFT P99", "E2E P99", "P99/P50"], rows)


def burst(document: Document) -> str:
    """The windows after a burst's end."""
    low, high = document["steady_interval_s"]
    rows = [
        [f"{number(each['after_s'])} to {number(each['after_s'] + 1)} s", str(each["admitted"]), seconds(each["p99_s"])]
        for each in document["windows"]
    ]
    words = f"Steady interval of the P99: {seconds(low)} to {seconds(high)}.\n\n"
    return words + table(["after the burst's end", "admitted, pooled", "P99"], rows)


def step_time(document: Document) -> str:
    """Errors by kind of step."""
    rows = [
        [
            each["steps"],
            f"{each['decodes'][0]} to {each['decodes'][1]}" if each["decodes"][1] < 1024 else f"{each['decodes'][0]} and more",
            str(each["n"]),
            f"{1e3 * each['mean_s']:.1f} ms",
            share(each["median"]),
            share(each["p95"]),
        ]
        for each in document["kinds"]
    ]
    return table(["steps", "decodes", "n", "mean time", "median error", "P95 error"], rows)


def retry(document: Document) -> str:
    """How often they had to come."""
    rows = [[str(refusals), str(count)] for refusals, count in enumerate(document["attempts"])]
    words = (
        f"Median wait {seconds(document['median_wait_s'])}, of the oracle {seconds(document['oracle_median_wait_s'])};"
        f" {number(document['capacity_rps'])} requests/s are served when full.\n\n"
    )
    return words + table(["refused so often", "clients"], rows)


def streaming(document: Document) -> str:
    """Both sides, every round."""
    rows = []
    for side, rounds in document["sides"].items():
        for each in rounds:
            plans, figures = each["plans"], each["figures"]
            prompt = plans["prompt_tokens_a_step"] or {"p50": None, "p95": None}
            goodput = f"{number(figures['goodput_rps'])}/s"
            sizes = [number(prompt["p50"]), number(prompt["p95"]), number(plans["decodes_mean"])]
            rows.append([side, goodput, str(plans["steps"]), *sizes, f"{1e3 * plans['step_s']['p95']:.0f} ms"])
    head = ["answers", "goodput", "steps", "prompt tokens a step, P50", "P95", "decodes a step", "step time P95"]
    return table(head, rows)


def kv_pressure(document: Document) -> str:
    """Every context length."""
    rows = [
        [
            str(each["context_tokens"]),
            str(each["ended"]),
            seconds(each["e2e_p50_s"]),
            seconds(each["e2e_p99_s"]),
            number(each["preemptions_a_request"]),
            share(each["hit_rate"]),
            number(each["output_tokens_per_s"]),
        ]
        for each in document["loads"]
    ]
    words = f"The cache is full from a context of {number(document['knee_context_tokens'])} tokens.\n\n"
    return words + table(["context", "ended", "E2E P50", "E2E P99", "preemptions a request", "hit rate", "tokens/s"], rows)


def tenants(document: Document) -> str:
    """What each saw."""
    rows = [
        [name, str(each["offered"]), str(each["admitted"]), seconds(each["ttft_p50_s"]), seconds(each["ttft_p95_s"])]
        for name, each in document["tenants"].items()
    ]
    return table(["tenant", "offered", "admitted", "TTFT P50", "TTFT P95"], rows)


def tenants_simulated(document: Document) -> str:
    """What it buys and costs, by machine and load."""
    rows = []
    for each in document["rows"]:
        beside, large = each["tenants"]["beside"], each["tenants"]["large"]
        rows.append(
            [
                each["machine"],
                each["load"],
                "any" if each["isolation"] > 100 else f"{number(each['isolation'])}x",
                f"{each['ratio']:.2f}x",
                f"{beside['good']} of {beside['offered']}",
                f"{large['good']} of {large['offered']}",
            ]
        )
    head = ["machine", "tenants", "others may wait", "TTFT P95 of the small one, of its value alone", "its good requests"]
    return table([*head, "the large one's"], rows)


def batch_beside(document: Document) -> str:
    """Every round."""
    rows = [
        [
            share(each["interactive_busy_share"]),
            number(each["batch_alone_tokens_per_s"]),
            number(each["left_over_tokens_per_s"]),
            number(each["batch_beside_tokens_per_s"]),
            share(each["interactive_alone"]["goodput_fraction"]),
            share(each["interactive_beside"]["goodput_fraction"]),
        ]
        for each in document["rounds"]
    ]
    head = ["interactive alone: busy", "batch alone, tokens/s", "left over, tokens/s", "batch beside, tokens/s"]
    return table([*head, "interactive alone: good", "beside: good"], rows)


def soak(document: Document) -> str:
    """The whole of it."""
    figures = document["figures"]
    memory = [each["bytes"] / 2**20 for each in document["memory"]]
    rows = [
        [
            number(document["seconds"]),
            str(figures["offered"]),
            share(figures["goodput_fraction"]),
            seconds(figures["e2e_p99_s"]),
        ]
    ]
    rows[0] += [f"{memory[0]:.0f} MiB", f"{memory[-1]:.0f} MiB"] if memory else ["-", "-"]
    return table(["seconds", "offered", "good", "E2E P99", "memory at the start", "at the end"], rows)


TABLES: dict[str, Callable[[Document], str]] = {
    "knee": knee,
    "overload": overload,
    "burst": burst,
    "step_time": step_time,
    "retry": retry,
    "soak": soak,
    "streaming": streaming,
    "kv_pressure": kv_pressure,
    "tenants": tenants,
    "tenants_simulated": tenants_simulated,
    "batch_beside": batch_beside,
}


def section(name: str) -> str:
    """What stands in the page for one result file."""
    file = RESULTS / f"contention_{name}.json"
    if not file.is_file():
        return "Not measured yet.\n"
    document: Document = json.loads(file.read_text(encoding="utf-8"))
    shown = TABLES[name.removesuffix("_stretched")](document)
    if document.get("simulated"):
        return f"`{document['command']}`, simulated:\n\n{shown}\n"
    machine = document["machine"]
    took = f"{document['wall_s'] / 60:.1f} minutes, CPU use before {document['cpu_percent_before']:g} %"
    words = f"`{document['command']}`, {machine['cpu']}, {machine['cores_usable']} cores, {took}:"
    return "\n\n".join(part for part in (words, criteria(document), shown) if part) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the page would change")
    given = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = PLACE.sub(lambda found: f"{found[1]}{section(found[2])}{found[3]}", before)
    if given.check:
        sys.exit(before != after)
    PAGE.write_text(after, encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
