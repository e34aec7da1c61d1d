# SPDX-License-Identifier: Apache-2.0
"""Takes events and health from the boxes of a fleet and keeps them.

    box --.                                   .-- roster ----.
    box --+-- ROUTER, CURVE -> collector -----+              +-- web
    box --'      (one thread)                 '-- database --'

What always holds. If the code is at odds with it, the code is wrong.

1.  Only a key in the folder of boxes gets further than the handshake, and who a box is, is the name
    of its key's file. When a key is taken away, nothing that comes from it is taken any more, and
    every connection is made anew, so that its own ends and it fails in the handshake.
2.  A message is acknowledged after it is committed. One that was known, by box, event and revision,
    is acknowledged again and not kept again. Those of a box are kept in the order it sent them.
3.  A box has at most `credits` messages on their way. One that does not read its answers, breaks
    off or sends what is no message loses its connection; no other box waits for it.
4.  While the database cannot be written, boxes are sent away and keep what they have.
5.  Nothing that comes over the network ends the collector.
"""

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from model.errors import ConfigError
from pipeline.fleet.allowed import Allowed
from pipeline.fleet.batch import Batch, Peer, read_event
from pipeline.fleet.config import CollectorConfig
from pipeline.fleet.database import FleetDatabase
from pipeline.fleet.roster import Box, Roster
from pipeline.telling.age import AgeClock
from pipeline.transport import fleetwire as wire
from pipeline.transport.curve import Doorkeeper, read_keys, secure, watch_over
from pipeline.transport.mailbox import Mailbox

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
"""How often the folder of boxes is looked at while nothing comes."""
_MOST_IN_ROUND: Final = 512
_SPARE_MESSAGES: Final = 16
_TIDY_S: Final = 10.0
_DAY_S: Final = 86_400
_REBIND_S: Final = 10.0
_TELL_AGAIN_S: Final = 10.0
_STUCK_S: Final = 10.0
_FAILED: Final = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL

_Parts = list[zmq.Frame]
"""Of one message; the first says whose."""


