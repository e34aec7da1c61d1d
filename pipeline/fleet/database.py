# SPDX-License-Identifier: Apache-2.0
"""The file that keeps what a fleet tells: SQLite, one writer, many readers.

What is committed is on the disk (WAL with `synchronous=FULL`), since boxes forget what was
acknowledged: neither kill -9 nor a power cut takes it. Each message has a number, in the order of
commits, which is for each box the order in which it told them.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from model.errors import ConfigError
from pipeline.fleet.config import FleetDatabaseConfig
from pipeline.telling.database import (
    Reader,
    Schema,
    identity,
    make_room,
    open_database,
    reserve,
    transaction,
    used_bytes,
)

_STEP_ROWS: Final = 500
_VACUUM_PAGES: Final = 1000
_MOST_ROWS: Final = 1000
_TABLES: Final = (
    """CREATE TABLE messages (
        number INTEGER PRIMARY KEY AUTOINCREMENT, box TEXT NOT NULL, id TEXT NOT NULL,
        revision INTEGER NOT NULL, camera TEXT NOT NULL, kind TEXT NOT NULL,
        received_s REAL NOT NULL, body BLOB NOT NULL,
        UNIQUE (box, id, revision)
    )""",
    "CREATE INDEX messages_box ON messages (box, number)",
    "CREATE INDEX messages_camera ON messages (camera, number)",
    "CREATE INDEX messages_kind ON messages (kind, number)",
    "CREATE INDEX messages_received ON messages (received_s)",
    """CREATE TABLE boxes (
        name TEXT PRIMARY KEY, heard_s REAL NOT NULL, told INTEGER NOT NULL, report BLOB
    )""",
)
_SCHEMA: Final = Schema(application_id=0x53_4C_46_4C, migrations=(_TABLES,))


_MUCH: Final = "ORDER BY number"
_OLD: Final = "WHERE received_s < ? ORDER BY received_s"
"""Which go first; a clock that was wrong has left times that do not go by the number."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What of an event the collector must understand; of later versions too."""

    id: str
    revision: int
    camera: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message about an event, and whose."""

    box: str
    head: Head
    body: bytes


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it is shown."""

    number: int
    """In the order in which messages were committed."""
    box: str
    received_s: float
    """By the collector's clock, in seconds since 1970."""
    event: msgspec.Raw
    """As the box sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept about a box."""

    heard_s: float
    """When it was heard last, in seconds since 1970."""
    told: int
    """Messages of it that were ever kept."""
    report: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which messages a page shows: the latest first, or from `after` on in their order."""

    box: str | None = None
    camera: str | None = None
    kind: str | None = None
    before: int | None = None
    after: int | None = None
    limit: int = 100


class FleetDatabase:
    """The writer; used by one thread, but for `page`."""

    def __init__(self, config: FleetDatabaseConfig) -> None:
        """Open the file, made where there is none.

        Raises:
            ConfigError: it is no database of ours, in use, or cannot lie there.
        """
        self._config = config
        with _faults_of(config.path):
            make_room(config.path)
            self._reserved = reserve(config.path)
        try:
            with _faults_of(config.path):
                self._connection = open_database(config.path, _SCHEMA)
        except BaseException:
            os.close(self._reserved)
            raise
        self._identity = identity(config.path)

    def boxes(self) -> dict[str, Kept]:
        """What is known of boxes."""
        rows = self._connection.execute("SELECT name, heard_s, told, report FROM boxes").fetchall()
        return {
            name: Kept(heard_s=heard_s, told=told, report=report)
            for name, heard_s, told, report in rows
        }

    def latest_s(self) -> float | None:
        """When a message came last, in seconds since 1970; None where there is none."""
        ((at_s,),) = self._connection.execute("SELECT max(received_s) FROM messages").fetchall()
        return at_s

    def keep(
        self, messages: Sequence[Message], reports: Iterable[tuple[str, bytes]], now_s: float
    ) -> dict[str, int]:
        """Commit messages and the latest reports; by box, how many messages were not known.

        Raises:
            sqlite3.Error: nothing of it is kept.
        """
        if identity(self._config.path) != self._identity:
            raise sqlite3.OperationalError("its file was taken away; restart the collector")
        fresh = dict.fromkeys((message.box for message in messages), 0)
        with transaction(self._connection):
            for message in messages:
                fresh[message.box] += self._insert(message, now_s)
            for name, number in fresh.items():
                self._hear(name, now_s, number, None)
            for name, report in reports:
                self._hear(name, now_s, 0, report)
        return fresh

    def tidy(self, before_s: float) -> int:
        """Remove some of what is too old or too much; how many messages."""
        too_much = used_bytes(self._connection) > self._config.keep_mib << 20
        with transaction(self._connection):
            removed = self._connection.execute(
                f"""DELETE FROM messages WHERE number IN (
                    SELECT number FROM messages {_MUCH if too_much else _OLD} LIMIT ?
                )""",
                (*(() if too_much else (before_s,)), _STEP_ROWS),
            ).rowcount
        # a script is stepped to its end; one statement without rows gives back a single page
        self._connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        return removed

    def page(self, query: Query) -> list[Entry]:
        """The messages that a query asks for; any thread may ask.

        Raises:
            sqlite3.Error: the database cannot be read.
        """
        where, values = _conditions(query)
        order = "DESC" if query.after is None else "ASC"
        with closing(Reader(self._config.path)) as reader:
            rows = reader.rows(
                f"""SELECT number, box, received_s, body FROM messages WHERE {where}
                ORDER BY number {order} LIMIT ?""",
                (*values, max(1, min(query.limit, _MOST_ROWS))),
            )
        return [
            Entry(number=number, box=box, received_s=received_s, event=msgspec.Raw(body))
            for number, box, received_s, body in rows
        ]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        os.close(self._reserved)

    def _insert(self, message: Message, now_s: float) -> int:
        head = message.head
        written = self._connection.execute(
            """INSERT INTO messages (box, id, revision, camera, kind, received_s, body)
            VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
            (message.box, head.id, head.revision, head.camera, head.kind, now_s, message.body),
        )
        return max(0, written.rowcount)

    def _hear(self, name: str, now_s: float, told: int, report: bytes | None) -> None:
        self._connection.execute(
            """INSERT INTO boxes (name, heard_s, told, report) VALUES (?, ?, ?, ?)
            ON CONFLICT (name) DO UPDATE SET heard_s = excluded.heard_s,
                told = told + excluded.told, report = coalesce(excluded.report, report)""",
            (name, now_s, told, report),
        )


def _conditions(query: Query) -> tuple[str, tuple[Any, ...]]:
    asked = {
        "box = ?": query.box,
        "camera = ?": query.camera,
        "kind = ?": query.kind,
        "number < ?": query.before,
        "number > ?": query.after,
    }
    given = {text: value for text, value in asked.items() if value is not None}
    return " AND ".join(given) or "1", tuple(given.values())


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Say in a line why a database cannot be opened."""
    try:
        yield
    except (sqlite3.Error, OSError) as failure:
        raise ConfigError(
            f"{path}: cannot be opened: {failure}; mend it, or set database.path to another file"
        ) from None
