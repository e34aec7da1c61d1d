# SPDX-License-Identifier: Apache-2.0
"""The file that keeps events and what is still to be told: SQLite, one writer, many readers.

What `transaction` has committed is on the disk itself: neither kill -9 nor a power cut takes it
(WAL with `synchronous=FULL`). What `loose_transaction` has committed a power cut may take back; it
reaches the disk with the next of the former, or at the checkpoint every `CHECKPOINT_S`.
"""

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model.errors import ConfigError
from model.files import make_folder, put_in_place

logger = logging.getLogger(__name__)

CHECKPOINT_S: Final = 10.0
_BUSY_S: Final = 2.0
_WAL_BYTES: Final = 4 << 20
_BESIDE: Final = ("-wal", "-shm")
"""Endings of the files that SQLite has beside a database."""

MIGRATIONS: Final = (
    (  # 1: events and outbox
        """CREATE TABLE events (
            id TEXT PRIMARY KEY, revision INTEGER NOT NULL, camera TEXT NOT NULL,
            kind TEXT NOT NULL, started_s REAL NOT NULL, at_s REAL NOT NULL,
            open INTEGER NOT NULL, snapshot TEXT, body BLOB NOT NULL
        )""",
        "CREATE INDEX events_at ON events (at_s)",
        "CREATE INDEX events_open ON events (id) WHERE open",
        """CREATE TABLE outbox (
            receiver TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL,
            revision INTEGER NOT NULL, put_s REAL NOT NULL, body BLOB NOT NULL,
            PRIMARY KEY (receiver, seq)
        )""",
    ),
    (  # 2: letters a receiver refuses; pages by camera and kind
        "ALTER TABLE outbox ADD COLUMN parked INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX outbox_put ON outbox (put_s)",
        "CREATE INDEX outbox_counts ON outbox (receiver, parked)",
        "CREATE INDEX events_started ON events (started_s, id)",
        "CREATE INDEX events_camera ON events (camera, started_s, id)",
        "CREATE INDEX events_kind ON events (kind, started_s, id)",
    ),
    (  # 3: events age by when they were kept, whatever the clock was when they happened
        "ALTER TABLE events ADD COLUMN kept_s REAL NOT NULL DEFAULT 0",
        "UPDATE events SET kept_s = at_s",
        "DROP INDEX events_at",
        "CREATE INDEX events_kept ON events (kept_s)",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a database holds."""

    application_id: int
    """Tells our files from others'."""
    migrations: tuple[tuple[str, ...], ...]
    """What makes a file of version n from one of version n - 1; a new file takes every step."""


EVENTS: Final = Schema(application_id=0x53_4C_45_56, migrations=MIGRATIONS)


def open_database(path: Path, schema: Schema = EVENTS) -> sqlite3.Connection:
    """Open the file for its writer, made or brought up to date where need be.

    Args:
        path: Where it lies.
        schema: What it holds.

    Raises:
        ConfigError: it is no database of ours, a later one, or cannot lie there.
        OSError, sqlite3.Error: it cannot be opened now; trying again may help.
    """
    make_room(path)
    connection = sqlite3.connect(
        path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection, path, schema)
    except BaseException:
        connection.close()
        raise
    return connection


def make_room(path: Path) -> None:
    """Make the folder a database is to lie in.

    Raises:
        ConfigError: there can be none.
        OSError: it cannot be made now.
    """
    try:
        make_folder(path.parent)
    except (PermissionError, NotADirectoryError, FileExistsError) as failure:
        reason = (failure.strerror or "it is no folder").lower()
        raise ConfigError(
            f"{path}: cannot make its folder: {reason}; set database.path to another place"
        ) from None


def reserve(path: Path) -> int:
    """Keep a second Sightline from the file; a descriptor to close in the end.

    Raises:
        ConfigError: there is one that has it.
        OSError: it cannot be reserved now.
    """
    descriptor = os.open(
        path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        os.close(descriptor)
        if not isinstance(failure, BlockingIOError):
            raise
        raise ConfigError(
            f"{path}: in use by another Sightline; stop that one, or set database.path to "
            "another file"
        ) from None
    return descriptor


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has rolled back itself after some errors
            connection.execute("ROLLBACK")
        raise


@contextmanager
def loose_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing; without waiting for the disk."""
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        with transaction(connection):
            yield
    finally:
        connection.execute("PRAGMA synchronous = FULL")


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called for each group of events
    except OSError:
        return None
    return found.st_dev, found.st_ino


def salvage(old: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Write a database whose file was taken away, and which is open still, to where it was.

    What lies there now is set aside, but only once the copy is whole.

    Raises:
        OSError, sqlite3.Error: the old file cannot be read any more, or the new one not written.
    """
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.salvaged")
    beside.unlink(missing_ok=True)
    with closing(sqlite3.connect(beside, isolation_level=None)) as copy:
        old.backup(copy)
    if path.exists():
        set_aside(path, "replaced")
    for ending in _BESIDE:
        path.with_name(path.name + ending).unlink(missing_ok=True)
    put_in_place(beside, path)
    return open_database(path)


def is_readable(connection: sqlite3.Connection) -> bool:
    """Whether the file that is open still gives what it holds."""
    try:
        connection.execute("SELECT total(length(body)) FROM events").fetchall()
    except sqlite3.Error:
        return False
    return True


def set_aside(path: Path, why: str) -> None:
    """Keep a file that cannot be used under another name, so that ours can take its place."""
    kept = path.with_name(f"{path.name}.{why}-{time.strftime('%Y%m%d-%H%M%S')}")
    for ending in ("", *_BESIDE):
        with suppress(OSError):
            path.with_name(path.name + ending).replace(kept.with_name(kept.name + ending))
    logger.error("%s: %s; what lay there is kept as %s", path, why, kept.name)


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the file holds, without the room that is free in it."""

    def read(name: str) -> int:
        ((value,),) = connection.execute(f"PRAGMA {name}").fetchall()
        return int(value)

    return (read("page_count") - read("freelist_count")) * read("page_size")


def checkpoint(connection: sqlite3.Connection) -> None:
    """Have everything committed reach the disk."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class Reader:
    """Reads beside the writer, whichever file lies at the path; used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """What a statement finds.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        found = identity(self._path)
        if self._connection is None or found != self._identity:
            self.close()
            self._connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=_BUSY_S,
                isolation_level=None,
            )
            self._identity = found
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _prepare(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    version = _version(connection, path, schema)
    latest = len(schema.migrations)
    if version > latest:
        raise ConfigError(
            f"{path}: version {version} of the database, made by a later Sightline; this one knows "
            f"{latest}: update it, or set database.path to another file"
        )
    if version == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before there is a table, or never
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    for number, statements in enumerate(schema.migrations[version:], start=version + 1):
        with transaction(connection):
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.application_id}")
            connection.execute(f"PRAGMA user_version = {number}")
        if version:
            logger.info("%s: brought to version %d", path, number)


def _version(connection: sqlite3.Connection, path: Path, schema: Schema) -> int:
    """Version of the file; 0 for a new one."""
    try:
        ((owner,),) = connection.execute("PRAGMA application_id").fetchall()
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((num_tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except sqlite3.DatabaseError as failure:
        if getattr(failure, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise ConfigError(
                f"{path}: not a database; move it away, or set database.path to another file"
            ) from None
        raise
    if owner != schema.application_id and (num_tables or version or owner):
        raise ConfigError(
            f"{path}: a database of something else; set database.path to another file"
        )
    return int(version)
