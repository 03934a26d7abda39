"""What a command was given to work on: a requirement file, or something else."""

from __future__ import annotations

import os

REQUIREMENT_SUFFIXES = (".yaml", ".yml")
MODEL_SUFFIX = ".gguf"


def is_requirement(subject: str) -> bool:
    """Whether ``subject`` is a requirement file: by its name, or because it is a file and not a model's."""
    named_so = subject.lower().endswith(REQUIREMENT_SUFFIXES) and "://" not in subject
    return named_so or (not subject.lower().endswith(MODEL_SUFFIX) and os.path.isfile(subject))
