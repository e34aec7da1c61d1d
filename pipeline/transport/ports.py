# SPDX-License-Identifier: Apache-2.0
"""What a stage holds in its hands: named links to read and write, and the line to its supervisor.

All waiting of a stage happens here, so all of it is counted: time without input, time without
credit, and the rest, which is work.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import zmq

from pipeline.messages import AnyMessage, Buffers
from pipeline.topology import Link
from pipeline.transport.control import (
    AboutModel,
    AnyCommand,
    AnyReport,
    Checkpoint,
    Close,
    ControlLine,
    Forget,
    KeepModel,
    LeaveModel,
    Reconnect,
    Stop,
    SwapModel,
    Unmap,
)
from pipeline.transport.links import Delivery, Inlet, Outlet
from pipeline.transport.memory import Pools
from pipeline.transport.pool import Claim, Leasable

Context = zmq.Context[zmq.Socket[bytes]]
FOREVER_MS = -1
_TRUNK = ""  # in the place of a stream's name
_MOST_GONE = 1000
C = TypeVar("C", bound=Claim)


class ClosedDown(Exception):  # noqa: N818 - it is an order, not an error
    """The supervisor told the stage to leave now."""


@dataclass(slots=True)
class Usage:
    """Where a stage's time went, in nanoseconds of the wall clock but for `cpu_ns`."""

    messages: int = 0
    waiting_for_input_ns: int = 0
    waiting_for_credit_ns: int = 0
    running_ns: int = 0
    """From its start to its end; what is not waiting is work."""
    cpu_ns: int = 0
    """Processor time of the stage's own thread, without the threads of its libraries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A link as its writer sees it: the addresses of the readers of a stream."""

    link: Link
    addresses: Callable[[str], Sequence[str]]


