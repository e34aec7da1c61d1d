# SPDX-License-Identifier: Apache-2.0
"""The client's end of the connection to a worker on another host.

A thread of its own keeps the connection, so that it stays alive while the stage is busy. Each try
has a socket of its own: nothing of a connection that was lost is heard or sent in the next one.
Pictures without an answer are kept and sent again, so that a worker may come and go.
"""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import zmq

from model.slicing import Region
from pipeline.cameras import Priority
from pipeline.config import RemoteConfig
from pipeline.errors import StageError
from pipeline.fairness import FairQueue
from pipeline.keyfiles import PUBLIC_SUFFIX
from pipeline.transport.control import EngineBuilt
from pipeline.transport.curve import Keys
from pipeline.transport.dialling import Dial, Dialled, Gone
from pipeline.transport.mailbox import Mailbox
from pipeline.transport.wire import (
    MOST_STREAMS,
    Bye,
    FromWorker,
    Hello,
    Late,
    Look,
    Refused,
    Seen,
    Welcome,
    encode,
    from_worker,
)

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_MOST_SNUBS = 3  # handshakes broken off before any was completed: the fault is not a passing one
_MOST_FRUITLESS = 5
_ANSWER_PARTS = 4
_LOOK = 0.25  # of the times that are watched: how often


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A picture on its way."""

    number: int
    stream: str
    pixels: memoryview
    shape: tuple[int, int, int, int]
    source_hw: tuple[int, int]
    regions: tuple[Region, ...]
    late_ns: int | None
    """When its answer is of no more use, by `time.monotonic_ns()`."""
    priority: Priority = "normal"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the worker found in a picture."""

    number: int
    columns: Sequence[bytes] | None
    """None where it was too late to look."""


class _Lost(Exception):  # noqa: N818 - a fact about the connection
    """The connection is gone; another may be made."""

    def __init__(self, reason: str, *, cure: str = "", snubbed: bool = False) -> None:
        super().__init__(reason)
        self.cure = cure and f"; {cure}"
        """What its user can do about it."""
        self.snubbed = snubbed
        """Whether the other side broke off the handshake."""


