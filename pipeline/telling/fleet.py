# SPDX-License-Identifier: Apache-2.0
"""Sends events, and how this box does, to the collector of its fleet.

The outbox stores and this forwards: an event is confirmed once the collector has committed it. So
an outage, or kill -9 of either side, loses nothing, and what is sent twice is kept once.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import takewhile
from typing import Final

import msgspec
import zmq

from model.errors import ConfigError
from pipeline.keyfiles import PUBLIC_SUFFIX
from pipeline.telling.config import FleetConfig
from pipeline.telling.letters import Letter, Refused, Unreachable
from pipeline.transport import fleetwire as wire
from pipeline.transport.curve import read_keys, read_public
from pipeline.transport.dialling import Cause, Dial, Dialled, Gone

logger = logging.getLogger(__name__)

_WINDOW: Final = 64


class FleetReceiver:
    """The collector, as one who is told."""

    window = _WINDOW

    def __init__(self, config: FleetConfig) -> None:
        """Read the keys.

        Raises:
            ConfigError: one of them cannot be read, or is the other's.
        """
        self.name = "fleet"
        self.connected = False
        self.report: Callable[[], wire.Report] | None = None
        """Says how the box does; called by the receiver's thread."""
        self._config = config
        keys, server = read_keys(config.key), read_public(config.collector_key)
        if keys.public == server:
            raise ConfigError(
                f"events.fleet.collector_key: {config.collector_key} is our own key; copy the "
                ".pub file of the collector's key here"
            )
        self._dial = Dial(
            address=config.address, keys=keys, server=server, silence_s=config.silence_s
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._connection: Dialled | None = None
        self._credits = self._number = self._settled = 0
        self._rejected: wire.Rejected | None = None
        self._report_at_s = 0.0
        self._told: Cause | None = None

    def ready(self) -> None:
        """Connect, hear what the collector says, and report how the box does."""
        try:
            for parts in self._reach().receive(0):
                self._hear(parts)
            self._send_report()
        except Gone as gone:
            raise self._lost(gone) from None

    def send(self, letters: Sequence[Letter]) -> None:
        """Return once the collector has committed all of them."""
        fitting = list(takewhile(_fits, letters))
        self._deliver(fitting)
        if len(fitting) < len(letters):
            size = len(letters[len(fitting)].body)
            raise Refused(
                f"has {size} bytes, of {wire.MOST_EVENT_BYTES} at most", num_done=len(fitting)
            )

    def close(self) -> None:
        """Take leave."""
        if self._connection is not None:
            with suppress(Gone):
                self._connection.send(wire.encode(wire.Bye()))
        self._hang_up()
        self._context.term()

    def _deliver(self, letters: Sequence[Letter]) -> None:
        num_done = 0
        try:
            connection = self._reach()
            first = self._number + 1
            by_s = time.monotonic() + self._config.silence_s
            while num_done < len(letters):
                self._send_more(connection, letters[self._number + 1 - first :])
                messages = connection.receive(max(0.0, by_s - time.monotonic()))
                if not messages:
                    raise Gone("silent")
                by_s = time.monotonic() + self._config.silence_s
                for parts in messages:
                    self._hear(parts)
                    num_done = max(0, self._settled + 1 - first)
                    self._raise_rejected(first)
        except Gone as gone:
            raise self._lost(gone, num_done) from None
        except Unreachable as refusal:
            raise Unreachable(str(refusal), num_done=num_done) from None

    def _reach(self) -> Dialled:
        """The connection, made and welcomed where there is none.

        Raises:
            Gone: there can be none now.
            Unreachable: the collector says why.
        """
        if self._connection is not None:
            return self._connection
        try:
            self._connection = connection = Dialled(self._context, self._dial)
        except zmq.ZMQError as fault:
            raise Unreachable(f"{self._config.address}: {str(fault).lower()}") from None
        self._credits = self._number = self._settled = 0
        self._rejected, self._report_at_s = None, 0.0
        hello = wire.Hello(protocol=wire.FLEET_PROTOCOL, version=version("sightline"))
        connection.send(wire.encode(hello))
        by_s = time.monotonic() + self._config.silence_s
        while not self._credits:
            messages = connection.receive(max(0.0, by_s - time.monotonic()))
            if not messages:
                raise Gone("silent")
            for parts in messages:
                self._hear(parts)
        return connection

    def _hear(self, parts: Sequence[bytes]) -> None:
        """Take what the collector says.

        Raises:
            Unreachable: it takes nothing now.
        """
        try:
            message: wire.FromCollector = wire.from_collector(parts[0])
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self._hang_up()
            raise Unreachable(
                f"{self._config.address}: sent what is no message of ours ({error}); run versions "
                "of Sightline that know each other"
            ) from None
        match message:
            case wire.Welcome():
                self._credits = max(1, message.credits)
                self.connected, self._told = True, None
                logger.info("%s: connected as %s", self._config.address, message.box)
            case wire.Ack(through=through):
                self._settled = max(self._settled, through)
            case wire.Rejected(number=number):
                self._settled = max(self._settled, number - 1)
                self._rejected = message
            case wire.Refused(reason=reason):
                self._hang_up()
                raise Unreachable(f"{self._config.address}: {reason}")

    def _send_more(self, connection: Dialled, letters: Sequence[Letter]) -> None:
        room = self._credits - (self._number - self._settled)
        for letter in letters[: max(0, room)]:
            self._number += 1
            told = wire.Told(number=self._number, retry=letter.retry)
            connection.send(wire.encode(told), letter.body)

    def _raise_rejected(self, first: int) -> None:
        """Say which letter it did not want; those after it are sent anew, and known there."""
        rejected, self._rejected = self._rejected, None
        if rejected is None:
            return
        self._settled = max(self._settled, rejected.number)
        if rejected.number >= first:
            raise Refused(rejected.reason, num_done=rejected.number - first)

    def _send_report(self) -> None:
        now_s = time.monotonic()
        if self.report is None or self._connection is None or now_s < self._report_at_s:
            return
        self._report_at_s = now_s + self._config.health_s
        self._connection.send(wire.encode(wire.Health(report=self.report())))

    def _lost(self, gone: Gone, num_done: int = 0) -> Unreachable:
        """What became of the connection, in words; a key that is wrong is said when it is found."""
        self._hang_up()
        reason = f"{self._config.address}: {self._words(gone.cause)}"
        if gone.cause in ("key-refused", "handshake") and self._told != gone.cause:
            logger.warning("%s", reason)
        self._told = gone.cause
        return Unreachable(reason, num_done=num_done)

    def _words(self, cause: Cause) -> str:
        config = self._config
        match cause:
            case "key-refused":
                mine = config.key.with_suffix(PUBLIC_SUFFIX).name
                return (
                    f"refused our key {self._dial.keys.public.hex()}; copy {mine} into the "
                    "collector's folder of boxes, if this box still belongs to it"
                )
            case "handshake":
                return (
                    f"broke off the handshake, so it has another key than {config.collector_key} "
                    "(events.fleet.collector_key) or is no collector; copy the .pub file of its "
                    "key here"
                )
            case "nobody":
                return "nobody listens there; start it with: sightline collect SETTINGS.yaml"
            case "silent":
                silent = f"no answer within {config.silence_s:g} s (events.fleet.silence_s)"
                if self._credits:
                    return silent
                return f"{silent}; see that the address is right and that no firewall is between"
        return "the connection broke"

    def _hang_up(self) -> None:
        self.connected = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _fits(letter: Letter) -> bool:
    return len(letter.body) <= wire.MOST_EVENT_BYTES
