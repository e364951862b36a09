"""The layout of the file, how it is opened, and what SQLite's errors mean for a caller.

``event`` is the log: every write appends a row, and a value is written once. ``current`` points from each living key
to its row. So a past revision is what rows up to it say, and compaction deletes the rows that nobody can ask for.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from tiphys_apiserver.storage.interface import (
    StorageError,
    StoreDamaged,
    StoreFull,
    StoreInUse,
    StoreUnavailable,
)

# "Tphs" in the file's header, so that `file` and we tell it from other databases.
_APPLICATION_ID: Final = 0x54706873
_LAYOUT: Final = 1
# Values are 1 to 3 KB: larger pages hold several and leave less of each empty.
_PAGE_BYTES: Final = 8192
# Pages in the write-ahead log before it is carried over into the file.
_CHECKPOINT_PAGES: Final = 4000

_CREATE: Final = f"""
CREATE TABLE event (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    -- EventType: 0 put, 1 delete (value is NULL).
    type INTEGER NOT NULL,
    create_revision INTEGER NOT NULL,
    -- Row of the value before; 0 if the key is new.
    prev_revision INTEGER NOT NULL,
    value BLOB
);
CREATE TABLE current (
    key TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    create_revision INTEGER NOT NULL,
    -- Unix time after which the key is deleted; NULL is never.
    expires REAL
) WITHOUT ROWID;
-- compacted: lists and watches below are refused. swept: rows up to here have been deleted.
CREATE TABLE mark (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO mark VALUES ('compacted', 0), ('swept', 0);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_LAYOUT};
"""


def lock_file(path: Path) -> int:
    """Take the store for this process; the descriptor to close at the end. The kernel frees it when the process dies.

    Raises StoreInUse.
    """
    lock_path = path.with_name(path.name + ".lock")
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        holder = os.read(descriptor, 20).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise StoreInUse(
            f"{path} is in use by another API server (process {holder}); stop it, or give this one a store of its own:"
            " several servers can share etcd, not a SQLite file"
        ) from err
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, to be used by one thread at a time."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=300, timeout=5.0
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file, or check that those there are ours. Raises StoreDamaged."""
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreDamaged(f"{path} can't keep a write-ahead log (mode {mode}); use a local file system")
    layout = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if layout == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        connection.executescript(f"BEGIN IMMEDIATE; {_CREATE} COMMIT;")
    elif application != _APPLICATION_ID:
        raise StoreDamaged(f"{path} is a database of another program; choose another path for the store")
    elif layout != _LAYOUT:
        raise StoreDamaged(f"{path} has layout {layout}, this version reads {_LAYOUT}; run the version that wrote it")


def storage_error(err: sqlite3.Error | OSError, path: Path) -> StorageError:
    """The error for callers, which says what to do."""
    if isinstance(err, OSError):
        return StoreUnavailable(f"{path} can't be used: {err.strerror or err}; check that the folder is there and ours")
    code = getattr(err, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(
            f"no space left for {path}: nothing was written, what was acknowledged is safe, and reads go on;"
            f" free space on the file system of {path.parent}"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(f"{path} is locked by another program; close it (sqlite3, a backup) and try again")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StoreDamaged(f"{path} is damaged ({err}); restore it from a backup, or move it away to start empty")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return StoreUnavailable(f"{path} can't be written ({err}); check its owner and mode, and those of its folder")
    return StoreUnavailable(f"{path}: {err}")
