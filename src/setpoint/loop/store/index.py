"""The index of runs: one SQLite file in the user's data folder, written by many processes at once.

Nothing in it is a truth of its own: it is filled from run folders (``entry.py``), and a list of their paths beside it
(``<index>.folders``, one a line) is enough to fill it again when the file is damaged or of an earlier version.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from setpoint.hardware.user_data import user_folder
from setpoint.loop.store.entry import Entry, entry_of, run_id
from setpoint.loop.store.errors import StoreError
from setpoint.report.files import RunFolderError

VERSION, DAMAGED = 1, -1
BUSY_S = 10.0
MOST_FOLDERS = 100_000
PLACE_VARIABLE = "SETPOINT_RUNS_INDEX"
COLUMNS = tuple(Entry.__slots__)
JSON_COLUMNS = ("configuration", "figures")
NUMBER_COLUMNS = ("started_s", "duration_s")
TYPES = {name: "REAL" if name in NUMBER_COLUMNS else "TEXT" for name in COLUMNS}
CREATE = (
    f"CREATE TABLE IF NOT EXISTS runs ({', '.join(f'{name} {TYPES[name]} NOT NULL' for name in COLUMNS)}, PRIMARY KEY (id))"
)
Say = Callable[[str], None]


def index_file() -> Path:
    """``$SETPOINT_RUNS_INDEX``, else ``runs.sqlite3`` in the user's data folder; it may not exist yet."""
    chosen = os.environ.get(PLACE_VARIABLE)
    return Path(chosen) if chosen else user_folder() / "runs.sqlite3"


class RunIndex:
    """The index in ``file``, made if it is not there. ``say`` hears of a damaged file that was begun anew.

    Every method raises ``StoreError`` where the file cannot be used.
    """

    def __init__(self, file: Path | None = None, say: Say = lambda _: None) -> None:
        self.file = file if file is not None else index_file()
        self._say = say
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        self._sound()

    def add(self, entries: Iterable[Entry]) -> int:
        """Put in runs, or what is new of them; how many were not there. Of two folders with one run the first by name is kept
        while both hold it, so the order of adding does not matter."""
        found = list(entries)
        with self._writing() as connection:
            before = self._count(connection)
            for entry in found:
                held = connection.execute("SELECT folder FROM runs WHERE id = ?", (entry.id,)).fetchone()
                if held is not None and held[0] < entry.folder and holds(Path(held[0]), entry.id):
                    continue
                places = ", ".join("?" for _ in COLUMNS)
                connection.execute(f"INSERT OR REPLACE INTO runs ({', '.join(COLUMNS)}) VALUES ({places})", _row(entry))
            added = self._count(connection) - before
        self._note(entry.folder for entry in found)
        return added

    def entries(self) -> list[Entry]:
        """Every run, the latest first; of one moment by id."""
        with self._reading() as connection:
            rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM runs ORDER BY started_s DESC, id").fetchall()
        return [_entry(row) for row in rows]

    def forget(self, ids: Iterable[str]) -> int:
        """Take runs out; how many there were. Their folders are not touched."""
        with self._writing() as connection:
            before = self._count(connection)
            connection.executemany("DELETE FROM runs WHERE id = ?", [(each,) for each in ids])
            return before - self._count(connection)

    @property
    def folders_file(self) -> Path:
        """The list of folders beside the index."""
        return self.file.with_name(self.file.name + ".folders")

    def _sound(self) -> None:
        """See that the file is an index of this version; begin a damaged or older one anew from the list of folders."""
        version = self._version()
        if version > VERSION:
            raise StoreError(
                f"{self.file}: written by a later setpoint (version {version}, this one reads {VERSION}): update setpoint, or"
                f" name another file in {PLACE_VARIABLE}"
            )
        if version != VERSION:
            self._begin_anew()

    def _version(self) -> int:
        """Of the file: 0 if it is new, ``DAMAGED`` if it is no index or a broken one."""
        try:
            with closing(self._connected()) as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version == VERSION:
                    connection.execute(f"SELECT {', '.join(COLUMNS)} FROM runs LIMIT 1").fetchone()
                    (fault,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                    return int(version) if fault == "ok" else DAMAGED
                return int(version)
        except sqlite3.OperationalError as error:
            if str(error).startswith("no such"):
                return DAMAGED
            raise self._unusable(error) from error
        except sqlite3.DatabaseError:
            return DAMAGED

    def _begin_anew(self) -> None:
        """One process at a time sets a damaged or older file aside and fills a new one; the others find it done."""
        with open(self.file.with_name(self.file.name + ".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            version = self._version()
            if version == VERSION:
                return
            aside = self.file.with_name(self.file.name + ".damaged")
            if version != 0:
                self.file.replace(aside)
                for ending in ("-wal", "-shm"):
                    self.file.with_name(self.file.name + ending).unlink(missing_ok=True)
            with closing(self._connected()) as connection:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
                connection.execute(CREATE)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            if version != 0:
                found = self.add(readable(self._known_folders()))
                state = "was damaged" if version == DAMAGED else f"was of version {version}"
                self._say(f"the index of runs {state}: filled again from {found} known run folders; the old file is {aside}")

    def _known_folders(self) -> list[Path]:
        try:
            lines = self.folders_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        return [Path(line) for line in dict.fromkeys(lines[-MOST_FOLDERS:]) if line]

    def _note(self, folders: Iterable[str]) -> None:
        """Append to the list of folders what is not in it."""
        known = {str(each) for each in self._known_folders()}
        new = [folder for folder in dict.fromkeys(folders) if folder not in known and "\n" not in folder]
        if new:
            with self.folders_file.open("a", encoding="utf-8") as stream:
                stream.write("".join(f"{folder}\n" for folder in new))

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.file, timeout=BUSY_S, isolation_level=None)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._connected()) as connection:
                yield connection
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _count(self, connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(f"{self.file}: the index of runs cannot be used ({error}); name another file in {PLACE_VARIABLE}")


def holds(folder: Path, run: str) -> bool:
    """Whether ``folder`` still holds the run of that id."""
    try:
        return run_id(folder) == run
    except RunFolderError:
        return False


def readable(folders: Iterable[Path], refused: Callable[[Path, str], None] = lambda *_: None) -> Iterator[Entry]:
    """The runs in those of ``folders`` that hold one; ``refused`` hears of the others and why."""
    for folder in folders:
        try:
            yield entry_of(folder)
        except (RunFolderError, OSError) as error:
            refused(folder, str(error))


def _row(entry: Entry) -> list[str | float]:
    return [
        json.dumps(getattr(entry, name), sort_keys=True) if name in JSON_COLUMNS else getattr(entry, name) for name in COLUMNS
    ]


def _entry(row: tuple[str | float, ...]) -> Entry:
    pairs = zip(COLUMNS, row, strict=True)
    values = {name: json.loads(str(value)) if name in JSON_COLUMNS else value for name, value in pairs}
    return Entry(**values)  # type: ignore[arg-type]
