"""What runs in the threads of the SQLite store: plain blocking calls on one connection each.

Each step of a statement gives up the interpreter lock and must win it back from the loop. So a batch is written by a
few statements of many rows, whatever its size.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tiphys_apiserver.storage.interface import (
    Compacted,
    Event,
    EventType,
    FutureRevision,
    KeyValue,
    ListPage,
    OutcomeUnknown,
    StorageError,
)
from tiphys_apiserver.storage.sqlite import schema

# Rows of one statement; each number of rows is a statement of its own, kept prepared.
_ROWS_A_STATEMENT = 64
# Revisions swept in one transaction, so that writes never wait long for compaction.
SWEEP_REVISIONS = 2000
_LAST = "\U0010ffff"
# A name for use beside methods that are called list.
Events: TypeAlias = list[Event]


@dataclass(frozen=True, slots=True)
class Row:
    """One write, decided: the next revision of a key. ``value`` None deletes it."""

    key: str
    value: bytes | None
    revision: int
    create_revision: int
    prev_revision: int
    expires: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a living key stands."""

    revision: int
    create_revision: int
    expires: float | None


@dataclass(frozen=True, slots=True)
class Opened:
    """What the file held when it was opened."""

    revision: int
    compacted: int
    swept: int
    entries: dict[str, Entry]


