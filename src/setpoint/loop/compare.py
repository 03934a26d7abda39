"""``setpoint compare RUN RUN``: what changed between runs, from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from setpoint.loop.errors import BadInput
from setpoint.report.compare import compare_rounds, compare_two
from setpoint.report.compare_figures import ComparedRun, compared_run
from setpoint.report.comparison import Comparison
from setpoint.report.files import RunFolderError, read_run

__all__ = ["compare_folders", "compare_interleaved", "compare_runs"]

MOST_ROUNDS = 100


def compare_folders(folders: Sequence[Path]) -> Comparison:
    """What the command line calls: two folders A B, or rounds A1 B1 A2 B2 ... in the order in which they were run.

    Raises ``BadInput`` for an odd number of folders, or more than ``MOST_ROUNDS`` rounds, and what ``compare_runs`` raises.
    """
    if len(folders) < 2 or len(folders) % 2:
        raise BadInput(f"compare takes two run folders, or rounds A1 B1 A2 B2 ...; found {len(folders)}")
    if len(folders) == 2:
        return compare_runs(folders[0], folders[1])
    return compare_interleaved(folders[0::2], folders[1::2])


def compare_runs(folder_a: Path, folder_b: Path) -> Comparison:
    """Compare two runs by the uncertainty within each.

    Raises ``BadInput`` naming the folder that is not a run's, or that has nothing to compare.
    """
    return compare_two(_read(folder_a), _read(folder_b))


def compare_interleaved(folders_a: Sequence[Path], folders_b: Sequence[Path]) -> Comparison:
    """Compare sides of several runs each by the uncertainty between rounds: A1 with B1, A2 with B2, ...

    Raises ``BadInput`` as ``compare_runs`` does, and for sides of different or too small numbers of runs.
    """
    if len(folders_a) != len(folders_b) or not 2 <= len(folders_a) <= MOST_ROUNDS:
        raise BadInput(
            f"rounds take as many runs of A as of B, 2 to {MOST_ROUNDS} of each; found {len(folders_a)} and {len(folders_b)}"
        )
    return compare_rounds([_read(folder) for folder in folders_a], [_read(folder) for folder in folders_b])


def _read(folder: Path) -> ComparedRun:
    try:
        return compared_run(str(folder), read_run(folder))
    except RunFolderError as error:
        raise BadInput(str(error)) from error
    except ValueError as error:
        raise BadInput(f"{folder}: cannot be compared: {error}") from error
