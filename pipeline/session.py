# SPDX-License-Identifier: Apache-2.0
"""One client of a station: the trunk's own stages in threads, behind a gate.

The engines are the client's alone and go with it.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zmq

from model.config import Suppression
from model.engines.contract import Engine
from model.slicing import Region
from pipeline.config import WorkerConfig
from pipeline.engines import ForCanvases
from pipeline.host import Assignment, Host, Surroundings
from pipeline.messages import Buffers, Found, Frame, Predictions
from pipeline.models import ModelInUse
from pipeline.stages.gate import Arrived, Gate
from pipeline.stages.infer import Infer
from pipeline.stages.suppress import Suppress
from pipeline.topology import Addresses, Graph, Link, Stage, Worker
from pipeline.transport.control import AnyReport, Close
from pipeline.transport.mailbox import Mailbox
from pipeline.transport.memory import PoolDesk, Pools
from pipeline.transport.ports import Context
from pipeline.transport.wire import Look
from pipeline.trunk import Trunk

Make = Callable[[str], Worker]

_RESULTS = 16
_STEP = 32
_MOST_PIXELS = 1 << 16
"""A source is not larger than this on a side; H.264 and HEVC end well before."""


class Misbehaved(Exception):  # noqa: N818 - it is a fact about the client
    """A client did what none of ours does."""


@dataclass(frozen=True, slots=True)
class Client:
    """Whom a message is from, as the handshake has proved."""

    user: str
    """The name and the key it came in with."""
    host: str

    @classmethod
    def of(cls, part: zmq.Frame) -> "Client":
        """The sender of a message."""
        return cls(str(part.get("User-Id")), str(part.get("Peer-Address")))

    def __str__(self) -> str:
        name, _, key = self.user.rpartition(" ")
        return f"{name} ({key[:8]}) at {self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a client asked for when it came."""

    client: Client
    run: str
    suppression: Suppression
    class_ids: tuple[int, ...] | None


class Session:
    """Finds boxes for one client; used by one thread."""

    def __init__(
        self,
        order: Order,
        config: WorkerConfig,
        context: Context,
        build_engine: Callable[..., Engine],
        answer: Callable[[int, Buffers | None], None],
    ) -> None:
        """Start the stages; `answer` is called by a thread of theirs."""
        self.order = order
        self.num_answered = 0
        self._config = config
        self._in_flight: set[int] = set()
        self._inbox: Mailbox[Arrived] = Mailbox()
        self._desk = PoolDesk()
        self._pools = Pools(self._desk)
        graph = _graph(
            config.credits,
            gate=lambda _: Gate(self._inbox, answer, config.credits),
            infer=lambda _: Infer(
                ForCanvases(build_engine), Trunk(model=ModelInUse(config=config.model))
            ),
            suppress=lambda _: Suppress(order.suppression, order.class_ids),
        )
        addresses = Addresses(f"inproc://{uuid.uuid4().hex}")
        self._host = Host(Surroundings(context, addresses, graph, self._pools))
        for stage in graph.group("trunk"):
            self._host.start(Assignment(stage=stage.name))

    def take(self, look: Look, pixels: memoryview) -> None:
        """Let a picture in.

        Raises:
            Misbehaved: it is not as agreed.
        """
        if len(self._in_flight) >= self._config.credits:
            raise Misbehaved(f"sent more than {self._config.credits} pictures at a time")
        if look.number < 0 or look.number in self._in_flight:
            raise Misbehaved(f"sent two pictures with the number {look.number}")
        _check(look, pixels.nbytes)
        self._in_flight.add(look.number)
        self._inbox.put(Arrived.now(look, pixels))

    def answered(self, number: int) -> None:
        """Note that a picture has its answer."""
        self._in_flight.discard(number)
        self.num_answered += 1

    def hear(self) -> Iterator[AnyReport]:
        """What the stages report."""
        for _, report in self._host.hear():
            yield report

    @property
    def pollable(self) -> "zmq.Socket[bytes]":
        """Readable when there is something to hear."""
        return self._host.pollable

    def leave(self) -> None:
        """Tell the stages to end; an engine that is being built is waited for."""
        for worker in self._host.working:
            self._host.tell(worker, Close())

    def gone(self) -> bool:
        """Whether all stages have ended; everything is given back then."""
        for _ in self.hear():
            pass
        if self._host.working:
            return False
        self._host.close()
        self._pools.forget_all()
        self._desk.close()
        self._inbox.close()
        return True


def _check(look: Look, num_bytes: int) -> None:
    looks, height, width, channels = look.shape
    if channels != 3 or any(side <= 0 or side % _STEP for side in (height, width)):
        raise Misbehaved(f"sent a picture of shape {look.shape}")
    if looks != len(look.regions):
        raise Misbehaved(f"sent {looks} looks at {len(look.regions)} regions")
    if looks * height * width * channels != num_bytes:
        raise Misbehaved(f"sent {num_bytes} bytes for a picture of shape {look.shape}")
    if not all(0 < side <= _MOST_PIXELS for side in look.source_hw):
        raise Misbehaved(f"sent a picture of a source of size {look.source_hw}")
    whole = Region.whole(look.source_hw)
    if look.regions[0] != whole or not all(region.lies_in(whole) for region in look.regions):
        raise Misbehaved(f"sent looks at {look.regions} of a source of size {look.source_hw}")


def _graph(depth: int, *, gate: Make, infer: Make, suppress: Make) -> Graph:
    frames = Link("frames", Frame, depth=depth, window=depth)
    predictions = Link("predictions", Predictions, depth=_RESULTS)
    found = Link("found", Found, depth=depth)
    # fmt: off
    return Graph((
        #     name        group    reads           writes          worker
        Stage("gate",     "trunk", (found,),       (frames,),      gate),
        Stage("infer",    "trunk", (frames,),      (predictions,), infer),
        Stage("suppress", "trunk", (predictions,), (found,),       suppress),
    ), branch=())
    # fmt: on