class Writer:
    """The one connection that writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1
        self._connection: sqlite3.Connection | None = None

    def open(self) -> Opened:
        """Lock the file, make or check its layout, read where each key stands. Raises StorageError."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = schema.lock_file(self.path)
            # The file holds secrets: nobody else may read it, whatever the umask.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = schema.connect(self.path)
            schema.prepare(self._connection, self.path)
            return self._read_all()
        except (sqlite3.Error, OSError) as err:
            self.close()
            raise schema.storage_error(err, self.path) from err
        except StorageError:
            self.close()
            raise

    def _read_all(self) -> Opened:
        execute = self._db.execute
        marks = dict(execute("SELECT name, revision FROM mark").fetchall())
        newest = execute("SELECT max(revision) FROM event").fetchone()[0] or 1
        rows = execute("SELECT key, revision, create_revision, expires FROM current")
        entries = {key: Entry(revision, created, expires) for key, revision, created, expires in rows}
        return Opened(max(newest, marks["compacted"]), marks["compacted"], marks["swept"], entries)

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def commit(self, rows: Sequence[Row]) -> list[Event]:
        """Write all rows durably, or none. The events, in order.

        Raises OutcomeUnknown if the disk failed while it was told to keep them, else a StorageError.
        """
        committing = False
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._insert_events(rows)
            self._point_current(rows)
            events = [self._event(row) for row in rows]
            committing = True
            self._db.execute("COMMIT")
        except sqlite3.Error as err:
            self._roll_back()
            error = schema.storage_error(err, self.path)
            if committing and getattr(err, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
                raise OutcomeUnknown(f"the disk failed under a write: {err}; check it, then read again") from err
            raise error from err
        return events

    def _insert_events(self, rows: Sequence[Row]) -> None:
        for part in _parts(rows):
            values = [
                value
                for row in part
                for value in (
                    row.revision,
                    row.key,
                    EventType.DELETE.value if row.value is None else EventType.PUT.value,
                    row.create_revision,
                    row.prev_revision,
                    row.value,
                )
            ]
            self._db.execute(f"INSERT INTO event VALUES {_holes(6, len(part))}", values)

    def _point_current(self, rows: Sequence[Row]) -> None:
        last = {row.key: row for row in rows}
        living = [row for row in last.values() if row.value is not None]
        for part in _parts(living):
            values = [value for row in part for value in (row.key, row.revision, row.create_revision, row.expires)]
            self._db.execute(f"INSERT OR REPLACE INTO current VALUES {_holes(4, len(part))}", values)
        gone = [row for row in last.values() if row.value is None]
        for part in _parts(gone):
            self._db.execute(f"DELETE FROM current WHERE key IN {_holes(1, len(part), '?')}", [row.key for row in part])

    def _event(self, row: Row) -> Event:
        if row.value is not None:
            return Event(EventType.PUT, row.key, row.value, row.revision)
        found = self._db.execute("SELECT value FROM event WHERE revision = ?", (row.prev_revision,)).fetchone()
        return Event(EventType.DELETE, row.key, found[0], row.revision)

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself after some errors, and then refuses.
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")

    def mark_compacted(self, revision: int) -> None:
        """Refuse older revisions from now on, also after a crash."""
        self._in_transaction([("UPDATE mark SET revision = ? WHERE name = 'compacted'", (revision,))])

    def sweep(self, after: int, revision: int) -> int:
        """Delete a part of what compaction up to ``revision`` frees, beginning after ``after``; how far it got."""
        end = min(revision, after + SWEEP_REVISIONS)
        bounds = (after, end)
        self._in_transaction(
            [
                (
                    "DELETE FROM event WHERE revision IN (SELECT prev_revision FROM event"
                    " WHERE revision > ? AND revision <= ? AND prev_revision > 0)",
                    bounds,
                ),
                (f"DELETE FROM event WHERE revision > ? AND revision <= ? AND type = {EventType.DELETE.value}", bounds),
                ("UPDATE mark SET revision = ? WHERE name = 'swept'", (end,)),
            ]
        )
        return end

    def _in_transaction(self, statements: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for text, values in statements:
                self._db.execute(text, values)
            self._db.execute("COMMIT")
        except sqlite3.Error as err:
            self._roll_back()
            raise schema.storage_error(err, self.path) from err

    def close(self) -> None:
        """Close the file and free the lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Reader:
    """A connection that only reads, each call one consistent state."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = schema.connect(path)
            self._connection.execute("PRAGMA query_only = 1")
        except sqlite3.Error as err:
            raise schema.storage_error(err, path) from err

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[sqlite3.Connection, int, int]]:
        """The connection inside one state, its newest and its compacted revision."""
        connection = self._connection
        try:
            connection.execute("BEGIN")
            try:
                compacted = connection.execute("SELECT revision FROM mark WHERE name = 'compacted'").fetchone()[0]
                newest = connection.execute("SELECT max(revision) FROM event").fetchone()[0] or 1
                yield connection, max(newest, compacted), compacted
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as err:
            raise schema.storage_error(err, self.path) from err

    def get(self, key: str, revision: int) -> KeyValue | None:
        """The key now, or at a revision."""
        with self._snapshot() as (connection, newest, compacted):
            _check(revision, newest, compacted)
            at = None
            if revision:
                at = connection.execute(
                    "SELECT prev_revision FROM event WHERE revision > ? AND key = ? ORDER BY revision LIMIT 1",
                    (revision, key),
                ).fetchone()
            if at is None:
                at = connection.execute("SELECT revision FROM current WHERE key = ?", (key,)).fetchone()
            return _read(connection, at[0]) if at is not None and at[0] else None

    def list(self, prefix: str, revision: int, limit: int, start_after: str) -> ListPage:
        """Keys under a prefix, now or at a revision."""
        low = max(prefix, start_after)
        inclusive = low != start_after
        span = f"key {'>=' if inclusive else '>'} ? AND key < ?"
        bounds = (low, prefix + _LAST)
        with self._snapshot() as (connection, newest, compacted):
            _check(revision, newest, compacted)
            if revision and revision < newest:
                return self._list_past(connection, revision, limit, span=span, bounds=bounds)
            rows = connection.execute(
                "SELECT current.key, value, revision, current.create_revision FROM current JOIN event USING (revision)"
                f" WHERE {span.replace('key', 'current.key')} ORDER BY current.key LIMIT ?",
                (*bounds, limit or -1),
            ).fetchall()
            items = [KeyValue(*row) for row in rows]
            remaining = 0
            if limit and len(items) == limit:
                count = connection.execute(f"SELECT count(*) FROM current WHERE {span}", bounds).fetchone()[0]
                remaining = count - len(items)
            return ListPage(items, newest, remaining > 0, remaining)

    def _list_past(
        self, connection: sqlite3.Connection, revision: int, limit: int, *, span: str, bounds: tuple[str, str]
    ) -> ListPage:
        # SQLite takes the other columns of the row that has the min(): the first change after the revision.
        changes = connection.execute(
            f"SELECT key, prev_revision, min(revision) FROM event WHERE revision > ? AND {span} GROUP BY key",
            (revision, *bounds),
        )
        then = {key: at for key, at, _ in changes}
        now = connection.execute(
            f"SELECT key, revision FROM current WHERE {span} ORDER BY key LIMIT ?",
            (*bounds, limit + len(then) if limit else -1),
        ).fetchall()
        count = connection.execute(f"SELECT count(*) FROM current WHERE {span}", bounds).fetchone()[0]
        changed_now = sum(
            1 for key in then if connection.execute("SELECT 1 FROM current WHERE key = ?", (key,)).fetchone()
        )
        found = {key: at for key, at in then.items() if at}
        total = count - changed_now + len(found)
        found.update((key, at) for key, at in now if key not in then)
        keys = sorted(found)[: limit or None]
        items = [item for key in keys if (item := _read(connection, found[key])) is not None]
        remaining = total - len(items)
        return ListPage(items, revision, remaining > 0, remaining)

    def history(self, prefix: str, after: int, until: int) -> Events:
        """The events under a prefix in (after, until]. Raises Compacted."""
        with self._snapshot() as (connection, _, compacted):
            if after < compacted:
                raise Compacted(compacted)
            rows = connection.execute(
                "SELECT type, key, coalesce(value, x''), revision FROM event"
                " WHERE revision > ? AND revision <= ? AND key >= ? AND key < ? ORDER BY revision",
                (after, until, prefix, prefix + _LAST),
            )
            return [Event(EventType(row[0]), *row[1:]) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _check(revision: int, newest: int, compacted: int) -> None:
    if revision:
        if revision < compacted:
            raise Compacted(compacted)
        if revision > newest:
            raise FutureRevision(newest)


def _read(connection: sqlite3.Connection, revision: int) -> KeyValue | None:
    row = connection.execute(
        "SELECT key, value, revision, create_revision FROM event WHERE revision = ?", (revision,)
    ).fetchone()
    return KeyValue(*row) if row is not None else None


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        yield rows[start : start + _ROWS_A_STATEMENT]


def _holes(columns: int, rows: int, one: str = "") -> str:
    """Placeholders of a statement of many rows: (?,?),(?,?); with ``one`` a plain list: (?,?)."""
    if one:
        return f"({','.join([one] * rows)})"
    return ",".join([f"({','.join('?' * columns)})"] * rows)
