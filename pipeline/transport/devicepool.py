# SPDX-License-Identifier: Apache-2.0
"""Pools of equal slots in a GPU's memory, for one process alone.

Whoever writes to such a slot, and whoever reads it, has the GPU do it some time later. So a slot
goes to its readers with the event that ends its writing, and readers leave the events that end
theirs. It is free once nobody holds it and all of these have happened; a pool that is given up
keeps its memory until then.
"""

import itertools
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from model.cuda.coded import DeviceArray
from model.cuda.device import Device, Event
from model.errors import EngineError
from pipeline.messages import Slot
from pipeline.transport.pool import LEDGER, Claim, Slots, named

_ALIGNMENT: Final = 512
_LOOK_AGAIN_MS: Final = 2


class Place:
    """The bytes of one slot, and what the GPU still does with them."""

    def __init__(self, memory: object, address: int) -> None:
        """Set up for bytes that are kept by `memory`."""
        self.memory = memory
        self.address = address
        self.ready: Event | None = None
        """The end of the last writing."""
        self._readers: deque[Event] = deque()

    def read_until(self, event: Event) -> None:
        """Hear of one more reader, before the slot is let go of; from any thread."""
        self._readers.append(event)

    @property
    def is_read(self) -> bool:
        """Whether a reader has not ended."""
        while self._readers and self._readers[0].happened():
            self._readers.popleft()
        return bool(self._readers)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing that was asked for is still to be done; of a broken GPU nothing is."""
        try:
            return not self.is_read and (self.ready is None or self.ready.happened())
        except EngineError:
            return True


@dataclass(frozen=True, slots=True)
class DeviceLease(Claim):
    """A claim to a slot on a GPU."""

    place: Place

    @property
    def address(self) -> int:
        """Where the slot begins."""
        return self.place.address

    def written(self, ready: Event) -> None:
        """Note what ends the writing of the slot, before it is published."""
        self.place.ready = ready


class DevicePool(Slots):
    """A pool of bytes on a GPU, leased by the one thread that made it."""

    def __init__(self, device: Device, name: str, num_bytes: int, count: int) -> None:
        """Take the memory.

        Raises:
            OutOfDeviceMemory: there is not enough.
        """
        import torch

        super().__init__(name, (num_bytes,), np.zeros(count, LEDGER))
        self._device = device
        step = -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        memory = device.empty((count * step,), torch.uint8)
        first = memory.data_ptr()
        self._places = [Place(memory, first + index * step) for index in range(count)]

    @property
    def look_again_ms(self) -> int | None:
        """When a slot that is being read may have been."""
        return _LOOK_AGAIN_MS if self._num_read else None

    @property
    def num_held(self) -> int:
        """Slots that somebody holds, or that the GPU still reads."""
        return super().num_held + self._num_read

    @property
    def is_at_rest(self) -> bool:
        """Whether the GPU has nothing more to do with any slot."""
        return all(place.is_at_rest for place in self._places)

    def lease(self) -> DeviceLease | None:
        """Take a free slot for writing; None where all are held or read."""
        for _ in range(len(self._free)):
            index = self._free.popleft()
            place = self._places[index]
            if not place.is_read:
                return DeviceLease(self, self._taken(index), place)
            self._free.append(index)
        return None

    def view(self, slot: Slot) -> DeviceArray:
        """The published contents of a slot; the array keeps them, also without the pool.

        Raises:
            PipelineError: the slot has been used again since.
        """
        self._check(slot)
        place = self._places[slot.index]
        (num_bytes,) = self.shape
        return DeviceArray(place.address, num_bytes, self._device.index, place.ready, place)

    @property
    def _num_read(self) -> int:
        return sum(self._places[index].is_read for index in self._free)


class DevicePools:
    """The pools that this process has on GPUs; shared by its stages."""

    def __init__(self) -> None:
        self._devices: dict[int, Device] = {}
        self._pools: dict[str, DevicePool] = {}
        self._leaving: list[DevicePool] = []
        """Those that were given up while a GPU had to do with them."""
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pools there are."""
        return tuple(self._pools)

    def offer(self, device: Device | None) -> None:
        """Hear that an engine of this process reads slots on a GPU, if it does."""
        if device is not None:
            self._devices[device.index] = device

    def device(self, index: int) -> Device | None:
        """The GPU of this number, if an engine of this process reads slots there."""
        return self._devices.get(index)

    def create(self, device: Device, name: str, num_bytes: int, count: int) -> DevicePool:
        """Make a pool for the calling stage to lease from; its name gets a number.

        Raises:
            OutOfDeviceMemory: there is no room for it.
        """
        self._leave(())
        pool = DevicePool(device, f"{name}~{next(self._numbers)}", num_bytes, count)
        with self._lock:
            self._pools[pool.name] = pool
        return pool

    def view(self, slot: Slot) -> DeviceArray | None:
        """The published contents of a slot; None for one that is not on a GPU, or not any more."""
        pool = self._pools.get(slot.pool)
        return None if pool is None else pool.view(slot)

    def forget(self, name: str) -> None:
        """Give up a pool, or a folder of pools; what is being read stays until it was."""
        self._leave(named(name, self.names))

    def forget_all(self) -> None:
        """Give up all of them."""
        self._leave(self.names)

    def _leave(self, names: Iterable[str]) -> None:
        with self._lock:
            self._leaving += [self._pools.pop(name) for name in names if name in self._pools]
            self._leaving = [pool for pool in self._leaving if not pool.is_at_rest]
