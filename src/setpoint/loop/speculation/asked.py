"""Acceptance as a user gives it: a chance a token, a survival by position, or a profile that was measured.

``75%``: every guess is accepted with that chance, whatever came before. ``0.9,0.7,0.5``: shares of drafts that survive to their
first, second, third token, as a profile and vLLM's metrics by position give them. ``FILE.json`` or ``FILE.json#WORK``: what
``setpoint profile-speculation --output FILE.json`` measured, with one drafter: of another it says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def acceptance_of(text: str, most_tokens: int, allowed: Speculation | None = None) -> Acceptance:
    """What ``text`` says, for drafts of at most ``most_tokens``. Raises ``BadInput`` that names ``--acceptance``.

    Typed chances say nothing of how many steps find a guess: that is as a requirement's speculation, ``allowed``, has it.
    """
    name, _, work = text.partition("#")
    if name.endswith(".json"):
        return _of_file(Path(name), work)
    try:
        shares = [parse_fraction(part) for part in text.split(",")]
        profile = profile_of_shares(shares, most_tokens)
    except (UnitError, ValueError) as error:
        found = f"; {error}" if "survival" in str(error) else ""
        raise BadInput(f"--acceptance {text}: allowed: {ALLOWED}{found}") from None
    share = 1.0 if allowed is None else allowed.drafted_share
    return Acceptance(text, profile.survival[:MOST_POSITIONS], share, 0)


def drafters_of(acceptance: Acceptance, text: str, drafters: Sequence[str]) -> tuple[str, ...]:
    """Those of ``drafters`` that ``acceptance``, typed as ``text``, speaks of. Raises ``BadInput`` if it is of another."""
    if acceptance.drafter is None:
        return tuple(drafters)
    if acceptance.drafter not in drafters:
        names = " and ".join(drafters)
        raise BadInput(
            f"--acceptance {text}: was measured with {acceptance.drafter}, which says nothing of {names}; give another profile"
        )
    return (acceptance.drafter,)


def acceptance_stated(allowed: Speculation | None, most_tokens: int) -> Acceptance | None:
    """What a requirement's speculation says, for drafts of at most ``most_tokens``; ``None`` where it says nothing."""
    if allowed is None or allowed.acceptance is None:
        return None
    name = ",".join(f"{share:g}" for share in allowed.acceptance)
    return Acceptance(name, profile_of_shares(allowed.acceptance, most_tokens).survival, allowed.drafted_share, 0)


def _of_file(file: Path, work: str) -> Acceptance:
    told = _profile(file)
    rows: list[dict[str, Any]] = told["acceptances"]
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
    drafter = told.get("drafter")
    return Acceptance(str(row["name"]), profile.survival, share, drafts, None if drafter is None else str(drafter))


_HOW: Final = "give what setpoint profile-speculation --output wrote"


def _profile(file: Path) -> dict[str, Any]:
    """What is in the file; its acceptances are a list of at least one."""
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
    return dict(told)
