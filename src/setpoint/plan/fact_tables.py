"""The facts that the project starts from, as tables: ``python -m setpoint.plan.fact_tables NAME``.

Each line of a table says where its coefficients come from: ``measured``, ``transferred`` or ``physics``.
``--markdown`` prints the whole page ``docs/mission-facts.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from setpoint.plan.economy import Goal
from setpoint.plan.facts import (
    CHAT,
    CONTEXTS,
    GAP_LIMITS_S,
    LARGE,
    MODEL,
    SHAVED_S,
    UNDER_WAY,
    batches,
    best_for,
    largest_batches,
    latency_s,
    pressed,
    shaved,
)
from setpoint.plan.processes import ProcessRunner
from setpoint.plan.simulated_trial import TrialOf
from setpoint.requirement import parse_requirement

PAGE_HEAD = """\
# The facts that the project starts from

They come out of the planner: each is a command, each figure is labelled with where its coefficients come from. `measured`:
fitted on measurements of that accelerator and engine. `transferred`: from the same engine on other accelerators. `physics`:
datasheet and prior means alone. The measurements that the bundled calibration is fitted on have no row of an A100 and none of
any AMD accelerator ([hardware.md](hardware.md)), so A100 and MI300X are predicted and not known; the sense of each fact is what
the tests hold (`tests/plan/test_plan_facts.py`), its figures are as good as their label.

This page is what `python -m setpoint.plan.fact_tables --markdown` prints.
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """A table: its claim, its sentence, its columns, its rows (the last column is the source), and how to read it."""

    claim: str
    sentence: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    reading: str


def utilisation_fact() -> Fact:
    """One request leaves an A100 idle, 32 use it."""
    rows = tuple(
        (f"{b.batch}", f"{b.step_s * 1e3:.1f} ms", f"{b.tokens_per_s:,.0f}", f"{100 * b.utilisation:.1f} %", b.source)
        for b in batches()
    )
    return Fact(
        "32 requests approach meaningful utilisation where one leaves an A100 idle",
        f"{MODEL} on one A100-80, requests of 500 + 200 tokens in balance: what a batch uses of the arithmetic.",
        ("requests at once", "step", "output tokens/s", "arithmetic used", "source"),
        rows,
        "Weights are read once a step whatever the batch, so up to about 32 requests a step takes hardly longer "
        "and gives that many more tokens. Beyond that prompts and decodes fill the arithmetic, steps grow with the "
        "batch, and only latency is left to pay.",
    )


def bound_fact() -> Fact:
    """Cards differ in what binds them."""
    rows = tuple(
        (f"{each.gap_s * 1e3:.0f} ms", each.hardware, f"{each.by_time}", f"{each.by_memory}", each.bound, each.source)
        for gap_s in GAP_LIMITS_S
        for each in largest_batches(gap_s)
    )
    return Fact(
        "A100, H100 and MI300X differ in what binds them",
        f"{MODEL}, 2,048 tokens of context: the largest batch within a gap between tokens, by time and by memory.",
        ("gap", "hardware", "by time", "by memory", "bound by", "source"),
        rows,
        "The smaller of the two binds. Between about 40 and 50 ms the H100 runs out of memory while the A100, with "
        "as much of it, is still short of bandwidth, and so is the MI300X, with more than twice as much. One "
        "constant batch size cannot be right.",
    )


def context_fact() -> Fact:
    """An 80 GB card preempts where a 192 GB one stays flat."""
    rows = tuple(
        (
            f"{each.context_tokens:,}",
            each.hardware,
            f"{each.token_p50_s * 1e3:.1f} ms",
            f"{each.token_p99_s * 1e3:.1f} ms",
            f"{each.together:.1f}",
            f"{each.preemptions}",
            each.source,
        )
        for context in CONTEXTS
        for each in (pressed(hardware, context) for hardware in ("h100-sxm", "mi300x"))
    )
    return Fact(
        "An MI300X stays flat at context lengths where an 80 GB card preempts",
        f"{MODEL}, {UNDER_WAY} requests at once, half of each context prompt and half answer: E2E over output tokens.",
        ("context", "hardware", "P50", "P99", "together", "preemptions", "source"),
        rows,
        "Simulated with vLLM's scheduler. Reading a longer cache takes longer on both. On the H100 the cache of 80 "
        "GB is full from about 13,800 tokens a request on: requests are preempted and computed again, fewer run "
        "together, and P99 leaves P50. On the MI300X they stay equal.",
    )


