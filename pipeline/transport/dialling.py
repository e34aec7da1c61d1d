# SPDX-License-Identifier: Apache-2.0
"""One try of an encrypted connection to a host that listens, and what became of it.

A lost connection never comes back by itself: the next try has a socket of its own, so that nothing
of this one is heard or sent in it.
"""

import time
from dataclasses import dataclass
from typing import Final, Literal

import zmq
from zmq.utils.monitor import recv_monitor_message

from pipeline.transport.curve import Keys, secure, watch_over

Cause = Literal["key-refused", "handshake", "nobody", "broke", "silent"]
"""Our key is not let in; the other has another key than we know, or is none of ours; nobody
listens; a connection that stood is gone; nothing came for too long."""

_LINGER_MS: Final = 200  # for the farewell
_WHY_MS: Final = 200
_REFUSED: Final = 400  # the doorkeeper's word
_EVENTS: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


class Gone(Exception):  # noqa: N818 - a fact about the connection
    """The connection is; another may be made."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Whom to connect to, and as whom."""

    address: str
    keys: Keys
    server: bytes
    """The public key of who listens."""
    silence_s: float
    """After so long without a sign of life the connection ends."""


class Dialled:
    """One connection; used by one thread."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], dial: Dial) -> None:
        """Begin to connect.

        Raises:
            zmq.ZMQError: the address cannot be one.
        """
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.setsockopt(zmq.IPV6, int("[" in dial.address))
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, round(dial.silence_s * 1000))
        secure(self._socket, dial.keys, dial.server)
        watch_over(self._socket, dial.silence_s)
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        self._connected = False
        self.stands = False
        """Whether both sides have accepted each other's keys."""
        try:
            self._socket.connect(dial.address)
        except zmq.ZMQError:
            self.close()
            raise

    def send(self, header: bytes, *parts: bytes | memoryview) -> None:
        """Send a message; large parts are not copied, so let them be as they are.

        Raises:
            Gone: the connection is.
        """
        try:
            self._socket.send_multipart((header, *parts), zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self._monitor.poll(_WHY_MS)  # that it is gone may be known before why
            self._look()
            raise Gone("broke") from None

    def receive(self, within_s: float, *, wake: int | None = None) -> list[list[bytes]]:
        """What has come, once something has, a descriptor is readable, or the time is over.

        Raises:
            Gone: the connection is, and nothing is left of it.
        """
        by_s = time.monotonic() + within_s
        while True:
            left_ms = max(0, round((by_s - time.monotonic()) * 1000))
            ends: list[zmq.Socket[bytes] | int] = [self._socket, self._monitor]
            if wake is not None:
                ends.append(wake)
            ready = dict(zmq.zmq_poll([(end, zmq.POLLIN) for end in ends], left_ms))
            messages = []
            while self._socket.poll(0):
                messages.append(self._socket.recv_multipart(zmq.NOBLOCK))
            if messages:
                return messages
            self._look()
            if not ready or wake in ready:
                return []

    def close(self) -> None:
        """Close the socket and its monitor."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()

    def _look(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            self._handle(zmq.Event(event["event"]), event["value"])

    def _handle(self, event: zmq.Event, value: int) -> None:
        match event:
            case zmq.Event.CONNECTED:
                self._connected = True
            case zmq.Event.HANDSHAKE_SUCCEEDED:
                self.stands = True
            case zmq.Event.HANDSHAKE_FAILED_AUTH if value == _REFUSED:
                raise Gone("key-refused")
            case zmq.Event.DISCONNECTED if self.stands:
                raise Gone("broke")
            case (
                zmq.Event.HANDSHAKE_FAILED_AUTH
                | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
                | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
                | zmq.Event.DISCONNECTED
            ):
                raise Gone("handshake")
            case zmq.Event.CLOSED if not self._connected:
                raise Gone("nobody")
