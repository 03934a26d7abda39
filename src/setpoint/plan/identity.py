"""The requirement's id: a stable hash, carried by every export so that a later measurement finds its plan."""

from __future__ import annotations

import hashlib
import json

from setpoint.requirement import Requirement

ID_PREFIX = "sp-"
DIGITS = 12
WORDS_ONLY = {"description"}


def requirement_id(requirement: Requirement) -> str:
    """``sp-`` and 12 hexadecimal digits of the SHA-256 of the requirement's fields.

    What is only said for the reader (the description) does not change it, nor does the order of keys in a file, nor a field
    written out with its default. The name does. It is valid as a Kubernetes label and in a model's name.
    """
    fields = requirement.model_dump(mode="json", exclude=WORDS_ONLY, exclude_defaults=True)
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return ID_PREFIX + hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
