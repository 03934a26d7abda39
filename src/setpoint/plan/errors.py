"""What ends a plan early: a user's mistake, in one sentence that names what was found and what to do."""

from __future__ import annotations


class PlanError(Exception):
    """Bad input to the planner: exit code 2."""
