"""Vectors kept on disk between runs: one SQLite file for any number of clients, processes and models.

An entry's key holds the model's fingerprint, so that what another model made is never found; it is pushed out as
everything is that nobody asks for any more.
"""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

MAX_MIB = 1024
"""Vectors kept by default: some 700,000 of 384 numbers."""

_BUSY_SECONDS = 30.0
_TOUCH_SECONDS = 600  # an entry is marked as used again only after so long, so that reading seldom writes
_KEPT = 0.9  # of the bound, after making room: not at every new entry
_AT_ONCE = 500  # parameters of one statement; SQLite takes 999 in its oldest builds
_OVERHEAD = 80  # bytes that an entry costs beside its vector: key, times, page
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, truncated INTEGER NOT NULL,
    used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON vectors (used);
CREATE TABLE IF NOT EXISTS size (bytes INTEGER NOT NULL);
INSERT INTO size SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM size);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON vectors
    BEGIN UPDATE size SET bytes = bytes + length(NEW.vector) + 80; END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON vectors
    BEGIN UPDATE size SET bytes = bytes - length(OLD.vector) - 80; END;
COMMIT;
"""


_inherited: list[sqlite3.Connection] = []
"""Connections of parents, kept so that no forked child closes them: SQLite forbids it."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a vector depends on, as a digest of 32 bytes."""

    digest: bytes

    @classmethod
    def of(cls, fingerprint: str, prompt: str | None, dimensions: int | None, text: str, task: str = "Dense") -> "Key":
        """The key of `text`, embedded so."""
        digest = blake2b(digest_size=32)
        for part in (fingerprint, task, prompt or "", str(dimensions or ""), text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return cls(digest.digest())


@dataclass(frozen=True, slots=True)
class Entry:
    """A vector, shape (d,), and whether its text lost its end."""

    vector: NDArray[np.float32]
    truncated: bool = False


class Cache:
    """Vectors in the SQLite file `path`, at most `max_mib` MiB of them; those longest unused go first.

    Safe with several threads and processes. Trouble with the file never fails a call: the cache is then left out.
    `clock` gives Unix seconds.

    Raises:
        ValueError: `max_mib` is less than 1.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_mib: int = MAX_MIB, clock: Callable[[], float] = time.time
    ) -> None:
        if max_mib < 1:
            raise ValueError(f"max_mib is {max_mib}: it must be 1 or more")
        self.path = Path(path)
        self._clock = clock
        self._most = max_mib * 1024 * 1024
        self._home, self._lock = os.getpid(), threading.Lock()
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self._broken: str | None = None
        self._told = False

    def __repr__(self) -> str:
        return f"<Cache {str(self.path)!r}, at most {self._most // 1024 // 1024} MiB>"

    async def find(self, keys: Sequence[Key]) -> dict[int, Entry]:
        """The entries there are, by their index in `keys`."""
        return await asyncio.to_thread(self._safely, lambda: self._find(keys), {})

    async def keep(self, entries: Sequence[tuple[Key, Entry]]) -> None:
        """Put entries in."""
        await asyncio.to_thread(self._safely, lambda: self._keep(entries), None)

    def size(self) -> int:
        """Bytes of the vectors that are kept, and their keys."""
        return self._safely(lambda: int(self._database().execute("SELECT bytes FROM size").fetchone()[0]), 0)

    def clear(self) -> None:
        """Forget all."""
        self._safely(lambda: self._remove("DELETE FROM vectors", ()), None)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._own_lock():
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
                self._opened = None

    def trouble(self) -> str | None:
        """Why the cache is left out, told once; None while it is well."""
        if self._broken is None or self._told:
            return None
        self._told = True
        return f"the cache {self.path} is left out: {self._broken}"

    def _safely(self, work: Callable[[], T], otherwise: T) -> T:
        if self._broken is not None:
            return otherwise
        try:
            with self._own_lock():
                return work()
        except (sqlite3.Error, OSError) as error:
            self._broken = str(error)
            return otherwise

    def _own_lock(self) -> threading.Lock:
        """The lock of this process: one that came along with a fork may be held for ever."""
        if self._home != os.getpid():
            self._home, self._lock = os.getpid(), threading.Lock()
        return self._lock

    def _find(self, keys: Sequence[Key]) -> dict[int, Entry]:
        places = {key.digest: index for index, key in enumerate(keys)}
        found = {}
        for some in _slices(list(places)):
            marks = ",".join("?" * len(some))
            query = f"SELECT key, vector, truncated, used FROM vectors WHERE key IN ({marks})"  # noqa: S608  # nosec B608  # marks alone
            for key, vector, truncated, used in self._database().execute(query, some).fetchall():
                found[places[key]] = (Entry(np.frombuffer(vector, "<f4"), bool(truncated)), key, used)
        now = int(self._clock())
        self._touch([key for _, key, used in found.values() if used < now - _TOUCH_SECONDS], now)
        return {index: entry for index, (entry, _, _) in found.items()}

    def _touch(self, keys: list[bytes], now: int) -> None:
        if keys:
            with self._database() as database:
                database.executemany("UPDATE vectors SET used = ? WHERE key = ?", [(now, key) for key in keys])

    def _keep(self, entries: Sequence[tuple[Key, Entry]]) -> None:
        now = int(self._clock())
        rows = [(key.digest, _bytes(entry.vector), entry.truncated, now) for key, entry in entries]
        with self._database() as database:
            database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?)", rows)
            (size,) = database.execute("SELECT bytes FROM size").fetchone()
            if size > self._most:
                self._make_room(database, size - int(self._most * _KEPT))

    def _make_room(self, database: sqlite3.Connection, wanted: int) -> None:
        """Remove the longest unused, `wanted` bytes of them."""
        keys, freed = [], 0
        for key, length in database.execute("SELECT key, length(vector) FROM vectors ORDER BY used"):
            keys.append((key,))
            freed += length + _OVERHEAD
            if freed >= wanted:
                break
        database.executemany("DELETE FROM vectors WHERE key = ?", keys)

    def _remove(self, statement: str, values: tuple[object, ...]) -> None:
        with self._database() as database:
            database.execute(statement, values)

    def _database(self) -> sqlite3.Connection:
        """The connection of this process: one that came along with a fork is the parent's."""
        if self._opened is not None and self._opened[0] != os.getpid():
            _inherited.append(self._opened[1])
            self._opened = None
        if self._opened is None:
            self._opened = (os.getpid(), self._open())
        return self._opened[1]

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
        return database


CacheArgument = bool | str | os.PathLike[str] | Cache | None
"""True: the file that all programs of this user share; a path; a `Cache`; False: none; None: as the client has it."""


def cache_of(given: CacheArgument, default: Callable[[], Path]) -> Cache | None:
    """The cache that a caller means: True for the file `default()`, a path, a `Cache` itself, or none."""
    if given is None or given is False:
        return None
    if isinstance(given, Cache):
        return given
    return Cache(default() if given is True else given)


def _bytes(vector: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(vector, "<f4").tobytes()


def _slices(keys: list[bytes]) -> Iterable[list[bytes]]:
    return (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE))
