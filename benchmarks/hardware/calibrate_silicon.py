"""Fits the bundled calibration on a fifth of a table of measurements, scores it on the rest, and writes the error card.

    python benchmarks/hardware/calibrate_silicon.py TABLE.csv
    python benchmarks/hardware/calibrate_silicon.py TABLE.csv --write
    python benchmarks/hardware/calibrate_silicon.py TABLE.csv --quick --seed 3

``--write`` replaces ``src/setpoint/hardware/data/calibrations/silicon.json`` and ``docs/error-card.md``. The same table and
seed give the same files. Rows that are fitted are chosen by ``setpoint.hardware.silicon``: at most a fifth of each group of one
engine, accelerator and model, spread over their settings; copies of one measurement are chosen together.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from setpoint.hardware.calibrations import SCHEMA, HeldOut, group_name
from setpoint.hardware.effects import Effects
from setpoint.hardware.fit_effects import Rows, fit_effects, logarithms_of, rows_of
from setpoint.hardware.measurements import Measurement, Setting, read_measurements
from setpoint.hardware.silicon import SHARE, chosen_rows
from setpoint.hardware.stated import stated_logs

ROOT = Path(__file__).resolve().parents[2]
CALIBRATION = ROOT / "src/setpoint/hardware/data/calibrations/silicon.json"
CARD = ROOT / "docs/error-card.md"
NAME = "silicon"
NOTE = (
    "a fifth of each group of silicon_measured_agg.csv (aiconfigurator-core 0.12.0, Apache-2.0; partly SemiAnalysis InferenceX)"
)
# How many rows the error of all counts in that of a group.
SHRINKAGE = 10.0
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Usable rows: their measurements, settings, and arrays."""

    measurements: list[Measurement]
    settings: list[Setting]
    rows: Rows
    all_rows: int
    refused: dict[str, int]


def usable(measurements: Sequence[Measurement]) -> Table:
    """The rows that have a setting and both measurements."""
    kept = [row for row in measurements if row.setting is not None and row.ttft_s and row.tpot_s]
    settings = [row.setting for row in kept if row.setting is not None]
    refused: dict[str, int] = defaultdict(int)
    for row in measurements:
        if row.setting is None:
            refused[row.refused] += 1
    rows = rows_of(settings, [row.ttft_s or 0.0 for row in kept], [row.tpot_s or 0.0 for row in kept])
    return Table(kept, settings, rows, len(measurements), dict(refused))


def off(effects: Effects, table: Table, places: Sequence[int]) -> Array:
    """ln(stated / measured) of TTFT and TPOT, shape (places, 2)."""
    rows = table.rows.some(places)
    found: Array = stated_logs(rows, logarithms_of(effects, rows)) - rows.logs
    return found


def measured_as(row: Measurement) -> tuple[str, str, float | None, float | None]:
    """The same for copies of one measurement, whatever model they are listed under (DeepSeek-V3 and R1 share some)."""
    return (*row.group[:2], row.ttft_s and round(row.ttft_s, 7), row.tpot_s and round(row.tpot_s, 8))


def held_out(off_by: Array) -> HeldOut:
    """Errors of rows that were not fitted; the deviation is half of the spread between the 16th and 84th percentile."""
    low, high = np.quantile(off_by, (0.16, 0.84), axis=0)
    ttft, tpot = np.abs(np.exp(off_by) - 1).mean(axis=0).tolist()
    deviation = ((high - low) / 2).tolist()
    return HeldOut(len(off_by), round(tpot, 4), round(ttft, 4), round(deviation[1], 4), round(deviation[0], 4))


def left_out(table: Table, fitted: Sequence[int], key: Callable[[Setting], str]) -> dict[str, Array]:
    """For each value of ``key``: errors of all its rows by effects fitted on the fitted rows of all others."""
    names = [key(setting) for setting in table.settings]
    found = {}
    for name in sorted(set(names)):
        effects = fit_effects(table.rows.some([place for place in fitted if names[place] != name]))
        found[name] = off(effects, table, [place for place, each in enumerate(names) if each == name])
        print(f"without {name}: {describe(found[name])}", flush=True)
    return found


def group_deviations(table: Table, places: Sequence[int], off_by: Array) -> dict[str, float]:
    """By group: the 68 % quantile of |ln(predicted / measured)| of TPOT, shrunk to that of all as ``SHRINKAGE`` rows would."""
    sizes = np.abs(off_by[:, 1])
    whole = float(np.quantile(sizes, 0.68))
    groups: dict[str, list[float]] = defaultdict(list)
    for place, size in zip(places, sizes.tolist(), strict=True):
        groups[group_name(table.settings[place].deployment)].append(size)
    return {
        name: round(
            float(np.sqrt((SHRINKAGE * whole**2 + len(each) * np.quantile(each, 0.68) ** 2) / (SHRINKAGE + len(each)))), 4
        )
        for name, each in sorted(groups.items())
    }


def describe(off_by: Array) -> str:
    """Rows and errors in words."""
    errors = np.abs(np.exp(off_by) - 1)
    mean, middle = errors.mean(axis=0), np.median(errors, axis=0)
    return f"{len(off_by)} rows, TPOT {mean[1]:.1%} (median {middle[1]:.1%}), TTFT {mean[0]:.1%} (median {middle[0]:.1%})"


