# SPDX-License-Identifier: Apache-2.0
"""The one thread that writes the database.

What always holds. If the code is at odds with it, the code is wrong.

1.  Putting an event never waits. At most `max_waiting` wait in memory; of more the oldest is lost
    and counted.
2.  What came in meanwhile is one transaction: the event, its rows for receivers, and the rows that
    receivers have confirmed. A message that is kept already is not kept or told again. Kept means
    on the disk: nobody is told before, nor does `flush` return. Confirmations alone do not wait for
    the disk; one that a power cut takes back is told once more, and said to be.
3.  If the database cannot be written, that is said once; the events wait and it is tried until it
    can. Receivers are told from memory until then, so that an event about a full disk gets out.
4.  If the file was removed or replaced, it is written anew from what is open still, with all it
    held. Where that cannot be read any more, as after its disk was gone and came back, what lies
    there is gone on with. A damaged one is kept under another name, and a new one begun.
5.  Events left open by a run that was killed are given an end before the first new one is kept.
"""

import logging
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, Protocol

from model.errors import ConfigError
from pipeline.events import Event
from pipeline.telling import outbox, store
from pipeline.telling.age import AgeClock
from pipeline.telling.config import DatabaseConfig, OutboxConfig
from pipeline.telling.database import (
    CHECKPOINT_S,
    checkpoint,
    identity,
    is_readable,
    loose_transaction,
    make_room,
    open_database,
    reserve,
    salvage,
    set_aside,
    transaction,
)
from pipeline.telling.letters import Key, encode_event

logger = logging.getLogger(__name__)

