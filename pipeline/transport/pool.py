# SPDX-License-Identifier: Apache-2.0
"""Pools of equal slots in anonymous shared memory, each with a ledger of its holders.

A pool is a memory file (`memfd_create`) whose pages are reserved when it is made, so that a
machine without room says so then and not in the middle of a run. One stage leases slots and
fills them; a published slot is read-only; it is free again when every reader has let go of it.
The ledger at the head of the file (generation and holders of each slot) outlives its stages.
"""

import mmap
import os
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError
from pipeline.messages import Slot


class SlotGone(PipelineError):  # noqa: N818 - it is a fact about the slot
    """The pool was given back: the stream it belonged to is over."""


_WRITER = 1  # the holder bit of the stage that fills the slot; readers take the bits above it


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to fill one slot, held until it is released by its last holder."""

    pool: "Pool"
    slot: Slot
    array: np.ndarray
    """The slot's memory, writable."""

    def publish(self, num_readers: int) -> None:
        """Hand the slot to its readers; nobody writes to it from here on."""
        self.array.flags.writeable = False
        self._pass_on(_WRITER, ((1 << num_readers) - 1) << 1)

    def release(self, reader: int) -> None:
        """Note that one reader has let go; the last one frees the slot."""
        self._pass_on(_WRITER << 1 + reader, 0)

    def cancel(self) -> None:
        """Give back a slot that was never published."""
        self._pass_on(_WRITER, 0)

    def _pass_on(self, holder: int, successors: int) -> None:
        """Put others in the place of one holder; a slot that nobody holds is free."""
        index, holders = self.slot.index, self.pool.ledger["holders"]
        generation = self.pool.ledger["generation"][index]
        assert generation == self.slot.generation, "the slot has been used again since"
        assert holders[index] & np.uint64(holder), "the holder has let go of the slot before"
        holders[index] ^= np.uint64(holder | successors)
        if holders[index] == 0:
            self.pool.free(index)


class Pool:
    """`count` slots of one shape and type; leased by one stage, read by any."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype, count: int) -> None:
        """Reserve the memory.

        Raises:
            PipelineError: the machine has no room for it.
        """
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.num_slots = count
        self._slot_bytes = _page_aligned(int(np.prod(shape)) * dtype.itemsize)
        ledger_type = np.dtype([("generation", np.uint64), ("holders", np.uint64)])
        self._head_bytes = _page_aligned(count * ledger_type.itemsize)
        self.num_bytes = self._head_bytes + count * self._slot_bytes
        try:
            self.descriptor, self._memory = _reserve(f"sightline-{name}", self.num_bytes)
        except OSError as error:
            raise PipelineError(
                f"pool {name}: cannot reserve {self.num_bytes >> 20} MiB ({error.strerror}); "
                "use fewer streams, a smaller image_size or shallower queues"
            ) from error
        self.ledger = np.frombuffer(self._memory, ledger_type, count)
        self._free = deque(range(count))

    def lease(self) -> Lease | None:
        """Take a free slot for writing; None where all are held."""
        if not self._free:
            return None
        index = self._free.popleft()
        self.ledger["generation"][index] += np.uint64(1)
        self.ledger["holders"][index] = _WRITER
        generation = int(self.ledger["generation"][index])
        slot = Slot(pool=self.name, index=index, generation=generation, shape=self.shape)
        return Lease(self, slot, self._array(index))

    def view(self, slot: Slot) -> np.ndarray:
        """The published contents of a slot, read-only.

        Raises:
            PipelineError: the slot has been used again since.
        """
        current = int(self.ledger["generation"][slot.index])
        if current != slot.generation:
            raise PipelineError(
                f"pool {self.name}: slot {slot.index} holds generation {current}, "
                f"wanted {slot.generation}; it was released too early"
            )
        array = self._array(slot.index)
        array.flags.writeable = False
        return array

    def free(self, index: int) -> None:
        """Put a slot back."""
        self._free.append(index)

    def close(self) -> None:
        """Give the memory back as soon as the last array on it is gone."""
        os.close(self.descriptor)

    @property
    def num_held(self) -> int:
        """Slots that somebody holds."""
        return int(np.count_nonzero(self.ledger["holders"]))

    def _array(self, index: int) -> np.ndarray:
        start = self._head_bytes + index * self._slot_bytes
        return np.ndarray(self.shape, self.dtype, self._memory, start)


class Pools:
    """Every pool of a run; owned by the supervisor, asked by the stages."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}
        self._lock = threading.Lock()

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype, count: int) -> Pool:
        """Make a pool; a name that exists gets a number, since old slots may still be read."""
        with self._lock:
            unique, number = name, 1
            while unique in self._pools:
                number += 1
                unique = f"{name}~{number}"
            pool = self._pools[unique] = Pool(unique, shape, dtype, count)
            return pool

    def view(self, slot: Slot) -> np.ndarray:
        """The published contents of a slot, read-only.

        Raises:
            SlotGone: the pool was discarded.
        """
        pool = self._pools.get(slot.pool)
        if pool is None:
            raise SlotGone(f"pool {slot.pool} is gone")
        return pool.view(slot)

    def discard(self, prefix: str) -> None:
        """Forget the pools whose names begin so; arrays on them stay readable."""
        with self._lock:
            for name in [name for name in self._pools if name.startswith(prefix)]:
                self._pools.pop(name).close()

    def close(self) -> None:
        """Forget them all."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()

    @property
    def num_bytes(self) -> int:
        """Memory reserved by all pools."""
        return sum(pool.num_bytes for pool in tuple(self._pools.values()))


def _reserve(name: str, num_bytes: int) -> tuple[int, mmap.mmap]:
    """A memory file whose pages are there, and its mapping."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
        return descriptor, mmap.mmap(descriptor, num_bytes)
    except OSError:
        os.close(descriptor)
        raise


def _page_aligned(num_bytes: int) -> int:
    return -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