def line(name: Sequence[object], off_by: Array) -> str:
    """A line of a table of the card."""
    errors = np.abs(np.exp(off_by) - 1)
    mean, middle = errors.mean(axis=0), np.median(errors, axis=0)
    cells = [*name, len(off_by), f"{mean[1]:.1%}", f"{middle[1]:.1%}", f"{mean[0]:.1%}", f"{middle[0]:.1%}"]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def heading(*names: str) -> str:
    """The first two lines of a table of the card."""
    columns = [*names, "rows", "TPOT mean", "median", "TTFT mean", "median"]
    marks = ["---"] * len(names) + ["---:"] * 5
    return "| " + " | ".join(columns) + " |\n| " + " | ".join(marks) + " |\n"


Parts = dict[str, dict[str, Array]]


def card(table: Table, sections: dict[str, Array], groups: dict[tuple[str, ...], Array], parts: Parts, fitted: int) -> str:
    """The error card."""
    covered = len(table.settings) / table.all_rows
    text = f"""# Error card

How far predictions of mean TPOT and TTFT are from measurements that were not fitted: absolute relative errors, mean and
median. Written by the command below, from the table it names; nothing here is typed in by hand. What a prediction is, and what
the columns of the table mean: [hardware.md](hardware.md).

```sh
python benchmarks/hardware/calibrate_silicon.py silicon_measured_agg.csv --write
```

{table.all_rows} rows, of which {covered:.1%} can be predicted; {fitted} were fitted (at most {SHARE:.0%} of each group of one
engine, accelerator and model). The bars of this project: TPOT 8 % and TTFT 20 % where calibrated, TPOT 18 % for an unseen
accelerator, coverage 95 %.

"""
    text += heading("how the coefficients were had") + "\n".join(line([name], off_by) for name, off_by in sections.items())
    text += "\n\n## Rows not fitted, by group\n\n" + heading("engine", "accelerator", "model")
    text += "\n".join(line(list(name), off_by) for name, off_by in groups.items())
    for title, found in parts.items():
        text += f"\n\n## {title}\n\n" + heading("left out") + "\n".join(line([name], each) for name, each in found.items())
    text += "\n\n## Rows refused\n\n| rows | why |\n| ---: | --- |\n"
    text += "\n".join(f"| {count} | {why} |" for why, count in sorted(table.refused.items()))
    return text + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--quick", action="store_true", help="rows not fitted alone")
    asked = parser.parse_args()
    measurements = read_measurements(asked.table)
    table = usable(measurements)
    place_of = {id(row): place for place, row in enumerate(table.measurements)}
    fitted = [place_of[id(measurements[place])] for place in chosen_rows(measurements, seed=asked.seed)]
    seen = {measured_as(table.measurements[place]) for place in fitted}
    rest = [place for place, row in enumerate(table.measurements) if measured_as(row) not in seen]
    effects = fit_effects(table.rows.some(fitted))
    print(f"fitted on {len(fitted)} rows: {describe(off(effects, table, fitted))}")
    tested = off(effects, table, rest)
    print(f"kept aside: {describe(tested)}", flush=True)
    if asked.quick:
        return
    accelerators = left_out(table, fitted, lambda setting: setting.deployment.accelerator.name)
    models = left_out(table, fitted, lambda setting: setting.deployment.model.shape)
    sections = {
        "measured: rows not fitted": tested,
        "transferred: one accelerator left out at a time": np.concatenate(list(accelerators.values())),
        "one model left out at a time": np.concatenate(list(models.values())),
        "physics: prior means alone": off(Effects({}), table, range(len(table.settings))),
    }
    for name, off_by in sections.items():
        print(f"{name}: {describe(off_by)}")
    if asked.write:
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, place in enumerate(rest):
            groups[table.measurements[place].group].append(number)
        by_group = {name: tested[numbers] for name, numbers in sorted(groups.items())}
        keep(table, effects, fitted, sections, group_deviations(table, rest, tested))
        parts = {"One accelerator left out": accelerators, "One model left out": models}
        CARD.write_text(card(table, sections, by_group, parts, len(fitted)), encoding="utf-8")
        print(f"written: {CALIBRATION} ({CALIBRATION.stat().st_size / 1e3:.0f} kB), {CARD}")


def keep(
    table: Table,
    effects: Effects,
    fitted: Sequence[int],
    sections: dict[str, Array],
    deviations: dict[str, float],
) -> None:
    """Write the calibration."""
    kinds = dict(zip(("measured", "transferred", "measured, unseen model", "physics"), sections.values(), strict=True))
    document = {
        "schema": SCHEMA,
        "kind": "effects",
        "name": NAME,
        "note": NOTE,
        **effects.as_document(),
        "rows": sorted(table.measurements[place].name for place in fitted),
        "errors": {kind: asdict(held_out(off_by)) for kind, off_by in kinds.items()},
        "deviations": deviations,
    }
    CALIBRATION.write_text(json.dumps(document, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
