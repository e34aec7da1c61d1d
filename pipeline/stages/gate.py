# SPDX-License-Identifier: Apache-2.0
"""gate: pictures from another host into slots for infer, and what suppress found back out.

A frame's index is its picture's number; it expires when its answer is of no more use.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.messages import Buffers, Found, Frame, Part
from pipeline.transport.mailbox import Mailbox
from pipeline.transport.pool import Pool
from pipeline.transport.ports import Ports
from pipeline.transport.wire import Look

_EVER_NS = 1 << 62
_UINT8 = np.dtype(np.uint8)
_MOST_POOLS = 8  # shapes whose slots are kept


@dataclass(frozen=True, slots=True)
class Arrived:
    """A picture that a client sent."""

    look: Look
    pixels: memoryview
    late_ns: int
    """When its answer is of no more use, by `time.monotonic_ns()`."""

    @classmethod
    def now(cls, look: Look, pixels: memoryview) -> "Arrived":
        """A picture that came this moment."""
        fresh_ns = _EVER_NS if look.fresh_ns is None else look.fresh_ns
        return cls(look, pixels, time.monotonic_ns() + fresh_ns)


class Gate:
    """Lets one client's pictures in."""

    def __init__(
        self, inbox: Mailbox[Arrived], answer: Callable[[int, Buffers | None], None], num_slots: int
    ) -> None:
        self._inbox = inbox
        self._answer = answer
        self._num_slots = num_slots
        self._pools: dict[tuple[int, ...], Pool] = {}

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Serve until the session ends."""
        while True:
            delivery = ports.receive("found", wake=self._inbox.fileno())
            if delivery is not None:
                message = delivery.message
                found = delivery.buffers if isinstance(message, Found) else None
                self._answer(message.frame_index, found)
                delivery.acknowledge()
            for arrived in self._inbox.take():
                self._let_in(ports, arrived)

    def _let_in(self, ports: Ports, arrived: Arrived) -> None:
        look = arrived.look
        lease = ports.lease(self._pool(ports, look.shape))
        lease.array[...] = np.frombuffer(arrived.pixels, np.uint8).reshape(look.shape)
        frame = Frame(
            stream=str(look.stream),
            frame_index=look.number,
            pts_ns=0,
            duration_ns=0,
            captured_ns=time.monotonic_ns(),
            expires_ns=arrived.late_ns,
            image=lease.slot,
            canvas_hw=(look.shape[1], look.shape[2]),
            source_hw=look.source_hw,
            regions=look.regions,
            part=Part(picture_hw=look.source_hw),
        )
        ports.send("frames", frame, lease=lease)

    def _pool(self, ports: Ports, shape: tuple[int, ...]) -> Pool:
        """The slots for pictures of a shape; those of shapes that are not seen any more go."""
        pool = self._pools.pop(shape, None)
        if pool is None:
            idle = [pool for pool in self._pools.values() if pool.num_held == 0]
            for old in idle[: len(self._pools) - _MOST_POOLS + 1]:
                ports.pools.discard(self._pools.pop(old.shape).name)
            name = "/frames/" + "x".join(map(str, shape[:3]))
            pool = ports.pools.create(name, shape, _UINT8, self._num_slots)
        self._pools[shape] = pool  # the one used last stands last
        return pool
