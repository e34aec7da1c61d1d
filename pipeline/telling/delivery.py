# SPDX-License-Identifier: Apache-2.0
"""One receiver's thread: takes its letters in their order and sees them delivered.

What always holds. A letter is done when the receiver has confirmed it; until then it is sent again,
after pauses that grow, and says so (`retry`). One that may have been sent by an earlier run says so
too. What a receiver refuses is parked, and the next one follows. No receiver waits for another.
"""

import logging
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.telling import outbox
from pipeline.telling.database import Reader
from pipeline.telling.journal import Journal, Waiting
from pipeline.telling.letters import Key, Letter, Receiver, Refused, Unreachable

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.5
_LOOK_S: Final = 1.0
_MOST_REMEMBERED: Final = 256


@dataclass(slots=True)
class DeliveryCounts:
    """What has happened since the start."""

    sent: int = 0
    retried: int = 0
    """Letters of `sent` that said so."""
    parked: int = 0
    attempts_failed: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class _Item:
    """A letter, and where it comes from: a row, or memory."""

    letter: Letter
    seq: int | None = None
    waiting: Waiting | None = None


class Delivery:
    """Sees to one receiver."""

    def __init__(
        self, receiver: Receiver, journal: Journal, path: Path, longest_pause_s: float
    ) -> None:
        self.counts = DeliveryCounts()
        self._receiver, self._journal = receiver, journal
        self._reader = Reader(path)
        self._longest_pause_s = longest_pause_s
        self._pause_s = min(_FIRST_PAUSE_S, longest_pause_s)
        self._away = False
        self._cursor = 0
        self._tried: set[Key] = set()
        self._told: deque[Key] = deque(maxlen=_MOST_REMEMBERED)
        self._finish_by_s: float | None = None
        self._called = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tell-{receiver.name}", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether the receiver was there when last looked."""
        return self._receiver.connected

    def finish(self, by_s: float) -> None:
        """Have it end once nothing is left to send, or the time has come."""
        self._finish_by_s = by_s
        self._called.set()

    def join(self, within_s: float) -> None:
        """Wait for its end; a receiver that hangs is left behind."""
        self._thread.join(within_s)

    def _run(self) -> None:
        seen = -1
        while True:
            try:
                self._receiver.ready()
                items = self._take()
                if items:
                    self._send(items)
                elif self._finish_by_s is not None:
                    break
                else:
                    seen = self._journal.wait_for_news(seen, _LOOK_S)
            except Exception as failure:  # noqa: BLE001 - whatever it is, it is an outage of this one
                self._rest(self._outage(failure))
                if self._finish_by_s is not None:
                    break
            if self._finish_by_s is not None and time.monotonic() > self._finish_by_s:
                break
        self._receiver.close()
        self._reader.close()

    def _outage(self, failure: Exception) -> Unreachable:
        if isinstance(failure, Unreachable):
            return failure
        logger.error("%s: failed", self._receiver.name, exc_info=failure)
        return Unreachable(f"failed: {type(failure).__name__}")

    def _take(self) -> list[_Item]:
        """The next letters: rows first, and what is in memory while no row can be written."""
        receiver = self._receiver
        try:
            rows = outbox.waiting(
                self._reader, receiver.name, after=self._cursor, most=receiver.window
            )
        except sqlite3.Error:
            rows = []  # the journal says what is wrong with the database, and retries
        if told := [row.seq for row in rows if row.key in self._told]:
            self._journal.settle(receiver.name, done=told)
        if rows and len(told) == len(rows):
            self._cursor = rows[-1].seq
            return self._take()
        if rows:
            return [self._item_of(row) for row in rows if row.key not in self._told]
        return [
            _Item(self._letter(one.key, one.body), waiting=one)
            for one in self._journal.stranded(receiver.name, receiver.window)
        ]

    def _item_of(self, row: outbox.Row) -> _Item:
        inherited = row.seq <= self._journal.inherited
        return _Item(self._letter(row.key, row.body, retry=inherited), seq=row.seq)

    def _letter(self, key: Key, body: bytes, *, retry: bool = False) -> Letter:
        return Letter(key=key, body=body, retry=retry or key in self._tried)

    def _send(self, items: Sequence[_Item]) -> None:
        try:
            self._receiver.send([item.letter for item in items])
        except Unreachable as failure:
            self._done(items[: failure.num_done])
            self._tried = {item.letter.key for item in items[failure.num_done :]}
            raise
        except Refused as refusal:
            self._done(items[: refusal.num_done])
            self._park(items[refusal.num_done], str(refusal))
            self._tried = {item.letter.key for item in items[refusal.num_done + 1 :]}
        else:
            self._done(items)
            self._tried.clear()

    def _done(self, items: Sequence[_Item]) -> None:
        if not items:
            return
        if self._away:
            logger.info("%s: takes messages again", self._receiver.name)
        self._away = False
        self._pause_s = min(_FIRST_PAUSE_S, self._longest_pause_s)
        self.counts.sent += len(items)
        self.counts.retried += sum(item.letter.retry for item in items)
        self._settle(items)

    def _park(self, item: _Item, reason: str) -> None:
        self.counts.parked += 1
        self.counts.last_error = reason
        logger.warning(
            "%s: refuses event %s, revision %d: %s",
            self._receiver.name,
            *item.letter.key,
            reason,
        )
        self._settle([item], parked=True)

    def _settle(self, items: Sequence[_Item], *, parked: bool = False) -> None:
        seqs = [item.seq for item in items if item.seq is not None]
        stranded = [item.waiting for item in items if item.waiting is not None]
        if seqs:
            self._cursor = seqs[-1]
            name = self._receiver.name
            self._journal.settle(name, *(((), seqs) if parked else (seqs, ())))
        if stranded:
            self._told.extend(one.key for one in stranded)
            self._journal.told(self._receiver.name, stranded)

    def _rest(self, failure: Unreachable) -> None:
        """Say it once an outage, and leave the receiver alone for a while."""
        self.counts.attempts_failed += 1
        if not self._away:
            logger.warning("%s: %s; trying again", self._receiver.name, failure)
        self._away = True
        self.counts.last_error = str(failure)
        pause_s = max(self._pause_s, min(failure.after_s, self._longest_pause_s))
        self._called.wait(pause_s * random.uniform(0.8, 1.2))
        self._pause_s = min(self._pause_s * 2, self._longest_pause_s)
