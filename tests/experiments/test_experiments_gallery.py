"""READMEs and the page are what their result files say; the runner writes, says and ends as it should."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gallery.catalogue import ROOT, load, names
from gallery.description import Kind
from gallery.writing import FIGURE, IMAGES, PAGE, README, RESULT, kept, page, readme

RUNNER = ROOT / "run.py"
KEPT = [name for name in names() if (ROOT / name / RESULT).is_file()]


def test_every_simulated_experiment_has_a_result() -> None:
    assert [name for name in names() if load(name).kind is Kind.SIMULATED and name not in KEPT] == []


@pytest.mark.parametrize("name", KEPT)
def test_a_readme_is_what_its_result_says(name: str) -> None:
    assert (ROOT / name / README).read_text(encoding="utf-8") == readme(load(name), kept(name))


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python experiments/run.py --page"


@pytest.mark.parametrize("name", KEPT)
def test_the_figure_of_the_page_is_the_experiments(name: str) -> None:
    assert (IMAGES / f"{name}.svg").read_bytes() == (ROOT / name / FIGURE).read_bytes()


@pytest.mark.parametrize("name", KEPT)
def test_a_result_says_how_it_came_about(name: str) -> None:
    found = kept(name)
    assert found["size"] == "full"
    assert found["command"].startswith(f"python experiments/run.py {name} --seed ")
    assert {"python", "setpoint"} <= set(found["machine"])
    assert found["holds"] == all(each["holds"] for each in found["expected"])
    assert found["wall_s"] <= 300, "each takes at most five minutes"
    assert ET.fromstring((ROOT / name / FIGURE).read_text(encoding="utf-8")).tag.endswith("svg")


def test_the_runner_writes_what_it_found(tmp_path: Path) -> None:
    command = [sys.executable, str(RUNNER), "hardware_bounds", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "holds: " in done.stdout
    found = json.loads((tmp_path / "hardware_bounds" / RESULT).read_text(encoding="utf-8"))
    assert found["size"] == "quick"
    assert (tmp_path / "hardware_bounds" / FIGURE).is_file()


def test_an_unknown_experiment_is_refused_in_a_sentence() -> None:
    done = subprocess.run([sys.executable, str(RUNNER), "nothing"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "found nothing; allowed: " in done.stderr
    assert "Traceback" not in done.stderr