_MOST_IN_GROUP: Final = 64
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_DAY_S: Final = 86_400
_STANDING: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""Errors after which the open file is as good as before."""


class Surroundings(Protocol):
    """What the journal needs of whoever has it."""

    def receivers_of(self, event: Event) -> frozenset[str]:
        """Who is to be told."""
        ...

    def publish(self, event: Event, body: bytes) -> None:
        """Tell those that are told at once and once."""
        ...

    def forgotten(self, snapshots: Sequence[str], now_s: float) -> None:
        """Events were removed; these were their pictures. Called at each tidying.

        Args:
            snapshots: Names of pictures.
            now_s: Seconds since 1970, as they count for what is too old.
        """
        ...


@dataclass(slots=True, eq=False)
class Waiting:
    """An event that is not kept yet."""

    event: Event
    body: bytes
    receivers: set[str]
    """Who has not been told of it."""
    published: bool = False

    @property
    def key(self) -> Key:
        """The name of the message."""
        return self.event.id, self.event.revision


@dataclass(slots=True)
class JournalCounts:
    """What has happened since the start."""

    kept: int = 0
    known: int = 0
    """Messages that were kept already."""
    lost: int = 0
    """Messages given up because too many waited in memory."""
    failures: int = 0
    """Times the database became impossible to write."""
    interrupted: int = 0
    """Events whose end was missing at the start."""
    dropped: dict[str, int] = field(default_factory=dict)
    """By receiver, messages that waited too long or were too many."""


class Journal:
    """Keeps events and what is still to be told."""

    def __init__(
        self,
        database: DatabaseConfig,
        limits: OutboxConfig,
        receivers: Sequence[str],
        surroundings: Surroundings,
        max_waiting: int,
    ) -> None:
        """Open the database and begin.

        Raises:
            ConfigError: the file is none of ours, or cannot lie there.
        """
        self.counts = JournalCounts(dropped=dict.fromkeys(receivers, 0))
        self.down = False
        """Whether the database cannot be written."""
        self.inherited = 0
        """Rows up to this number come from an earlier run, which may have sent them."""
        self._database, self._limits = database, limits
        self._receivers, self._surroundings = tuple(receivers), surroundings
        self._max_waiting = max_waiting
        self._waiting: deque[Waiting] = deque()
        self._group: list[Waiting] = []
        self._done: list[tuple[str, int]] = []
        self._parked: list[tuple[str, int]] = []
        self._changed = threading.Condition()
        self._news = 0
        self._stop_by_s: float | None = None
        self._closing = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._reserved: int | None = None
        self._last_seq, self._begun = 0, False
        self._pause_s = _FIRST_PAUSE_S
        self._tidy_at_s = 0.0
        self._age, self._inherited_row = AgeClock(None), 0
        try:
            self._open()
        except (sqlite3.Error, OSError) as failure:
            self._fail(failure)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Have an event kept and told; returns at once."""
        waiting = Waiting(event, encode_event(event), set(self._surroundings.receivers_of(event)))
        with self._changed:
            if len(self._waiting) >= self._max_waiting:
                self._waiting.popleft()
                self.counts.lost += 1
            self._waiting.append(waiting)
            if self.down:
                self._news += 1
            self._changed.notify_all()

    def flush(self, within_s: float) -> bool:
        """Wait until everything that was put is kept; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self.num_waiting == 0, within_s)

    @property
    def num_waiting(self) -> int:
        """How many events are in memory only."""
        return len(self._group) + len(self._waiting)

    def wait_for_news(self, seen: int, within_s: float) -> int:
        """Wait until there may be more to tell than at number `seen`; return the number now."""
        with self._changed:
            self._changed.wait_for(lambda: self._news != seen, within_s)
            return self._news

    def wake(self) -> None:
        """Have all that wait for news look again."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    def stranded(self, receiver: str, most: int | None = None) -> list[Waiting]:
        """What a receiver is to be told from memory, while the database cannot be written."""
        with self._changed:
            if not self.down:
                return []
            waiting = chain(self._group, self._waiting)
            return list(islice((one for one in waiting if receiver in one.receivers), most))

    def told(self, receiver: str, stranded: Iterable[Waiting]) -> None:
        """A receiver has been told from memory."""
        with self._changed:
            for waiting in stranded:
                waiting.receivers.discard(receiver)

    def settle(self, receiver: str, done: Iterable[int] = (), parked: Iterable[int] = ()) -> None:
        """A receiver has confirmed rows, or refuses them."""
        with self._changed:
            self._done += [(receiver, seq) for seq in done]
            self._parked += [(receiver, seq) for seq in parked]
            self._changed.notify_all()

    def close(self, within_s: float) -> None:
        """Write what waits, if that can be done in time."""
        with self._changed:
            self._stop_by_s = time.monotonic() + within_s
            self._changed.notify_all()
        self._closing.set()
        self._thread.join(within_s + 1.0)

    def _run(self) -> None:
        while self._gather():
            try:
                self._step()
            except (sqlite3.Error, OSError, ConfigError) as failure:
                self._fail(failure)
                self._pause()
            else:
                self._recover()
        if self._connection is not None:
            self._connection.close()
        if self._reserved is not None:
            os.close(self._reserved)

    def _pause(self) -> None:
        left_s = math.inf if self._stop_by_s is None else self._stop_by_s - time.monotonic()
        if self._stop_by_s is not None:
            self._closing.clear()
        self._closing.wait(max(0.0, min(self._pause_s, left_s)))
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _gather(self) -> bool:
        """Wait for work; False once there is none left, or no time."""
        with self._changed:
            pause_s = max(0.0, self._tidy_at_s - time.monotonic())
            self._changed.wait_for(self._is_called, pause_s)
            while self._waiting and len(self._group) < _MOST_IN_GROUP:
                self._group.append(self._waiting.popleft())
            if self._stop_by_s is None:
                return True
            work = self._group or self._done or self._parked
            if work and time.monotonic() < self._stop_by_s:
                return True
            if self.num_waiting:
                self.counts.lost += self.num_waiting
                logger.error("%s: %d events are lost", self._database.path, self.num_waiting)
            return False

    def _is_called(self) -> bool:
        work = self._group or self._waiting or self._done or self._parked
        return bool(work) or self._stop_by_s is not None

    def _fail(self, failure: Exception) -> None:
        """Say that the database cannot be written, and tell from memory until it can."""
        if not self.down:
            self.counts.failures += 1
            logger.error(
                "%s: cannot be written: %s; events wait in memory (%d at most)",
                self._database.path,
                _reason(failure),
                self._max_waiting,
            )
        self._drop_connection(failure)
        with self._changed:
            self.down = True
            waiting = (*self._group, *self._waiting)
            self._news += 1
            self._changed.notify_all()
        self._publish(waiting)

    def _recover(self) -> None:
        if not self.down:
            return
        logger.warning("%s: can be written again", self._database.path)
        self._pause_s = _FIRST_PAUSE_S
        with self._changed:
            self.down = False

    def _step(self) -> None:
        connection = self._stand()
        if self._group or self._done or self._parked:
            self._commit(connection)
        if time.monotonic() >= self._tidy_at_s:
            self._tidy(connection)

    def _stand(self) -> sqlite3.Connection:
        """The connection to the file at the path, which may have been removed meanwhile."""
        path = self._database.path
        if self._connection is None:
            self._open()
        elif (found := identity(path)) != self._identity:
            self._follow(self._connection, is_gone=found is None)
        assert self._connection is not None
        return self._connection

    def _follow(self, old: sqlite3.Connection, *, is_gone: bool) -> None:
        """Write what is open still to where its file was."""
        path = self._database.path
        try:
            fresh = salvage(old, path)
        except sqlite3.Error:
            if is_gone or is_readable(old):
                raise
            self._connection = None
            old.close()
            fault = "the file before cannot be read any more; what lies there now is taken"
            raise sqlite3.OperationalError(fault) from None
        logger.warning("%s: was taken away; written anew from what was open", path)
        old.close()
        self._connection, self._identity = fresh, identity(path)

    def _open(self) -> None:
        if self._reserved is None:
            make_room(self._database.path)
            self._reserved = reserve(self._database.path)
        connection = open_database(self._database.path)
        try:
            if not self._begun:
                self._begin(connection)
            # A commit that was said to have failed may have reached the disk all the same.
            self._last_seq = max(self._last_seq, outbox.last_seq(connection))
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, identity(self._database.path)
        self._begun = True

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Take over what an earlier run has left."""
        with transaction(connection):
            for receiver, number in outbox.begin(connection, self._receivers).items():
                logger.warning(
                    "%s: no longer in the settings; %d messages for it are dropped",
                    *(receiver, number),
                )
        self.inherited = outbox.last_seq(connection)
        self._inherited_row = store.last_row(connection)
        self._age = AgeClock(store.latest(connection))
        ends = store.ends_of_interrupted(connection)
        self.counts.interrupted = len(ends)
        with self._changed:
            self._group[:0] = [
                Waiting(event, body, set(self._surroundings.receivers_of(event)))
                for event, body in ends
            ]

    def _commit(self, connection: sqlite3.Connection) -> None:
        with self._changed:
            group = [(one, tuple(one.receivers)) for one in self._group]
            num_done, num_parked = len(self._done), len(self._parked)
        now_s = self._age.now()
        num_kept, seq = 0, self._last_seq
        begin = transaction if group else loose_transaction
        with begin(connection):
            for one, receivers in group:
                if store.keep(connection, one.event, one.body, now_s):
                    num_kept, seq = num_kept + 1, seq + 1
                    row = outbox.Row(seq=seq, key=one.key, body=one.body)
                    outbox.add(connection, receivers, row, put_s=now_s)
            outbox.settle(connection, self._done[:num_done], self._parked[:num_parked])
        self._last_seq = seq
        self._publish(self._group)
        self._recover()
        with self._changed:
            self.counts.kept += num_kept
            self.counts.known += len(group) - num_kept
            del self._group[:], self._done[:num_done], self._parked[:num_parked]
            self._news += num_kept > 0
            self._changed.notify_all()

    def _publish(self, several: Iterable[Waiting]) -> None:
        for waiting in tuple(several):
            if not waiting.published:
                waiting.published = True
                self._surroundings.publish(waiting.event, waiting.body)

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Remove what is too old or too much, and have the rest reach the disk."""
        now_s = self._age.now()
        if leap_s := self._age.take_leap():
            with transaction(connection):
                outbox.shift(connection, leap_s, after=self.inherited)
                store.shift(connection, leap_s, after=self._inherited_row)
        dropped = outbox.bound(
            connection,
            self._receivers,
            before_s=now_s - self._limits.keep_days * _DAY_S,
            most=self._limits.max_messages,
        )
        for receiver, number in dropped.items():
            if number:
                self.counts.dropped[receiver] += number
                logger.warning("%s: %d messages waited too long and are dropped", receiver, number)
        snapshots = store.forget(
            connection,
            before_s=now_s - self._database.keep_days * _DAY_S,
            most_bytes=self._database.keep_mib << 20,
        )
        checkpoint(connection)
        self._surroundings.forgotten(snapshots, now_s)
        self._tidy_at_s = time.monotonic() + CHECKPOINT_S

    def _drop_connection(self, failure: Exception) -> None:
        """Close what may be spoilt; but not a removed file that is all there is."""
        code = getattr(failure, "sqlite_errorcode", None)
        if code is None or code & 0xFF in _STANDING:
            return
        damaged = code & 0xFF == sqlite3.SQLITE_CORRUPT
        if self._connection is not None:
            if not damaged and identity(self._database.path) != self._identity:
                return
            self._connection.close()
            self._connection = None
        if damaged:
            set_aside(self._database.path, "damaged")


def _reason(failure: Exception) -> str:
    text = failure.strerror if isinstance(failure, OSError) else None
    return (text or str(failure)).lower()