def objective_fact() -> Fact:
    """One workload on one card, two configurations."""
    rows = []
    with ProcessRunner(TrialOf(parse_requirement(CHAT, "facts"))) as runner:
        for goal in (Goal.LATENCY, Goal.TOKENS_PER_USD):
            best = best_for(goal, runner)
            usd = best.at_scale_usd
            cost = "-" if usd is None else f"${usd * 1e6:.2f}"
            rows.append((goal.value, best.option.serving.name, f"{latency_s(best) * 1e3:.1f} ms", cost, best.option.source))
    return Fact(
        "One workload on one GPU gets another configuration for TTFT than for tokens/s/$",
        f"{MODEL} on one H100, the same requests (TTFT P95 <= 1 s, ITL P99 <= 50 ms), by what is wanted.",
        ("objective", "configuration", "TTFT P95 at 2/s", "USD a million requests at the knee", "source"),
        tuple(rows),
        "The configuration is vLLM's --max-num-seqs and --max-num-batched-tokens. A large token budget takes a prompt "
        "whole, which is the earliest first token; a small one keeps the gaps between tokens of the others within their "
        "limit at a higher load. The limit on ITL is chosen so that this shows; at 80 ms one budget is right for both.",
    )


def shave_fact() -> Fact:
    """What 200 ms less cost."""
    with ProcessRunner(TrialOf(parse_requirement(LARGE, "facts"))) as runner:
        found = shaved(runner)
    by_limit = {round(each.limit_s, 3): each.usd_per_million for each in found}
    rows = []
    for each in found:
        tighter = by_limit.get(round(each.limit_s - SHAVED_S, 3))
        cost = "cannot be met" if each.usd_per_million is None else f"${each.usd_per_million:.2f}"
        factor = f"{tighter / each.usd_per_million:.1f}x" if tighter and each.usd_per_million else "-"
        rows.append((f"{each.limit_s * 1e3:.0f} ms", cost, factor, each.source))
    return Fact(
        "Shaving 200 ms can cost three times as much a token",
        "llama-3.1-70b on 4 x H100, prompts of about 1,200 tokens: a million output tokens by the limit on TTFT P95.",
        ("TTFT P95 limit", "USD a million output tokens", "cost of 200 ms less", "source"),
        tuple(rows),
        "The shadow price of a limit: a tighter one is held at a lower load, and the same dollars make fewer "
        "tokens. Far from what a prompt takes by itself it is small; near it, it explodes.",
    )


FACTS: dict[str, Callable[[], Fact]] = {
    "utilisation": utilisation_fact,
    "bound": bound_fact,
    "context": context_fact,
    "objective": objective_fact,
    "shave": shave_fact,
}


def page(names: Sequence[str]) -> str:
    """The facts as a page in Markdown."""
    parts = [PAGE_HEAD]
    for name in names:
        fact = FACTS[name]()
        lines = [f"## {fact.claim}", "", "```sh", f"python -m setpoint.plan.fact_tables {name}", "```", "", fact.sentence, ""]
        lines += ["| " + " | ".join(row) + " |" for row in (fact.columns, ("---",) * len(fact.columns), *fact.rows)]
        parts.append("\n".join([*lines, "", fact.reading, ""]))
    return "\n".join(parts)


def main() -> None:
    """Print the facts named, all without a name."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(prog="python -m setpoint.plan.fact_tables")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FACTS)}; default: all")
    parser.add_argument("--markdown", action="store_true", help="as the page docs/mission-facts.md")
    options = parser.parse_args()
    names = options.names or list(FACTS)
    unknown = [name for name in names if name not in FACTS]
    if unknown:
        parser.error(f"found {unknown[0]!r}; allowed: {', '.join(FACTS)}")
    if options.markdown:
        print(page(names), end="")
        return
    console = Console(highlight=False, width=110)
    for name in names:
        fact = FACTS[name]()
        console.print(fact.claim, style="bold", markup=False)
        console.print(fact.sentence, markup=False)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in fact.columns:
            table.add_column(column, justify="right")
        for row in fact.rows:
            table.add_row(*row)
        console.print(table)
        console.print(fact.reading, markup=False)
        console.print()


if __name__ == "__main__":
    main()
