"""A log of what the loop saw, planned, changed and took back: JSON lines in a file of bounded size, the newest in memory."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

KEPT_EVENTS = 256
MOST_BYTES = 4 << 20
OLD_FILES = 3
logger = logging.getLogger("setpoint.adapt")


class _Lines(RotatingFileHandler):
    """A line a record; a disk that is full stops the log, not the server."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say so once."""
        if not self.failed:
            self.failed = True
            logger.warning("%s cannot be written", self.baseFilename)

    failed = False


class Audit:
    """``event`` adds one. At most ``OLD_FILES`` + 1 files of ``MOST_BYTES`` bytes; the newest ``KEPT_EVENTS`` in ``newest``."""

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        """Raises ``OSError`` if ``file`` cannot be opened."""
        self.newest: deque[Mapping[str, object]] = deque(maxlen=KEPT_EVENTS)
        self._clock = clock
        self._lines = None if file is None else _Lines(file, maxBytes=MOST_BYTES, backupCount=OLD_FILES, encoding="utf-8")

    def event(self, kind: str, **facts: object) -> None:
        """Something happened; ``facts`` are what JSON can hold."""
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        entry = {"at": at, "event": kind, **facts}
        self.newest.append(entry)
        if self._lines is not None:
            self._lines.emit(logging.makeLogRecord({"msg": json.dumps(entry, default=str)}))

    def close(self) -> None:
        """No more events."""
        if self._lines is not None:
            self._lines.close()
