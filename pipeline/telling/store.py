# SPDX-License-Identifier: Apache-2.0
"""Events as they are kept: one row each, as its last message left it."""

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.events import Event, EventKind
from pipeline.telling.database import Reader, transaction, used_bytes
from pipeline.telling.letters import decode_event, encode_event

logger = logging.getLogger(__name__)

Place = tuple[float, str]
"""Where a page ends: start and id of its last event."""

_MOST_ROWS: Final = 1000
_STEP_ROWS: Final = 200
_SAMPLED_ROWS: Final = 200
_ROW_BYTES: Final = 150
"""Of a row of the outbox, with its indexes, beside its body."""
_MOST_STEPS: Final = 50  # of one tidying, which events wait for
_VACUUM_PAGES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which events a page shows, the latest first."""

    camera: str | None = None
    kind: EventKind | None = None
    since_s: float | None = None
    """Events that began then or later."""
    until_s: float | None = None
    """Events that began before."""
    after: Place | None = None
    """Where the page before ended."""
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some events, and where to go on."""

    events: tuple[Event, ...]
    next: Place | None
    """None on the last page."""


class History:
    """Finds events; any thread may ask."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def page(self, query: Query) -> Page:
        """The latest events that a query asks for.

        Raises:
            sqlite3.Error: the database cannot be read.
        """
        limit = max(1, min(query.limit, _MOST_ROWS))
        where, values = _conditions(query)
        rows = self._rows(
            f"SELECT body FROM events WHERE {where} ORDER BY started_s DESC, id DESC LIMIT ?",
            (*values, limit + 1),
        )
        events = tuple(decode_event(body) for (body,) in rows[:limit])
        more = len(rows) > limit
        return Page(events=events, next=(events[-1].started_s, events[-1].id) if more else None)

    def event(self, event_id: str) -> Event | None:
        """One event, if it is kept."""
        rows = self._rows("SELECT body FROM events WHERE id = ?", (event_id,))
        return decode_event(rows[0][0]) if rows else None

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with closing(Reader(self._path)) as reader:
            return reader.rows(statement, values)


def keep(connection: sqlite3.Connection, event: Event, body: bytes, kept_s: float) -> bool:
    """Write what an event has become; False where it was known to be so, or further, already.

    Args:
        connection: To the database, in a transaction.
        event: What it has become.
        body: The same as it is kept.
        kept_s: When that is, as it counts for what is too old, in seconds since 1970.
    """
    still_open = event.phase in ("start", "update")
    written = connection.execute(
        """INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET
            revision = excluded.revision, at_s = excluded.at_s, open = excluded.open,
            snapshot = excluded.snapshot, body = excluded.body, kept_s = excluded.kept_s
        WHERE excluded.revision > revision""",
        (
            event.id,
            event.revision,
            event.camera,
            event.kind,
            event.started_s,
            event.at_s,
            still_open,
            event.snapshot,
            body,
            kept_s,
        ),
    )
    return written.rowcount > 0


def ends_of_interrupted(connection: sqlite3.Connection) -> list[tuple[Event, bytes]]:
    """The ends of events that nobody ended, because the program was; as of when last heard of."""
    rows = connection.execute("SELECT body FROM events WHERE open ORDER BY id").fetchall()
    ends = []
    for (body,) in rows:
        try:
            event = decode_event(body)
        except msgspec.MsgspecError as fault:
            # A later version's; it must not keep this one from starting.
            logger.error("an open event cannot be read and stays open: %s", fault)
            continue
        end = msgspec.structs.replace(
            event,
            revision=event.revision + 1,
            phase="end",
            ended_s=event.at_s,
            reason=f"{event.reason} (interrupted)",
            interrupted=True,
        )
        ends.append((end, encode_event(end)))
    return ends


def latest(connection: sqlite3.Connection) -> float | None:
    """When something of an event was kept last, in seconds since 1970; None where nothing was."""
    ((kept_s,),) = connection.execute("SELECT max(kept_s) FROM events").fetchall()
    return kept_s


def last_row(connection: sqlite3.Connection) -> int:
    """The number of the event that came last; 0 for none."""
    ((last,),) = connection.execute("SELECT coalesce(max(rowid), 0) FROM events").fetchall()
    return int(last)


def shift(connection: sqlite3.Connection, seconds: float, *, after: int) -> None:
    """Move the time at which events after a number were kept, as the clock was wrong then."""
    connection.execute("UPDATE events SET kept_s = kept_s + ? WHERE rowid > ?", (seconds, after))


def forget(connection: sqlite3.Connection, *, before_s: float, most_bytes: int) -> list[str]:
    """Remove what is too old or too much, give its room back, and return its snapshots.

    What receivers still wait for lies in the same file and counts for nothing here: an outage of
    one must not cost what is kept. Open events stay. A large excess takes several calls, so that
    events need not wait for long.
    """
    snapshots: list[str] = []
    for _ in range(_MOST_STEPS):
        too_much = used_bytes(connection) - _outbox_bytes(connection) > most_bytes
        with transaction(connection):
            rows = connection.execute(
                """DELETE FROM events WHERE id IN (
                    SELECT id FROM events WHERE kept_s < ? AND NOT open ORDER BY kept_s LIMIT ?
                ) RETURNING snapshot""",
                (float("inf") if too_much else before_s, _STEP_ROWS),
            ).fetchall()
        snapshots += [name for (name,) in rows if name is not None]
        if not rows:
            break
    # a script is stepped to its end; one statement without rows gives back a single page
    connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    return snapshots


def _outbox_bytes(connection: sqlite3.Connection) -> float:
    """What the rows of receivers take, about: as many as there are, of the size of the last."""
    ((number, size),) = connection.execute(
        """SELECT (SELECT count(*) FROM outbox), (SELECT avg(length(body)) FROM (
            SELECT body FROM outbox ORDER BY receiver, seq DESC LIMIT ?))""",
        (_SAMPLED_ROWS,),
    ).fetchall()
    return number * (_ROW_BYTES + (size or 0.0))


def _conditions(query: Query) -> tuple[str, tuple[Any, ...]]:
    """What stands behind WHERE, and the values in it."""
    asked: list[tuple[str, tuple[Any, ...] | None]] = [
        ("camera = ?", None if query.camera is None else (query.camera,)),
        ("kind = ?", None if query.kind is None else (query.kind,)),
        ("started_s >= ?", None if query.since_s is None else (query.since_s,)),
        ("started_s < ?", None if query.until_s is None else (query.until_s,)),
        ("(started_s, id) < (?, ?)", query.after),
    ]
    given = [(text, values) for text, values in asked if values is not None]
    where = " AND ".join(text for text, _ in given) or "1"
    return where, tuple(value for _, values in given for value in values)
