# SPDX-License-Identifier: Apache-2.0
"""Memory of this process that a device copies from by itself.

Registering memory costs milliseconds, so whoever maps a pool has it registered once, for all
engines on a device. What is forgotten stays registered until the last reader has ended.
"""

import logging
import threading
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import numpy as np

from model.cuda.device import Device

logger = logging.getLogger(__name__)

_SHARING: Final = threading.Lock()


@dataclass(slots=True, eq=False)
class Span:
    """Registered memory; the array keeps it mapped."""

    memory: np.ndarray
    num_readers: int = 0
    forgotten: bool = False


class HostMemory:
    """What one device may copy from; for any thread."""

    def __init__(self, device: Device) -> None:
        """Begin with none; `shared` is what engines take."""
        self._device = device
        self._lock = threading.Lock()
        self._firsts: list[int] = []
        self._spans: list[Span] = []
        """In the order of their addresses, which `_firsts` holds."""
        self._refused = False
        self.num_staged = 0
        """Pictures so far that were asked for in vain, and are copied once more."""

    @classmethod
    def shared(cls, device: Device) -> "HostMemory":
        """Return the one of a device: memory can be registered but once."""
        with _SHARING:
            memory = _SHARED.get(id(device))
            if memory is None:  # while there is one, it keeps the device, and so its identity
                memory = _SHARED[id(device)] = cls(device)
            return memory

    def register(self, memory: np.ndarray) -> bool:
        """Let the device copy from an array's memory; False where that is refused."""
        with self._lock:
            first = memory.ctypes.data
            if not self._device.register(memory):
                self._say_refused(memory.nbytes)
                return False
            place = bisect_right(self._firsts, first)
            self._firsts.insert(place, first)
            self._spans.insert(place, Span(memory))
            return True

    def forget(self, memory: np.ndarray) -> None:
        """Unregister what was registered, as soon as nobody reads it."""
        with self._lock:
            span = self._covering(memory)
            if span is not None:
                span.forgotten = True
                self._drop_unread(span)

    def borrow(self, pixels: np.ndarray) -> Span | None:
        """Keep memory registered until `give_back`; None for what is not registered."""
        with self._lock:
            span = self._covering(pixels)
            if span is None:
                self.num_staged += 1
            else:
                span.num_readers += 1
            return span

    def give_back(self, span: Span) -> None:
        with self._lock:
            span.num_readers -= 1
            self._drop_unread(span)

    def close(self) -> None:
        """Unregister everything; nobody reads any of it."""
        with self._lock:
            for span in tuple(self._spans):
                span.forgotten = True
                self._drop_unread(span)

    def _covering(self, memory: np.ndarray) -> Span | None:
        first = memory.ctypes.data
        place = bisect_right(self._firsts, first) - 1
        if place < 0:
            return None
        end = self._firsts[place] + self._spans[place].memory.nbytes
        return self._spans[place] if first + memory.nbytes <= end else None

    def _drop_unread(self, span: Span) -> None:
        if span.forgotten and not span.num_readers:
            place = self._spans.index(span)
            del self._spans[place], self._firsts[place]
            self._device.unregister(span.memory)

    def _say_refused(self, num_bytes: int) -> None:
        if not self._refused:
            self._refused = True
            logger.warning(
                "%s: cannot read host memory by itself (%d MiB refused); pictures are copied once "
                "more on their way",
                self._device.name,
                num_bytes >> 20,
            )


_SHARED: Final[WeakValueDictionary[int, HostMemory]] = WeakValueDictionary()