class Collector:
    """Serves boxes until it is told to stop; `run` is used by one thread."""

    def __init__(self, config: CollectorConfig) -> None:
        """Check the settings, open the database and listen.

        Raises:
            ConfigError: keys, the folder, the database or the address are not as they must be.
        """
        self._config = config
        self._keys = read_keys(config.key)
        self._allowed = Allowed(config.boxes)
        self.database = FleetDatabase(config.database)
        self._roster = Roster(self.database.boxes(), config.lost_after_s)
        self._roster.allow(self._allowed.names)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._door = Doorkeeper(self._context, config.boxes)
        self._stop: Mailbox[None] = Mailbox()
        self._peers: dict[bytes, Peer] = {}
        """By what ZeroMQ calls the connection."""
        self._age = AgeClock(self.database.latest_s())
        self._beat_s = time.monotonic()
        self._tidy_at_s = self._look_at_s = self._handshakes_told_s = 0.0
        self.writable = True
        """Whether the database can be written."""
        self.num_handshakes_failed = 0
        try:
            self._listen(config.listen)
        except BaseException:
            self.close()
            raise
        names = ", ".join(sorted(self._allowed.names.values())) or "nobody yet"
        logger.info("%s: listening as %s for %s", self.address, self._keys.public.hex(), names)

    @property
    def boxes(self) -> list[Box]:
        """What is known of each box; any thread may ask."""
        return self._roster.boxes()

    def faults(self) -> list[str]:
        """Why the collector does not work; empty while it does."""
        found = [] if self.writable else ["the database cannot be written"]
        if (silent_s := time.monotonic() - self._beat_s) > _STUCK_S:
            found.append(f"the collector has not come round for {silent_s:.0f} s")
        return found

    def stop(self) -> None:
        """End in good order; may be called from a signal handler or another thread."""
        self._stop.put(None)

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            while not any(True for _ in self._stop.take()):
                self._wait()
                self._beat_s = time.monotonic()
                received = self._receive()
                if not self._follow_boxes():
                    self._take(received)
                self._door.answer()
                self._hear_handshakes()
                self._look()
        finally:
            self.close()

    def close(self) -> None:
        """Give back sockets and the database."""
        if self._context.closed:
            return
        if not self._socket.closed:
            self._hang_up()
        self._door.close()
        self._context.term()
        self._stop.close()
        self.database.close()

    def _listen(self, address: str) -> None:
        config = self._config
        self._socket = socket = self._context.socket(zmq.ROUTER)
        secure(socket, self._keys)
        watch_over(socket, config.silence_s)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # to learn who is gone, and who does not read
        socket.setsockopt(zmq.MAXMSGSIZE, wire.MOST_PART_BYTES)
        # Our credits bound what an honest box sends; these bound any other.
        socket.setsockopt(zmq.RCVHWM, config.credits + _SPARE_MESSAGES)
        socket.setsockopt(zmq.SNDHWM, config.credits + _SPARE_MESSAGES)
        socket.setsockopt(zmq.IPV6, int("[" in address))
        self._monitor = socket.get_monitor_socket(_FAILED)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            self._hang_up()
            raise ConfigError(
                f"{address}: cannot listen there ({str(error).lower()}); set listen to another "
                "address or port"
            ) from None
        self.address = socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _wait(self) -> None:
        ends: list[zmq.Socket[bytes] | int] = [self._socket, self._door.socket, self._monitor]
        ends.append(self._stop.fileno())
        zmq.zmq_poll([(end, zmq.POLLIN) for end in ends], round(_LOOK_S * 1000))

    def _receive(self) -> list[_Parts]:
        """What has come, no more than can be held."""
        received: list[_Parts] = []
        while len(received) < _MOST_IN_ROUND and self._socket.poll(0):
            received.append(self._socket.recv_multipart(zmq.NOBLOCK, copy=False))
        return received

    def _follow_boxes(self) -> bool:
        """Look whether a key came or went; if one has gone, end every connection."""
        has_gone = self._allowed.refresh()
        self._roster.allow(self._allowed.names)
        if has_gone:
            for peer in tuple(self._peers):
                self._forget(peer)
            self._hang_up()
            self._listen_again()
        return has_gone

    def _listen_again(self) -> None:
        """Listen where we did; ZeroMQ gives the address back a moment after the socket is closed.

        Raises:
            ConfigError: somebody else has taken it.
        """
        by_s = time.monotonic() + _REBIND_S
        while True:
            try:
                return self._listen(self.address)
            except ConfigError:
                if time.monotonic() > by_s:
                    raise
                time.sleep(0.02)

    def _hear_handshakes(self) -> None:
        """Note handshakes that failed before a key was asked for, but not each in the log."""
        num_before = self.num_handshakes_failed
        while self._monitor.poll(0):
            recv_monitor_message(self._monitor, zmq.NOBLOCK)
            self.num_handshakes_failed += 1
        now_s = time.monotonic()
        if self.num_handshakes_failed > num_before and now_s > self._handshakes_told_s:
            self._handshakes_told_s = now_s + _TELL_AGAIN_S
            logger.warning(
                "%s: a handshake failed: whoever it was has another key for us than %s "
                "(events.fleet.collector_key), or is no box; %d so far",
                *(self.address, self._keys.public.hex(), self.num_handshakes_failed),
            )

    def _take(self, received: Sequence[_Parts]) -> None:
        """Commit what has come, and acknowledge it."""
        batch = Batch()
        for peer, *parts in received:
            self._handle(peer.bytes, parts, batch)
        if batch.is_empty:
            return
        try:
            fresh = self.database.keep(batch.messages, batch.reports.items(), self._age.now())
        except sqlite3.Error as failure:
            self._fail(failure)
            return
        self._recover()
        self._acknowledge(batch, fresh)

    def _handle(self, peer: bytes, parts: Sequence[zmq.Frame], batch: Batch) -> None:
        """Handle a message; whatever it is, it harms nobody else."""
        key = str(parts[0].get("User-Id")).rpartition(" ")[2]
        name = self._allowed.names.get(key)
        if name is None:  # let in by a file that has changed since
            return
        self._roster.hear(name)
        try:
            match wire.from_box(parts[0].buffer):
                case wire.Hello() as hello:
                    self._let_in(peer, name, hello, str(parts[0].get("Peer-Address")))
                case _ if (known := self._peers.get(peer)) is None or known.name != name:
                    pass  # sent before the box knew of a refusal, or by who only says it is the box
                case wire.Told() as told:
                    self._take_event(known, told, parts[1:], batch)
                case wire.Health(report=report):
                    self._roster.hear(name, report)
                    batch.reports[name] = wire.encode_report(report)
                case wire.Bye():
                    logger.info("%s: took leave", name)
                    self._forget(peer)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self._refuse(peer, name, f"what was sent is no message of ours ({error})")

    def _let_in(self, peer: bytes, name: str, hello: wire.Hello, host: str) -> None:
        if hello.protocol != wire.FLEET_PROTOCOL:
            self._refuse(
                peer, name,
                f"the collector speaks protocol {wire.FLEET_PROTOCOL}, the box {hello.protocol}; "
                "update the older of the two",
            )  # fmt: skip
            return
        for other in [other for other, known in self._peers.items() if known.name == name]:
            self._forget(other)
        self._peers[peer] = Peer(identity=peer, name=name)
        self._roster.connect(name, stands=True)
        logger.info("%s: came in from %s with version %s", name, host, hello.version)
        self._send(peer, wire.Welcome(box=name, credits=self._config.credits))

    def _take_event(
        self, peer: Peer, told: wire.Told, parts: Sequence[zmq.Frame], batch: Batch
    ) -> None:
        """Put an event into the batch, or reject it.

        Raises:
            ValueError: the connection does not number its messages as it must.
        """
        if told.number != peer.taken + 1 or len(parts) != 1:
            raise ValueError(f"number {told.number} of {len(parts)} parts after {peer.taken}")
        peer.taken = told.number
        try:
            batch.add(peer, read_event(peer.name, parts[0].bytes))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            batch.reject(peer, told.number, f"the collector cannot read it ({error})")

    def _acknowledge(self, batch: Batch, fresh: Mapping[str, int]) -> None:
        counts = Counter(message.box for message in batch.messages)
        for name, number in counts.items():
            self._roster.count(name, told=fresh[name], known=number - fresh[name])
        for identity, rejected in batch.rejected:
            if (peer := self._peers.get(identity)) is not None:
                name = peer.name
                self._roster.count(name, rejected=1)
                logger.warning(
                    "%s: rejected message %d: %s", name, rejected.number, rejected.reason
                )
                self._send(identity, rejected)
        for identity, through in batch.taken.items():
            if identity in self._peers:
                self._send(identity, wire.Ack(through=through))

    def _fail(self, failure: sqlite3.Error) -> None:
        """Send the boxes away, which keep what they have."""
        if self.writable:
            logger.error(
                "%s: cannot be written: %s; boxes keep their events until it can",
                self._config.database.path, failure,
            )  # fmt: skip
        self.writable = False
        for peer, known in tuple(self._peers.items()):
            self._refuse(peer, known.name, "the collector cannot write its database now")

    def _recover(self) -> None:
        if not self.writable:
            logger.warning("%s: can be written again", self._config.database.path)
        self.writable = True

    def _look(self) -> None:
        """Learn who is lost, and tidy, now and then."""
        now_s = time.monotonic()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + _LOOK_S
            self._roster.look()
        if now_s >= self._tidy_at_s:
            self._tidy_at_s = now_s + _TIDY_S
            self._tidy()

    def _tidy(self) -> None:
        before_s = self._age.now() - self._config.database.keep_days * _DAY_S
        try:
            if self.database.tidy(before_s):
                self._tidy_at_s = 0.0  # there may be more
        except sqlite3.Error as failure:
            self._fail(failure)
        else:
            self._recover()

    def _send(self, peer: bytes, message: wire.FromCollector) -> None:
        try:
            self._socket.send_multipart((peer, wire.encode(message)), zmq.NOBLOCK)
        except zmq.ZMQError:  # it is gone, or does not read
            self._forget(peer)

    def _refuse(self, peer: bytes, name: str, reason: str) -> None:
        logger.warning("%s: refused: %s", name, reason)
        self._forget(peer)
        with suppress(zmq.ZMQError):  # whoever it was may be gone
            refused = wire.encode(wire.Refused(reason=reason))
            self._socket.send_multipart((peer, refused), zmq.NOBLOCK)

    def _forget(self, peer: bytes) -> None:
        known = self._peers.pop(peer, None)
        if known is not None:
            self._roster.connect(known.name, stands=False)

    def _hang_up(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()
