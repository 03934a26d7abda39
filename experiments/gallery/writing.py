"""An outcome as files: ``result.json``, ``figure.svg``, ``README.md``; and all of them as one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gallery.catalogue import ROOT, load, names
from gallery.description import Expected, Experiment, Kind, Outcome, Size
from setpoint.report.charts.picture import write_picture
from setpoint.report.machine import machine_facts

RESULT, FIGURE, README = "result.json", "figure.svg", "README.md"
PAGE = ROOT.parent / "docs" / "experiments.md"
IMAGES = PAGE.parent / "images" / "experiments"

PAGE_HEAD = """\
# Experiments

Every claim that setpoint starts from, as an experiment that anyone can run: one folder each in `experiments/`, with its
command, the shape that is expected, a result file and a figure. Each ends with exit code 0 if the expected shape was seen and
1 if not, and takes at most five minutes.

```sh
python experiments/run.py --list
python experiments/run.py utilisation
make experiments
```

`make experiment-NAME` is the same for one; `make experiments` runs all in turn.
**Simulated** ones run the project's own policies and step loop on a virtual clock, with step times of named GPUs; each says
whether the coefficients of these times are `measured`, `transferred` from other GPUs or `physics` alone
([hardware.md](hardware.md), [error-card.md](error-card.md)). Latencies are those of the engine; only where the planner is asked
(what shaving 200 ms costs) they have its front end too. Their expected shape is checked by the tests, with smaller sizes.
**Measured** ones serve the demo model on the machine at hand, which should be idle; their result files name the machine they
were made on. Each result file holds the seed, the sample counts and the versions.

This page is written from the result files: `python experiments/run.py --page`.
"""


def command_of(name: str) -> str:
    """What runs it."""
    return f"python experiments/run.py {name}"


def result_of(experiment: Experiment, outcome: Outcome, *, size: Size, seed: int, wall_s: float) -> dict[str, Any]:
    """The result file's content: what another run with the same seed is to be compared with."""
    machine = machine_facts()
    simulated = {key: machine[key] for key in ("python", "setpoint")} | {"numpy": version("numpy")}
    return {
        "experiment": experiment.name,
        "kind": str(experiment.kind),
        "where": experiment.where,
        "command": command_of(experiment.name) + (" --quick" if size is Size.QUICK else "") + f" --seed {seed}",
        "size": str(size),
        "seed": seed,
        "wall_s": round(wall_s, 1),
        "machine": machine if experiment.kind is Kind.MEASURED else simulated,
        "holds": all(each.holds for each in outcome.expected),
        "expected": [_expected(each) for each in outcome.expected],
        "columns": list(outcome.columns),
        "rows": [list(row) for row in outcome.rows],
        "facts": outcome.facts,
    }


def _expected(each: Expected) -> dict[str, Any]:
    return {
        "what": each.what,
        "value": None if each.value is None else float(f"{each.value:.6g}"),
        "sense": each.sense,
        "bound": each.bound,
        "holds": each.holds,
    }


def keep(experiment: Experiment, outcome: Outcome, result: dict[str, Any], folder: Path) -> None:
    """Write the three files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    picture = outcome.picture
    write_picture(folder / FIGURE, picture.title, picture.x_name, picture.strips, x_form=picture.x_form, log_x=picture.log_x)
    (folder / README).write_text(readme(experiment, result), encoding="utf-8")


def kept(name: str) -> dict[str, Any]:
    """The result file of an experiment."""
    found: dict[str, Any] = json.loads((ROOT / name / RESULT).read_text(encoding="utf-8"))
    return found


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def body(experiment: Experiment, result: dict[str, Any], figure: str) -> str:
    """What README and page say alike, below their headings."""
    place = "Simulated" if experiment.kind is Kind.SIMULATED else "Measured here"
    machine = result["machine"]
    if experiment.kind is Kind.MEASURED:
        place += f" ({machine['cpu']}, {machine['cores_usable']} cores)"
    verdict = "The expected shape was seen." if result["holds"] else "**The expected shape was not seen.**"
    checks = [
        (each["what"], f"{each['sense']} {each['bound']:g}", _number(each["value"]), "yes" if each["holds"] else "**no**")
        for each in result["expected"]
    ]
    parts = [
        f"**{place}**: {experiment.where}",
        f"```sh\n{command_of(experiment.name)}\n```",
        experiment.method,
        f"**Expected.** {experiment.shape}",
        f"![{experiment.claim}]({figure})",
        f"**Result.** {verdict} Seed {result['seed']}, {result['wall_s']:.0f} s.",
        table(("expected", "bound", "found", "holds"), checks),
        table(result["columns"], result["rows"]),
        experiment.reading,
    ]
    return "\n\n".join(parts) + "\n"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def readme(experiment: Experiment, result: dict[str, Any]) -> str:
    """The experiment's own page."""
    return f"# {experiment.claim}\n\n{body(experiment, result, FIGURE)}"


def page() -> str:
    """All experiments, from their result files; those without one are only named."""
    parts = [PAGE_HEAD]
    found = [name for name in names() if (ROOT / name / RESULT).is_file()]
    missing = [name for name in names() if name not in found]
    summary = [
        (f"[{load(name).claim}](#{_anchor(load(name).claim)})", kept(name)["kind"], "yes" if kept(name)["holds"] else "**no**")
        for name in found
    ]
    summary += [(load(name).claim, str(load(name).kind), f"not run yet: `{command_of(name)}`") for name in missing]
    parts.append(table(("claim", "how", "shape seen"), summary) + "\n")
    for name in found:
        experiment = load(name)
        parts.append(f"## {experiment.claim}\n\n{body(experiment, kept(name), f'images/experiments/{name}.svg')}")
    return "\n".join(parts)


def publish() -> None:
    """Write the page; the figures go beside the other images of the docs, which a site is built from alone."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in names():
        if (ROOT / name / RESULT).is_file():
            (IMAGES / f"{name}.svg").write_bytes((ROOT / name / FIGURE).read_bytes())
    PAGE.write_text(page(), encoding="utf-8")


def _anchor(title: str) -> str:
    kept_characters = "".join(each for each in title.lower() if each.isalnum() or each in "_- ")
    return kept_characters.replace(" ", "-")
