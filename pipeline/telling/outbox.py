# SPDX-License-Identifier: Apache-2.0
"""What is still to be told: a row for each message and receiver, in the order they came.

A row is written in the transaction of its event and removed once its receiver has confirmed it. One
that a receiver refuses is parked: not tried again until the program starts anew, which is when its
settings may have been mended.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.telling.database import Reader
from pipeline.telling.letters import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One message that waits for one receiver."""

    seq: int
    key: Key
    body: bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows a receiver has."""

    waiting: int = 0
    parked: int = 0


def begin(connection: sqlite3.Connection, receivers: Sequence[str]) -> dict[str, int]:
    """Drop what is for no one any more, and unpark the rest; return how many were of whom."""
    marks = ",".join("?" * len(receivers))
    removed = f"FROM outbox WHERE receiver NOT IN ({marks})"
    found = connection.execute(f"SELECT receiver, count(*) {removed} GROUP BY receiver", receivers)
    dropped = dict(found.fetchall())
    connection.execute(f"DELETE {removed}", receivers)
    connection.execute("UPDATE outbox SET parked = 0 WHERE parked")
    return dropped


def last_seq(connection: sqlite3.Connection) -> int:
    """The last number in use; 0 for none."""
    ((last,),) = connection.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchall()
    return int(last)


def shift(connection: sqlite3.Connection, seconds: float, *, after: int) -> None:
    """Move the time at which rows after a number came, as the clock was wrong then."""
    connection.execute("UPDATE outbox SET put_s = put_s + ? WHERE seq > ?", (seconds, after))


def add(
    connection: sqlite3.Connection, receivers: Iterable[str], row: Row, *, put_s: float
) -> None:
    """Have receivers told."""
    connection.executemany(
        "INSERT INTO outbox (receiver, seq, id, revision, put_s, body) VALUES (?, ?, ?, ?, ?, ?)",
        [(receiver, row.seq, *row.key, put_s, row.body) for receiver in receivers],
    )


def settle(
    connection: sqlite3.Connection,
    done: Iterable[tuple[str, int]],
    parked: Iterable[tuple[str, int]],
) -> None:
    """Remove what receivers have confirmed, and park what they refuse."""
    connection.executemany("DELETE FROM outbox WHERE receiver = ? AND seq = ?", done)
    connection.executemany("UPDATE outbox SET parked = 1 WHERE receiver = ? AND seq = ?", parked)


def bound(
    connection: sqlite3.Connection, receivers: Iterable[str], *, before_s: float, most: int
) -> dict[str, int]:
    """Drop what has waited too long or is too much, the oldest first; return how many of whom."""
    dropped = dict.fromkeys(receivers, 0)
    for receiver in dropped:
        for statement, limit in (
            ("DELETE FROM outbox WHERE receiver = ? AND put_s < ?", before_s),
            (
                """DELETE FROM outbox WHERE receiver = ?1 AND seq <= (
                    SELECT seq FROM outbox WHERE receiver = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2
                )""",
                most,
            ),
        ):
            dropped[receiver] += connection.execute(statement, (receiver, limit)).rowcount
    return dropped


def waiting(reader: Reader, receiver: str, *, after: int, most: int) -> list[Row]:
    """The next rows of a receiver.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    rows = reader.rows(
        """SELECT seq, id, revision, body FROM outbox
        WHERE receiver = ? AND seq > ? AND NOT parked ORDER BY seq LIMIT ?""",
        (receiver, after, most),
    )
    return [Row(seq=seq, key=(name, revision), body=body) for seq, name, revision, body in rows]


def counts(reader: Reader) -> dict[str, Counts]:
    """How many rows each receiver has.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    rows = reader.rows(
        "SELECT receiver, sum(NOT parked), sum(parked) FROM outbox GROUP BY receiver"
    )
    return {receiver: Counts(waiting, parked) for receiver, waiting, parked in rows}
