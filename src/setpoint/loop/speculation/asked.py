"""Acceptance as a user gives it: a chance a token, a survival by position, or a profile that was measured.

``75%``: every guess is accepted with that chance, whatever came before. ``0.9,0.7,0.5``: shares of drafts that survive to their
first, second, third token, as a profile and vLLM's metrics by position give them. ``FILE.json`` or ``FILE.json#WORK``: what
``setpoint profile-speculation --output FILE.json`` measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from setpoint.loop.errors import BadInput
from setpoint.loop.speculation.outcome import Acceptance
from setpoint.policy.survival import SurvivalProfile, profile_of_shares
from setpoint.requirement import Speculation
from setpoint.requirement.speculation import MOST_POSITIONS
from setpoint.requirement.units import UnitError, parse_fraction

ALLOWED: Final = "a chance such as 75%, shares by position such as 0.9,0.7,0.5, or a profile's FILE.json or FILE.json#WORK"
MOST_FILE_BYTES: Final = 8 << 20


def acceptance_of(text: str, most_tokens: int) -> Acceptance:
    """What ``text`` says, for drafts of at most ``most_tokens``. Raises ``BadInput`` that names ``--acceptance``."""
    name, _, work = text.partition("#")
    if name.endswith(".json"):
        return _of_file(Path(name), work)
    try:
        shares = [parse_fraction(part) for part in text.split(",")]
        profile = profile_of_shares(shares, most_tokens)
    except (UnitError, ValueError) as error:
        found = f"; {error}" if "survival" in str(error) else ""
        raise BadInput(f"--acceptance {text}: allowed: {ALLOWED}{found}") from None
    return Acceptance(text, profile.survival[:MOST_POSITIONS], 1.0, 0)


def acceptance_stated(allowed: Speculation | None, most_tokens: int) -> Acceptance | None:
    """What a requirement's speculation says, for drafts of at most ``most_tokens``; ``None`` where it says nothing."""
    if allowed is None or allowed.acceptance is None:
        return None
    name = ",".join(f"{share:g}" for share in allowed.acceptance)
    return Acceptance(name, profile_of_shares(allowed.acceptance, most_tokens).survival, allowed.drafted_share, 0)


def _of_file(file: Path, work: str) -> Acceptance:
    rows = _rows(file)
    names = [str(row.get("name")) for row in rows]
    if not work and len(rows) > 1:
        raise BadInput(f"--acceptance {file}: found several kinds of work, name one: {file}#{names[0]} (of {', '.join(names)})")
    chosen = [row for row, name in zip(rows, names, strict=True) if name == work or not work]
    if not chosen:
        raise BadInput(f"--acceptance {file}#{work}: found {', '.join(names)}, name one of these")
    row = chosen[0]
    try:
        profile = SurvivalProfile(tuple(float(share) for share in row["survival"]))
        share, drafts = float(row["drafted_share"]), int(row["drafts"])
        if not profile.survival or not 0.0 <= share <= 1.0:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"--acceptance {file}: its work {names[0]!r} holds no survival by position; {_HOW}") from None
    return Acceptance(str(row["name"]), profile.survival, share, drafts)


_HOW: Final = "give what setpoint profile-speculation --output wrote"


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        if file.stat().st_size > MOST_FILE_BYTES:
            raise BadInput(f"--acceptance {file}: found {file.stat().st_size} bytes; {_HOW}")
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"--acceptance {file}: cannot be read: {getattr(error, 'strerror', None) or 'not JSON'}; {_HOW}"
        ) from None
    rows = told.get("acceptances") if isinstance(told, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"--acceptance {file}: holds no acceptances; {_HOW}")
    return rows
