"""One line of the output: written for each request once, and read again on resuming."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from setpoint.loop.offline.judging import ANSWER_TOO_LARGE, is_final
from setpoint.loop.offline.request_line import DIGEST_BYTES, ID_PREFIX

# Every line begins so, which tells a torn line of ours from somebody else's file.
LINE_BEGIN = f'{{"id": "{ID_PREFIX}'.encode()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request: an answer with its HTTP status, or, without one, only an ``error``."""

    id: str
    custom_id: str
    status: int | None = None
    body: object = None
    error: dict[str, str] | None = None

    @property
    def failed(self) -> bool:
        """Whether it is an error."""
        return self.error is not None

    def line(self) -> bytes:
        """As one line of the output."""
        response = None
        if self.status is not None:
            response = {"status_code": self.status, "request_id": self.id, "body": self.body}
        entry = {"id": self.id, "custom_id": self.custom_id, "response": response, "error": self.error}
        try:
            return json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:  # Half of a surrogate pair has no UTF-8.
            return json.dumps(entry).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Written:
    """What an output line says: the digest of the request that it answers, whether it is an error, and one that may pass."""

    digest: bytes
    failed: bool
    may_pass: bool


def read_result(line: bytes) -> Written | None:
    """An output line; ``None`` if it is not one that we wrote."""
    try:
        entry: Any = json.loads(line)
        digest = bytes.fromhex(entry["id"].removeprefix(ID_PREFIX))
        failed = entry["error"] is not None
        may_pass = failed and not _is_final(entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Written(digest, failed, may_pass) if len(digest) == DIGEST_BYTES else None


def _is_final(entry: Any) -> bool:
    """Whether a failure would be the same again: the request's own fault, or an answer that is too large to be taken."""
    if entry["response"] is None:
        return bool(entry["error"]["code"] == ANSWER_TOO_LARGE)
    return is_final(entry["response"]["status_code"])