class Ports:
    """A stage's links; made and used in the thread that runs the stage."""

    def __init__(
        self,
        context: Context,
        name: str,
        control: ControlLine,
        pools: Pools,
        *,
        inlets: Mapping[str, tuple[Link, str]],
        routes: Mapping[str, Route],
    ) -> None:
        self.name = name
        self.checkpoint: Checkpoint | None = None
        """Where a stage that died left off, for the one that takes its place."""
        self.busy_since_s: float | None = None
        """When the stage last came by here, where it works; None while it waits here."""
        self.swaps: deque[AboutModel] = deque()
        """Orders to use another model, for the stage that runs one."""
        self.pools = pools
        self.usage = Usage()
        self._stopping = False
        self._context = context
        self._control = control
        self._routes = routes
        self._outlets: dict[str, Outlet] = {}
        self._moved: dict[str, str] = {}
        """Where readers are whose place was taken elsewhere, by their first address."""
        self._connections: dict[tuple[str, str], tuple[Outlet, ...]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        """Streams whose branches are gone, the last ones: what is late is not late for long."""
        self._inlets = {
            link_name: Inlet(context, address, link.depth)
            for link_name, (link, address) in inlets.items()
        }
        self._taken: dict[str, deque[Delivery]] = {link_name: deque() for link_name in inlets}
        """What has come on each link and is not received yet."""

    @property
    def stopping(self) -> bool:
        """Whether the supervisor asked for no more input."""
        self.busy_since_s = time.monotonic()  # who asks gets on
        self._obey()
        return self._stopping

    def report(self, report: AnyReport) -> None:
        """Tell the supervisor something."""
        self._control.report(report)

    def receive(self, link: str, *, wake: int | None = None) -> Delivery | None:
        """Wait for the next message of a link; writers of the others are welcomed meanwhile.

        With a descriptor `wake`, None as soon as that is readable, a reader has answered (a slot
        may be free for work that waits), or there is an order in `swaps`.

        Raises:
            ClosedDown: the supervisor ended the stage.
        """
        also: list[zmq.Socket[bytes] | int] = [inlet.socket for inlet in self._inlets.values()]
        if wake is not None:
            also.append(wake)
        taken = self._taken[link]
        while not taken:
            started = time.monotonic_ns()
            try:
                ready = self._poll(also, FOREVER_MS)
            finally:
                self.usage.waiting_for_input_ns += time.monotonic_ns() - started
            self._take(ready)
            orders = wake is not None and (wake in ready or self.swaps or self._answered(ready))
            if orders and not taken:
                return None
        self.usage.messages += 1
        return taken.popleft()

    def send(
        self,
        link: str,
        message: AnyMessage,
        buffers: Buffers = (),
        *,
        lease: Claim | None = None,
        on_acknowledged: Callable[[], None] | None = None,
    ) -> None:
        """Send to every reader of the link, waiting for credits where there are none.

        `lease` is the slot the message names: it is published, and free again once every reader
        has let go of it. `on_acknowledged` is called when every reader has acknowledged; it may
        answer deliveries, but not send. What is sent to a stream whose branch is gone counts as
        acknowledged.

        Raises:
            ClosedDown: the supervisor ended the stage.
        """
        while not self.can_send(link, message.stream):
            self.wait()
        self.busy_since_s = time.monotonic()
        outlets = self._connected(link, message.stream)
        if lease is not None:
            lease.publish(len(outlets))
        acknowledged = _after(len(outlets), on_acknowledged or _nothing)

        resend = self._routes[link].link.resend
        for reader, outlet in enumerate(outlets):
            free = _releaser(lease, reader)
            if resend:
                outlet.send(message, buffers, on_acknowledged=_both(free, acknowledged))
            else:
                outlet.send(message, buffers, on_released=free, on_acknowledged=acknowledged)

    def can_send(self, link: str, stream: str) -> bool:
        """Whether `send` would go through at once; looks at the answers that have come."""
        if all(outlet.ready for outlet in self._connected(link, stream)):
            return True
        self._obey()
        outlets = self._connected(link, stream)
        for outlet in outlets:
            outlet.collect()
        return all(outlet.ready for outlet in outlets)

    def lease(self, pool: Leasable[C]) -> C:
        """Take a slot of a pool this stage fills, waiting until a reader lets go of one.

        Raises:
            ClosedDown: the supervisor ended the stage.
        """
        while (lease := pool.lease()) is None:
            self.wait_for(pool)
        return lease

    def wait_for(self, pool: Leasable[Claim]) -> None:
        """Wait for a while in which a slot of a pool may come free.

        Raises:
            ClosedDown: the supervisor ended the stage.
        """
        look_again_ms = pool.look_again_ms
        self.wait(FOREVER_MS if look_again_ms is None else look_again_ms)

    def wait(self, timeout_ms: int = FOREVER_MS) -> None:
        """Wait until a reader answers, the supervisor speaks, or the time is over.

        Raises:
            ClosedDown: the supervisor ended the stage.
        """
        started = time.monotonic_ns()
        try:
            self._poll([], timeout_ms)
        finally:
            self.usage.waiting_for_credit_ns += time.monotonic_ns() - started

    def drain(self) -> None:
        """Wait until everything sent is acknowledged."""
        while any(outlet.num_unacknowledged for outlet in self._outlets.values()):
            self.wait()

    def forget(self, stream: str) -> None:
        """Close the connections into a branch that is gone.

        Readers in the trunk are still there: what they were sent they answer, and until then they
        may look at its slots.
        """
        self._gone[stream] = None
        if len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)
        self.pools.forget(f"{stream}/")
        for link, route in self._routes.items():
            self._connections.pop((link, stream), None)
            gone = set(self._addresses(route, stream)) - set(self._addresses(route, _TRUNK))
            for address in gone:
                if (outlet := self._outlets.pop(address, None)) is not None:
                    outlet.abandon()

    def close(self) -> None:
        """Close every socket but the line to the supervisor."""
        for outlet in self._outlets.values():
            outlet.close()
        for inlet in self._inlets.values():
            inlet.close()

    def _connected(self, link: str, stream: str) -> tuple[Outlet, ...]:
        """The connections that carry a stream's messages of a link, made when first asked for."""
        if stream in self._gone:
            return ()
        outlets = self._connections.get((link, stream))
        if outlets is None:
            route = self._routes[link]
            addresses = self._addresses(route, stream)
            outlets = tuple(self._outlet(route.link, address) for address in addresses)
            self._connections[link, stream] = outlets
        return outlets

    def _addresses(self, route: Route, stream: str) -> list[str]:
        """Where the readers of a stream are now."""
        return [self._moved.get(address, address) for address in route.addresses(stream)]

    def _turn(self, address: str, to: str) -> None:
        """Turn from a reader that is gone to the one in its place."""
        if address != to:
            moved = {first: to if now == address else now for first, now in self._moved.items()}
            self._moved = {**moved, address: to}
        if (outlet := self._outlets.pop(address, None)) is not None:
            self._outlets[to] = outlet
            outlet.reconnect(to)

    def _outlet(self, link: Link, address: str) -> Outlet:
        """The connection to a reader; streams that meet there share it."""
        if address not in self._outlets:
            writer = f"{self.name}:{link.name}"
            self._outlets[address] = Outlet(self._context, address, writer, link.window)
        return self._outlets[address]

    def _poll(self, also: Sequence[zmq.Socket[bytes] | int], timeout_ms: int) -> set[object]:
        outlets = tuple(self._outlets.values())
        sockets = [self._control.socket, *(outlet.socket for outlet in outlets), *also]
        self.busy_since_s = None
        events = zmq.zmq_poll([(socket, zmq.POLLIN) for socket in sockets], timeout_ms)
        self.busy_since_s = time.monotonic()
        ready: set[object] = {socket for socket, _ in events}
        for outlet in outlets:
            if outlet.socket in ready:
                outlet.collect()
        if self._control.socket in ready:
            self._obey()
        return ready

    def _take(self, ready: Collection[object]) -> None:
        """Read what has come on any link: who waits at one may be what the writers of another wait
        for, who must hear that they may send.
        """
        for link, inlet in self._inlets.items():
            if inlet.socket in ready and (delivery := inlet.take()) is not None:
                self._taken[link].append(delivery)

    def _answered(self, ready: set[object]) -> bool:
        return any(outlet.socket in ready for outlet in self._outlets.values())

    def _obey(self) -> None:
        while (command := self._control.command()) is not None:
            self._follow(command)

    def _follow(self, command: AnyCommand) -> None:
        match command:
            case Close():
                raise ClosedDown
            case Stop():
                self._stopping = True
            case Forget(stream=stream):
                self.forget(stream)
            case Reconnect(address=address, to=to):
                self._turn(address, to)
            case SwapModel() | KeepModel() | LeaveModel():
                self.swaps.append(command)
            case Unmap(pool=pool):
                self.pools.forget(pool)


def _releaser(lease: Claim | None, reader: int) -> Callable[[], None]:
    if lease is None:
        return _nothing
    held = lease
    return lambda: held.release(reader)


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


def _after(count: int, call: Callable[[], None]) -> Callable[[], None]:
    """A function that makes the call the `count`-th time it is called; now where that is 0."""
    if count == 0:
        call()
    missing = count

    def step() -> None:
        nonlocal missing
        missing -= 1
        if missing == 0:
            call()

    return step


def _nothing() -> None:
    pass
