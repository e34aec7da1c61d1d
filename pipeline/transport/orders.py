# SPDX-License-Identifier: Apache-2.0
"""What passes over the socket that a worker process inherits from the supervisor.

Packets keep their bounds and their order, and the end of the process is the end of the socket, so
that nothing a process said before it died is missed.
"""

import socket
from collections.abc import Iterator, Sequence

import msgspec

from pipeline.transport.control import AnyCommand, AnyReport, Checkpoint
from pipeline.transport.descriptors import receive

_MOST_BYTES = 1 << 18


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run a stage."""

    stage: str
    stream: str
    trunk: int
    errand: bytes
    """What the stage is made for, pickled by our own supervisor."""
    checkpoint: Checkpoint | None


class Tell(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Pass a command on to a stage."""

    worker: str
    command: AnyCommand


class Fork(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Start a process that works with the descriptors beside this order."""


class Began(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The process is there."""

    pid: int


class Heard(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A stage's report, passed on."""

    worker: str
    report: AnyReport


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The process lives; its stages have been at one piece of work for so long at most."""

    busy_s: float


AnyOrder = Begin | Tell | Fork
AnyNews = Began | Heard | Alive

_encoder = msgspec.msgpack.Encoder()
_orders = msgspec.msgpack.Decoder(AnyOrder)
_news = msgspec.msgpack.Decoder(AnyNews)


class Gone(Exception):  # noqa: N818 - it is a fact about the other end
    """The other end of the socket is closed."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's; neither is inherited unless it is passed on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_BYTES)
    return ours, theirs


def send(line: socket.socket, body: AnyOrder | AnyNews, descriptors: Sequence[int] = ()) -> None:
    """Send one packet, with descriptors beside it.

    Raises:
        Gone: nobody is at the other end.
    """
    try:
        socket.send_fds(line, [_encoder.encode(body)], descriptors)
    except OSError as error:
        raise Gone from error


def next_order(line: socket.socket) -> tuple[AnyOrder, list[int]]:
    """The next order, waited for, and the descriptors beside it.

    Raises:
        Gone: the supervisor is.
    """
    body, descriptors = _receive(line, 0)
    return _orders.decode(body), descriptors


def news(line: socket.socket) -> Iterator[AnyNews]:
    """What has come, without waiting.

    Raises:
        Gone: the process is, and this is all it said.
    """
    while True:
        try:
            body, _ = _receive(line, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        yield _news.decode(body)


def _receive(line: socket.socket, flags: int) -> tuple[bytes, list[int]]:
    try:
        body, descriptors = receive(line, _MOST_BYTES, flags)
    except ConnectionError as error:
        raise Gone from error
    if not body:
        raise Gone
    return body, descriptors