class Uplink:
    """Asks a worker, from one thread, and hands its answers to that thread."""

    def __init__(self, config: RemoteConfig, keys: Keys, server: bytes, hello: Hello) -> None:
        self.address = config.address
        self.news: Mailbox[Answer | EngineBuilt | Future[None]] = Mailbox()
        """Answers in any order, what the worker runs, and the end of the connection for good."""
        self._config = config
        self._dial = Dial(
            address=config.address, keys=keys, server=server, silence_s=config.silence_s
        )
        self._hello = hello
        self._asked: Mailbox[Asked | None] = Mailbox()
        self._waiting = FairQueue[Asked]()
        self._sent: dict[int, Asked] = {}
        self._streams: dict[str, int] = {}
        """The numbers of streams."""
        self._credits = 0
        self._frame_bytes = 0
        self._answered = False
        """Whether this connection brought an answer."""
        self._away_since_s: float | None = None
        self._welcomed = False
        self._told = False
        """Whether the user knows that the worker is away."""
        self._snubs = 0
        self._fruitless = 0
        """Connections in a row that ended with pictures and without an answer."""
        self._thread = ThreadPoolExecutor(1, "uplink")

    def open(self) -> None:
        """Begin to connect."""
        self._thread.submit(self._work).add_done_callback(self.news.put)

    def ask(self, asked: Asked) -> None:
        """Send a picture when there is a credit; its pixels are read until it is answered."""
        self._asked.put(asked)

    def close(self) -> None:
        """Take leave of the worker."""
        self._asked.put(None)
        self._thread.shutdown()
        self._asked.close()
        self.news.close()

    def _work(self) -> None:
        """Connect until the stage is done.

        Raises:
            StageError: there is no use in trying on.
        """
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._away_since_s = time.monotonic()
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                connection = self._dialled(context)
                try:
                    connection.send(encode(self._hello))
                    self._serve(connection)
                    return
                except Gone as gone:
                    self._note(self._lost(gone))
                except _Lost as lost:
                    self._note(lost)
                finally:
                    connection.close()
                pause_s = _FIRST_PAUSE_S if self._answered else min(2 * pause_s, _LONGEST_PAUSE_S)
                if not self._pause(pause_s):
                    return
        finally:
            context.term()

    def _dialled(self, context: zmq.Context[zmq.Socket[bytes]]) -> Dialled:
        try:
            return Dialled(context, self._dial)
        except zmq.ZMQError as error:
            raise StageError(f"{self.address}: cannot connect ({error})") from None

    def _serve(self, connection: Dialled) -> None:
        """Ask and listen over one connection until the stage is done.

        Raises:
            Gone: the connection is.
            _Lost: it is silent, or the worker wants us later.
            StageError: the worker does not want us.
        """
        self._credits, self._answered = 0, False
        # what an earlier connection left without an answer goes first, in its order
        for asked in reversed(self._sent.values()):
            self._waiting.put_back(asked.stream, asked)
        self._sent.clear()
        look_s = _LOOK * min(self._config.silence_s, self._config.timeout_s)
        heard_s = time.monotonic()
        while True:
            messages = connection.receive(look_s, wake=self._asked.fileno())
            for parts in messages:
                self._hear(parts)
            heard_s = time.monotonic() if messages else heard_s
            self._check_silence(connection, time.monotonic() - heard_s)
            if not self._collect():
                connection.send(encode(Bye()))
                return
            self._drop_late()
            while self._waiting and len(self._sent) < self._credits:
                self._send(connection, self._waiting.take())

    def _drop_late(self) -> None:
        """Answer pictures that waited too long, before they cost anything."""
        now_ns = time.monotonic_ns()

        def late(asked: Asked) -> bool:
            return asked.late_ns is not None and now_ns > asked.late_ns

        for asked in self._waiting.remove(late):
            self.news.put(Answer(asked.number, None))

    def _send(self, connection: Dialled, asked: Asked) -> None:
        self._check_size(asked)
        fresh_ns = asked.late_ns and max(0, asked.late_ns - time.monotonic_ns())
        look = Look(
            number=asked.number,
            stream=self._streams[asked.stream],
            shape=asked.shape,
            source_hw=asked.source_hw,
            regions=asked.regions,
            fresh_ns=fresh_ns,
        )
        self._sent[asked.number] = asked
        connection.send(encode(look), asked.pixels)

    def _check_silence(self, connection: Dialled, silent_s: float) -> None:
        """Give up on a worker from which nothing comes.

        Raises:
            _Lost: nothing came for too long.
        """
        if silent_s < self._patience_s():
            return
        if connection.stands:
            raise _Lost(f"silent for {silent_s:.1f} s (remote.silence_s)")
        raise _Lost(
            "no answer from there",
            cure="see that the address is right and that no firewall is between",
        )

    def _patience_s(self) -> float:
        """How long the worker may be silent."""
        if self._away_since_s is None:
            return self._config.silence_s
        left_s = self._away_since_s + self._config.timeout_s - time.monotonic()
        return max(0.0, min(left_s, self._config.silence_s))

    def _collect(self) -> bool:
        """Take what the stage asks; False once it is done."""
        for asked in self._asked.take():
            if asked is None:
                return False
            self._streams.setdefault(asked.stream, len(self._streams) % MOST_STREAMS)
            self._waiting.put(asked.stream, asked, asked.priority)
        return True

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try; False if the stage is done."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            zmq.zmq_poll([(self._asked.fileno(), zmq.POLLIN)], round(left_s * 1000) + 1)
            if not self._collect():
                return False
        return True

    def _hear(self, parts: list[bytes]) -> None:
        match self._decode(parts[0]):
            case Welcome() as welcome:
                self._be_welcomed(welcome)
            case Seen(number=number) if len(parts) == _ANSWER_PARTS:
                self._settle(number, parts[1:])
            case Late(number=number):
                self._settle(number, None)
            case EngineBuilt() as built:
                self.news.put(built)
            case Refused(reason=reason, again=True):
                raise _Lost(reason)
            case Refused(reason=reason):
                raise StageError(f"{self.address}: {reason}")

    def _decode(self, header: bytes) -> FromWorker:
        try:
            message: FromWorker = from_worker(header)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise StageError(
                f"{self.address}: sent what is no message of ours ({error}); "
                "run one version of Sightline on both hosts"
            ) from None
        return message

    def _settle(self, number: int, columns: Sequence[bytes] | None) -> None:
        """Hand an answer over, the first time it comes."""
        if self._sent.pop(number, None) is not None:
            self._answered = True
            self.news.put(Answer(number, columns))

    def _be_welcomed(self, welcome: Welcome) -> None:
        self._credits, self._frame_bytes = welcome.credits, welcome.frame_bytes
        if self._told:
            logger.warning("%s: connected", self.address)
        self._welcomed, self._told = True, False
        self._away_since_s = None

    def _check_size(self, asked: Asked) -> None:
        if asked.pixels.nbytes > self._frame_bytes:
            raise StageError(
                f"{self.address}: takes pictures of {self._frame_bytes >> 20} MiB, this one has "
                f"{asked.pixels.nbytes / 2**20:.1f} MiB; start the worker with a larger frame_mib "
                "or choose a smaller model.image_size or fewer slices"
            )

    def _lost(self, gone: Gone) -> _Lost:
        """What became of a connection, in words.

        Raises:
            StageError: the worker refused our key.
        """
        match gone.cause:
            case "key-refused":
                mine = self._config.key.with_suffix(PUBLIC_SUFFIX).name
                raise StageError(
                    f"{self.address}: refused our key {self._dial.keys.public.hex()}; copy {mine} "
                    "into the worker's --allow folder"
                )
            case "handshake":
                return _Lost(
                    "broke off the handshake, so it has another key than "
                    f"{self._config.server_key} (remote.server_key) or is no worker",
                    cure="copy the .pub file of the worker's --key here",
                    snubbed=True,
                )
            case "nobody":
                return _Lost(
                    "nobody listens there",
                    cure=f"start it with: sightline worker --listen {self.address}",
                )
        return _Lost("the connection broke")

    def _note(self, lost: _Lost) -> None:
        """Decide whether to try again.

        Raises:
            StageError: there is no use in it.
        """
        now_s = time.monotonic()
        self._snubs += lost.snubbed
        if self._answered:
            self._fruitless = 0
        elif self._sent:
            self._fruitless += 1
        if self._snubs >= _MOST_SNUBS and not self._welcomed:
            raise StageError(f"{self.address}: {lost}{lost.cure}")
        if self._fruitless >= _MOST_FRUITLESS:
            raise StageError(
                f"{self.address}: {lost}, for the {_MOST_FRUITLESS}th time without an answer to "
                f"picture {next(iter(self._sent))}; see the worker's log"
            )
        timeout_s = self._config.timeout_s
        if self._away_since_s is None:
            self._away_since_s = now_s
        if now_s >= self._away_since_s + timeout_s:
            limit = f"gave up after {timeout_s:g} s (remote.timeout_s)"
            raise StageError(f"{self.address}: {lost}; {limit}{lost.cure}")
        if not self._told:
            self._told = True
            logger.warning("%s: %s; trying again for %g s", self.address, lost, timeout_s)
