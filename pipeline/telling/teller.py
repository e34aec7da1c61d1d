# SPDX-License-Identifier: Apache-2.0
"""START: keeps events and tells everyone who is to know.

    tell -> memory -> journal -> database: events, outbox
                         |            |
                      publisher       `-- a thread per receiver -> webhook, mqtt, jsonl, fleet

What always holds. `tell` returns at once, whatever is broken. An event that is kept is told to each
receiver of the settings at least once, in the order of telling, through outages of the receiver and
kill -9 of this program; what is told twice says so. What is given up is counted. A receiver that is
away or slow keeps no other waiting.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from sqlite3 import Error as DatabaseError
from typing import Final

from pipeline.events import Event
from pipeline.telling import outbox
from pipeline.telling.config import TellingConfig, Wanted
from pipeline.telling.database import Reader
from pipeline.telling.delivery import Delivery
from pipeline.telling.fleet import FleetReceiver
from pipeline.telling.journal import Journal
from pipeline.telling.jsonl import JsonlReceiver
from pipeline.telling.letters import Receiver
from pipeline.telling.mqtt import MqttReceiver
from pipeline.telling.publisher import Publisher
from pipeline.telling.snapshots import Snapshots
from pipeline.telling.store import History
from pipeline.telling.webhook import WebhookReceiver
from pipeline.transport.fleetwire import Report

_CLOSING_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverStatistics:
    """How one receiver is served; counts are since the start."""

    connected: bool
    sent: int
    retried: int
    """Messages of `sent` that it may have had before."""
    failed: int
    """Attempts that failed."""
    waiting: int
    """Messages that wait now."""
    dropped: int
    """Messages that waited too long, or were too many."""
    parked: int
    """Messages it refused."""
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How keeping and telling go; counts are since the start."""

    kept: int
    known: int
    """Messages that were kept already."""
    waiting: int
    """Events in memory that are not kept yet."""
    lost: int
    """Events that were never kept: too many waited for the database."""
    writable: bool
    """Whether the database can be written."""
    failures: int
    """Times it became impossible to write."""
    interrupted: int
    """Events left open by the run before, which have been given an end."""
    snapshots_failed: int
    published: int
    publish_dropped: int
    receivers: dict[str, ReceiverStatistics]


