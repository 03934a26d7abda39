"""What the pages say of the errors of the bundled calibration is what its file and the error card say."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ERRORS = json.loads((ROOT / "src/setpoint/hardware/data/calibrations/silicon.json").read_text(encoding="utf-8"))["errors"]


def page(name: str) -> str:
    """The text of a page without its line breaks."""
    return " ".join((DOCS / name).read_text(encoding="utf-8").split())


def means(of: str) -> tuple[str, str]:
    """Mean errors of TPOT and TTFT in percent, as the error card has them."""
    found = re.search(rf"\| {of}: [^|]* \| \d+ \| ([\d.]+)% \| [\d.]+% \| ([\d.]+)% \|", page("error-card.md"))
    assert found is not None
    return found[1], found[2]


def test_the_page_on_hardware_states_the_errors_of_the_card() -> None:
    tpot, ttft = means("measured")
    text = page("hardware.md")
    assert f"TPOT is off by {tpot} % in the mean" in text
    assert f"a little of the {tpot} and the {ttft} % is luck" in text


def test_the_page_on_the_loop_says_which_error_of_what_is_transferred_it_states() -> None:
    text = page("loop.md")
    assert text.count(f"transferred from other hardware to about {ERRORS['transferred']['tpot_deviation'] * 100:.0f} %") == 1
    assert f"TPOT of an accelerator that was left out is off by {float(means('transferred')[0]):.0f} %" in text
