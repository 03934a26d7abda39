"""Run experiments: their claims put to the test, each with its expected shape checked.

    python experiments/run.py --list
    python experiments/run.py utilisation
    python experiments/run.py utilisation waiting --quick --output build/experiments

Writes ``result.json``, ``figure.svg`` and ``README.md`` into the experiment's folder (or ``--output`` FOLDER/NAME). A quick run
is smaller and writes nothing without ``--output``. Exit code 0: every expected shape was seen; 1: one was not.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from gallery.catalogue import ROOT, load, names
from gallery.description import Size
from gallery.writing import keep, publish, readme, result_of

SEED = 1


def run_one(name: str, size: Size, seed: int, output: Path | None) -> bool:
    """Run an experiment, say what was found, write it down. Whether the expected shape was seen."""
    experiment = load(name)
    print(f"{name}: {experiment.claim} ({experiment.kind})", flush=True)
    began_s = time.monotonic()
    outcome = experiment.run(size, seed)
    result = result_of(experiment, outcome, size=size, seed=seed, wall_s=time.monotonic() - began_s)
    for each in result["expected"]:
        word = "holds" if each["holds"] else "DOES NOT HOLD"
        print(f"  {word}: {each['what']}: {each['value']} ({each['sense']} {each['bound']:g})", flush=True)
    folder = output / name if output is not None else ROOT / name if size is Size.FULL else None
    if folder is not None:
        keep(experiment, outcome, result, folder)
        print(f"  written: {folder} ({result['wall_s']} s)", flush=True)
    return bool(result["holds"])


def rewrite() -> None:
    """Every README and the page anew from the result files."""
    import json

    for name in names():
        file = ROOT / name / "result.json"
        if file.is_file():
            text = readme(load(name), json.loads(file.read_text(encoding="utf-8")))
            (ROOT / name / "README.md").write_text(text, encoding="utf-8")
    publish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments to run")
    parser.add_argument("--list", action="store_true", help="show them and end")
    parser.add_argument("--all", action="store_true", help="run all of them")
    parser.add_argument("--kind", choices=("simulated", "measured"), help="of --list and --all only these")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, help="folder for what is written, instead of the experiment's own")
    parser.add_argument("--page", action="store_true", help="write the READMEs and docs/experiments.md from the result files")
    given = parser.parse_args()
    chosen = [name for name in names() if given.kind in (None, str(load(name).kind))]
    if given.list:
        for name in chosen:
            print(f"{name:22} {load(name).kind:10} {load(name).claim}")
        return 0
    if given.page:
        rewrite()
        return 0
    asked = chosen if given.all else given.names
    unknown = [name for name in asked if name not in names()]
    if unknown or not asked:
        parser.error(f"found {unknown[0] if unknown else 'no name'}; allowed: {', '.join(names())}")
    size = Size.QUICK if given.quick else Size.FULL
    seen = [run_one(name, size, given.seed, given.output) for name in asked]
    if size is Size.FULL and given.output is None:
        publish()
    return 0 if all(seen) else 1


if __name__ == "__main__":
    sys.exit(main())
