"""Stages without work: ports on both ends of links, and a supervisor's desk beside them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import zmq

from pipeline.messages import Ended, Found, Part, Picture
from pipeline.topology import Link
from pipeline.transport.control import AnyCommand, ControlDesk, ControlLine, Ready
from pipeline.transport.links import Delivery
from pipeline.transport.memory import PoolDesk, Pools
from pipeline.transport.pool import Lease, Pool
from pipeline.transport.ports import Context, Ports, Route

TIMEOUT_S = 20
UINT8 = np.dtype(np.uint8)
T = TypeVar("T")


class Rig:
    """Everything of a run but its stages."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.context: Context = zmq.Context()
        self.pool_desk = PoolDesk()
        self.pools = Pools(self.pool_desk)
        self.desk = ControlDesk(self.context, f"{base}/control")
        self._threads = ThreadPoolExecutor(4)
        self._open: list[tuple[Ports, ControlLine]] = []

    def ports(
        self,
        name: str,
        *,
        reads: Sequence[Link] = (),
        stream: str = "",
        writes: Mapping[Link, Sequence[str]] | None = None,
    ) -> Ports:
        """The ports of a stage; `writes` names the readers of each link."""

        def route(link: Link, readers: Sequence[str]) -> Route:
            return Route(
                link=link,
                addresses=lambda to: [self.address(link, reader, to) for reader in readers],
            )

        line = ControlLine(self.context, f"{self.base}/control", name)
        ports = Ports(
            self.context,
            name,
            line,
            self.pools,
            inlets={link.name: (link, self.address(link, name, stream)) for link in reads},
            routes={link.name: route(link, readers) for link, readers in (writes or {}).items()},
        )
        self._open.append((ports, line))
        ports.report(Ready())
        assert self.desk.hear(TIMEOUT_S * 1000) == (name, Ready())
        return ports

    def address(self, link: Link, reader: str, stream: str) -> str:
        """Readers whose names begin with `trunk` take all streams at one address."""
        place = "" if reader.startswith("trunk") else stream
        return f"{self.base}/{link.name}.{reader}.{place}"

    def tell(self, ports: Ports, command: AnyCommand) -> None:
        """Speak to a stage."""
        self.desk.tell(ports.name, command)

    def begin(self, call: Callable[..., T], *arguments: Any, **named: Any) -> "Future[T]":
        """Run a call that may block beside the test."""
        return self._threads.submit(call, *arguments, **named)

    def deliver(
        self, writer: Ports, link: str, reader: Ports, message: Any, **named: Any
    ) -> Delivery:
        """Send one message and receive it."""
        sending = self.begin(writer.send, link, message, **named)
        delivery = reader.receive(link)
        sending.result(TIMEOUT_S)
        assert delivery is not None
        return delivery

    def close(self, ports: Ports) -> None:
        """End a stage."""
        for pair in [pair for pair in self._open if pair[0] is ports]:
            self._open.remove(pair)
            pair[0].close()
            pair[1].close()

    def end(self) -> None:
        """Close everything; the context ends only when every socket is closed."""
        self._threads.shutdown()
        for ports, _ in tuple(self._open):
            self.close(ports)
        self.desk.close()
        terminating = ThreadPoolExecutor(1).submit(self.context.term)
        terminating.result(TIMEOUT_S)
        self.pool_desk.close()


def found(index: int = 0, stream: str = "yard") -> Found:
    times = {"pts_ns": 0, "duration_ns": 1, "captured_ns": 0}
    return Found(stream=stream, frame_index=index, **times, part=Part(picture_hw=(1, 1)))


def ended(stream: str = "yard") -> Ended:
    return Ended(stream=stream, frame_index=0, complete=True)


def leased(pool: Pool, value: int = 0) -> Lease:
    lease = pool.lease()
    assert lease is not None
    lease.array[...] = value
    return lease


def picture(lease: Lease, index: int = 0, stream: str = "yard") -> Picture:
    return Picture(
        stream=stream,
        frame_index=index,
        pts_ns=0,
        duration_ns=1,
        captured_ns=0,
        picture=lease.slot,
        picture_hw=(2, 2),
        matrix="bt709",
    )


def wait_until(ports: Ports, true: Callable[[], bool]) -> None:
    """Let answers come in until something is so."""
    while not true():
        ports.wait(TIMEOUT_S * 1000)


def settle(ports: Ports) -> None:
    """Let answers come in that are on their way, if there are any."""
    ports.wait(50)