class Teller:
    """The front of it all; any thread may use it."""

    def __init__(self, config: TellingConfig, cameras: Sequence[str] = ()) -> None:
        """Open the database and begin to tell what an earlier run could not.

        Raises:
            ConfigError: a database that is none of ours or a later one, a key or certificate that
                cannot be read, an address that cannot be bound.
        """
        self.snapshots = Snapshots(config.snapshots)
        self.history = History(config.database.path)
        self._path = config.database.path
        self._receivers = _receivers(config, tuple(cameras))
        self._publisher = Publisher(config.publish) if config.publish is not None else None
        try:
            self._journal = Journal(
                config.database,
                config.outbox,
                [receiver.name for receiver, _ in self._receivers],
                _Around(tuple(self._receivers), self._publisher, self.snapshots),
                config.max_waiting,
            )
        except BaseException:
            self._close_publisher()
            raise
        start = partial(
            Delivery,
            journal=self._journal,
            path=self._path,
            longest_pause_s=config.outbox.longest_pause_s,
        )
        self._deliveries = {receiver.name: start(receiver) for receiver, _ in self._receivers}

    def tell(self, event: Event) -> None:
        """Have an event kept and told; returns at once."""
        self._journal.put(event)

    def flush(self, within_s: float) -> bool:
        """Wait until every event told so far is kept; False if that takes longer."""
        return self._journal.flush(within_s)

    def set_cameras(self, cameras: Sequence[str]) -> None:
        """Say which cameras there are, after some were added or removed."""
        for receiver, _ in self._receivers:
            if isinstance(receiver, MqttReceiver):
                receiver.set_cameras(tuple(cameras))
        self._journal.wake()

    def report_with(self, report: Callable[[], Report]) -> None:
        """Say how this machine does to the collector of its fleet, if it has one.

        Args:
            report: Called now and then, by a thread of the teller.
        """
        for receiver, _ in self._receivers:
            if isinstance(receiver, FleetReceiver):
                receiver.report = report

    def close(self, within_s: float = _CLOSING_S) -> None:
        """Keep what was told, deliver what can be in the time, and end.

        What could not be delivered is in the database, for the next run.
        """
        by_s = time.monotonic() + within_s
        self._journal.flush(within_s)
        for delivery in self._deliveries.values():
            delivery.finish(by_s)
        self._journal.wake()
        for delivery in self._deliveries.values():
            delivery.join(max(0.0, by_s - time.monotonic()))
        self._journal.close(max(0.5, by_s - time.monotonic()))
        self._close_publisher()

    @property
    def writable(self) -> bool:
        """Whether the database can be written, as was last seen; no disk is asked."""
        return not self._journal.down

    def statistics(self) -> Statistics:
        """How it goes."""
        counts, publisher = self._journal.counts, self._publisher
        rows = self._rows()
        return Statistics(
            kept=counts.kept,
            known=counts.known,
            waiting=self._journal.num_waiting,
            lost=counts.lost,
            writable=self.writable,
            failures=counts.failures,
            interrupted=counts.interrupted,
            snapshots_failed=self.snapshots.num_failed,
            published=publisher.num_sent if publisher else 0,
            publish_dropped=publisher.num_dropped if publisher else 0,
            receivers={
                name: self._statistics_of(name, delivery, rows.get(name, outbox.Counts()))
                for name, delivery in self._deliveries.items()
            },
        )

    def _statistics_of(
        self, name: str, delivery: Delivery, rows: outbox.Counts
    ) -> ReceiverStatistics:
        counts = delivery.counts
        return ReceiverStatistics(
            connected=delivery.connected,
            sent=counts.sent,
            retried=counts.retried,
            failed=counts.attempts_failed,
            waiting=rows.waiting + len(self._journal.stranded(name)),
            dropped=self._journal.counts.dropped[name],
            parked=counts.parked,
            last_error=counts.last_error,
        )

    def _rows(self) -> dict[str, outbox.Counts]:
        reader = Reader(self._path)
        try:
            return outbox.counts(reader)
        except DatabaseError:
            return {}  # `writable` says that something is wrong
        finally:
            reader.close()

    def _close_publisher(self) -> None:
        if self._publisher is not None:
            self._publisher.close()


@dataclass(frozen=True, slots=True)
class _Around:
    """What the journal asks for."""

    receivers: tuple[tuple[Receiver, Wanted], ...]
    publisher: Publisher | None
    snapshots: Snapshots

    def receivers_of(self, event: Event) -> frozenset[str]:
        return frozenset(
            receiver.name for receiver, wanted in self.receivers if wanted.wants(event)
        )

    def publish(self, event: Event, body: bytes) -> None:
        if self.publisher is not None:
            self.publisher.publish(event, body)

    def forgotten(self, snapshots: Sequence[str], now_s: float) -> None:
        self.snapshots.remove(snapshots)
        self.snapshots.tidy(now_s)


def _receivers(config: TellingConfig, cameras: tuple[str, ...]) -> list[tuple[Receiver, Wanted]]:
    """Everyone of the settings, and what they want to know."""
    receivers: list[tuple[Receiver, Wanted]] = [
        (WebhookReceiver(webhook), webhook) for webhook in config.webhooks
    ]
    if config.mqtt is not None:
        receivers.append((MqttReceiver(config.mqtt, cameras), config.mqtt))
    if config.jsonl is not None:
        receivers.append((JsonlReceiver(config.jsonl), config.jsonl))
    if config.fleet is not None:
        receivers.append((FleetReceiver(config.fleet), config.fleet))
    return receivers
