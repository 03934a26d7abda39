"""One line of a batch file: what it must be, and the request that it asks for.

The format is that of OpenAI's batch API: ``{"custom_id", "method": "POST", "url", "body"}``, a JSON object a line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from setpoint.loop.errors import MAX_FOUND_CHARS, BadInput

URLS = ("/v1/chat/completions", "/v1/completions")
LINE_BYTES_MAX = 16 << 20
CUSTOM_ID_CHARS_MAX = 512
ID_PREFIX = "batch_req_"
DIGEST_BYTES = 16


class LineError(BadInput):
    """A line that cannot be sent; the message names file, line, field, what was found and the fix."""

    def __init__(self, path: Path, number: int, field: str, problem: str) -> None:
        super().__init__(f"{path}: line {number}: {field}: {problem}")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What one line asks for. ``body`` is the caller's, as it was written; ``model`` is the one it names."""

    custom_id: str
    url: str
    body: dict[str, Any]

    @property
    def model(self) -> str | None:
        """The model that the body names."""
        return self.body.get("model")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number from 1, without the white space around it. Raises ``LineError``."""
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(line) > LINE_BYTES_MAX:
                raise LineError(path, number, "the line", f"longer than {LINE_BYTES_MAX >> 20} MiB; make the request shorter")
            if stripped := line.strip():
                yield number, stripped


def digest_of(line: bytes) -> bytes:
    """What a line is known by: 16 bytes that no other line has."""
    return blake2b(line, digest_size=DIGEST_BYTES).digest()


def result_id(digest: bytes) -> str:
    """The ``id`` of the result for the line with this digest, so that a result tells which line it answers."""
    return ID_PREFIX + digest.hex()


def parse_line(path: Path, number: int, line: bytes) -> BatchRequest:
    """Read and check one line. Raises ``LineError``."""

    def wrong(field: str, problem: str) -> LineError:
        return LineError(path, number, field, problem)

    try:
        entry = json.loads(line.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except UnicodeDecodeError:
        raise wrong("the line", "not UTF-8 text; save the file as UTF-8") from None
    except RecursionError:
        raise wrong("the line", "nested too deeply to be read; make it flatter") from None
    except ValueError as error:
        raise wrong("the line", f"not JSON: {error}; write one JSON object on one line") from None
    if not isinstance(entry, dict):
        raise wrong("the line", f"found {_shown(entry)}, must be a JSON object with custom_id, method, url and body")
    custom_id = entry.get("custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= CUSTOM_ID_CHARS_MAX:
        raise wrong("custom_id", f"found {_shown(custom_id)}, must be a string of 1 to {CUSTOM_ID_CHARS_MAX} characters")
    if entry.get("method") != "POST":
        raise wrong("method", f'found {_shown(entry.get("method"))}, must be "POST"')
    url = entry.get("url")
    if url not in URLS:
        raise wrong("url", f"found {_shown(url)}, must be {' or '.join(URLS)}")
    body = entry.get("body")
    if not isinstance(body, dict):
        raise wrong("body", f"found {_shown(body)}, must be the JSON object of a request")
    if body.get("stream"):
        raise wrong("body.stream", f"found {_shown(body['stream'])}; a batch answers as a whole, leave it out")
    model = body.get("model")
    if model is not None and not (isinstance(model, str) and model):
        raise wrong("body.model", f"found {_shown(model)}, must be the name of a model")
    return BatchRequest(custom_id, url, body)


def _shown(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= MAX_FOUND_CHARS else f"{text[:MAX_FOUND_CHARS]}..."


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON's")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:MAX_FOUND_CHARS]} is too large")
    return value
