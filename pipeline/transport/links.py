# SPDX-License-Identifier: Apache-2.0
"""The two ends of a ZeroMQ queue whose flow is counted by us.

ZeroMQ's own limits are soft (a mark of 4 held 285 small messages), so nothing is sent without a
credit. The reader grants `depth` credits to each writer that says hello and answers a message
twice, in one step where both hold at once:

    release      I have taken it in: your credit is back, the slots it names are free
    acknowledge  what I made of it is safe further down: you may forget it

The writer's `window` bounds what is not yet acknowledged, which is what may have to be sent
again; the trunk never blocks on one stream because each stream's window fits the queue that
leaves the trunk.
"""

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import zmq

from pipeline.errors import StageError
from pipeline.messages import AnyMessage, Buffers, pack, unpack

_HELLO, _MESSAGE = b"H", b"M"
_LINGER_MS = 1000
_RETRY_MS = 10  # a reader may bind later than its writers connect
_GRANT, _RELEASE, _ACKNOWLEDGE = b"G", b"R", b"A"


def _nothing() -> None:
    pass


class Inlet:
    """The reading end; binds, so that writers may come and go."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, depth: int) -> None:
        self.socket = context.socket(zmq.ROUTER)
        _unlimited(self.socket)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if address.startswith("ipc:"):
            self.socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        self.socket.bind(address)
        self._depth = depth

    def take(self) -> "Delivery | None":
        """Read what the socket holds: a message, or None after a writer's hello.

        Raises:
            StageError: what came is no message of ours.
        """
        writer, kind, *parts = self.socket.recv_multipart(zmq.NOBLOCK)
        if kind == _HELLO:
            self.socket.send_multipart((writer, _GRANT, self._depth.to_bytes(8)))
            return None
        number, header, *buffers = parts
        try:
            message = unpack(header)
        except msgspec.DecodeError as error:
            raise StageError(
                f"{writer.decode(errors='replace')} sent what is no message of ours ({error}); "
                "run one version everywhere"
            ) from error
        return Delivery(self, writer, number, message, tuple(map(memoryview, buffers)))

    def close(self) -> None:
        """Close the socket; what was not answered stays with its writers."""
        self.socket.close()


class Delivery:
    """One message received, waiting for its answers."""

    __slots__ = ("_inlet", "_number", "_writer", "buffers", "message")

    def __init__(
        self,
        inlet: Inlet,
        writer: bytes,
        number: bytes,
        message: AnyMessage,
        buffers: tuple[memoryview, ...],
    ) -> None:
        self.message = message
        self.buffers = buffers
        self._inlet = inlet
        self._writer = writer
        self._number = number

    def release(self) -> None:
        """Return the credit: the message's slots are no longer read."""
        self._answer(_RELEASE)

    def acknowledge(self) -> None:
        """Say that the writer may forget the message; releases it if nothing did before."""
        self._answer(_ACKNOWLEDGE)

    def _answer(self, kind: bytes) -> None:
        self._inlet.socket.send_multipart((self._writer, kind, self._number))


@dataclass(slots=True)
class _Sent:
    parts: Sequence[bytes | memoryview]
    on_released: Callable[[], None]
    on_acknowledged: Callable[[], None]
    released: bool = False


class Outlet:
    """The writing end, connected to one reader.

    Where the reader is gone, messages are kept unanswered until the supervisor speaks: they are
    sent again to its successor, or given up. A callback may answer deliveries, but not send.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        writer: str,
        window: int | None,
    ) -> None:
        self._context = context
        self._address = address
        self._writer = writer
        self.socket = self._connect()
        self._credits = 0
        self._window = window
        self._next = 0
        self._sent: dict[int, _Sent] = {}

    @property
    def ready(self) -> bool:
        """Whether a message may be sent now."""
        return self._credits > 0 and (self._window is None or len(self._sent) < self._window)

    @property
    def num_unacknowledged(self) -> int:
        """Messages the reader has not acknowledged yet."""
        return len(self._sent)

    def send(
        self,
        message: AnyMessage,
        buffers: Buffers = (),
        *,
        on_released: Callable[[], None] = _nothing,
        on_acknowledged: Callable[[], None] = _nothing,
    ) -> None:
        """Spend a credit; the outlet must be `ready`."""
        assert self.ready, "sent without a credit"
        header = pack(message)
        self._credits -= 1
        number = self._next
        self._next += 1
        parts = (_MESSAGE, number.to_bytes(8), header, *buffers)
        self._sent[number] = _Sent(parts, on_released, on_acknowledged)
        self._push(parts)

    def collect(self) -> None:
        """Handle the answers that have come, without waiting."""
        while self.socket.poll(0):
            kind, value = self.socket.recv_multipart(zmq.NOBLOCK)
            number = int.from_bytes(value)
            if kind == _GRANT:
                self._granted(number)
            elif kind == _RELEASE and number in self._sent:
                self._release(self._sent[number])
            elif kind == _ACKNOWLEDGE and number in self._sent:
                sent = self._sent.pop(number)
                self._release(sent)
                sent.on_acknowledged()

    def reconnect(self, address: str) -> None:
        """Turn to the reader that took the place of the last, and send again what it must have."""
        self._address = address
        self.socket.close(linger=0)
        self.socket = self._connect()
        self._credits = 0

    def abandon(self) -> None:
        """Give up on the reader: everything sent counts as answered, then the socket closes."""
        for sent in tuple(self._sent.values()):
            self._release(sent)
            sent.on_acknowledged()
        self._sent.clear()
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _connect(self) -> zmq.Socket[bytes]:
        """A connection under a name of its own.

        Answers meant for a writer that died, or for a connection before, must not count here.
        """
        socket = self._context.socket(zmq.DEALER)
        _unlimited(socket)
        socket.setsockopt(zmq.RECONNECT_IVL, _RETRY_MS)
        socket.setsockopt(zmq.ROUTING_ID, f"{self._writer}#{secrets.token_hex(4)}".encode())
        socket.connect(self._address)
        with suppress(zmq.Again):
            socket.send_multipart((_HELLO,), zmq.NOBLOCK)
        return socket

    def _granted(self, depth: int) -> None:
        """Begin with a reader: what an earlier one has not acknowledged takes its credits first."""
        self._credits = depth - len(self._sent)
        for sent in self._sent.values():
            sent.released = False
            self._push(sent.parts)

    def _push(self, parts: Sequence[bytes | memoryview]) -> None:
        with suppress(zmq.Again):  # the reader is gone; whether to forget it is not ours to say
            self.socket.send_multipart(parts, zmq.NOBLOCK)

    def _release(self, sent: _Sent) -> None:
        if not sent.released:
            sent.released = True
            self._credits += 1
            on_released, sent.on_released = sent.on_released, _nothing
            on_released()


def _unlimited(socket: zmq.Socket[bytes]) -> None:
    """Take ZeroMQ's own limits away, ours are exact; the last answers outlive a close."""
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
