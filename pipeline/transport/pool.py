# SPDX-License-Identifier: Apache-2.0
"""Pools of equal slots in anonymous shared memory, each with a ledger of its holders.

A pool is a memory file (`memfd_create`) whose pages are reserved when it is made, so that a
machine without room says so then and not in the middle of a run. One stage leases slots and
fills them; a published slot is read-only; it is free again when every reader has let go of it.
The ledger at the head of the file (generation and holders of each slot) has one writer, the stage
that leases, and outlives it: the file belongs to the supervisor.
"""

import mmap
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Protocol, TypeVar

import numpy as np

from pipeline.errors import PipelineError
from pipeline.messages import Slot


class SlotGone(PipelineError):  # noqa: N818 - it is a fact about the slot
    """The pool was given back: the stream it belonged to is over."""


LEDGER: Final = np.dtype([("generation", np.uint64), ("holders", np.uint64)])
_WRITER = 1  # the holder bit of the stage that fills the slot; readers take the bits above it


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to fill one slot, held until it is released by its last holder."""

    pool: "Slots"
    slot: Slot

    def publish(self, num_readers: int) -> None:
        """Hand the slot to its readers; nobody writes to it from here on."""
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


@dataclass(frozen=True, slots=True)
class Lease(Claim):
    """A claim to a slot in this process's memory."""

    array: np.ndarray
    """The slot's memory, writable."""

    def publish(self, num_readers: int) -> None:
        """Hand the slot to its readers; nobody writes to it from here on."""
        self.array.flags.writeable = False
        Claim.publish(self, num_readers)


C_co = TypeVar("C_co", bound=Claim, covariant=True)


class Leasable(Protocol[C_co]):
    """A pool of some kind of memory."""

    @property
    def look_again_ms(self) -> int | None:
        """When a slot may be free that no reader frees by a word; None if none is such."""
        ...

    def lease(self) -> C_co | None:
        """Take a free slot for writing; None where all are held."""
        ...


class Slots:
    """Who holds which of a pool's slots; leased by the stage that made it, read by any."""

    def __init__(self, name: str, shape: tuple[int, ...], ledger: np.ndarray) -> None:
        """Set up for slots that nobody holds.

        Args:
            name: The pool's name, by which slots refer to it.
            shape: Of the array in each slot.
            ledger: `LEDGER` for each slot.
        """
        self.name = name
        self.shape = shape
        self.ledger = ledger
        self._free = deque(range(len(ledger)))

    @property
    def num_slots(self) -> int:
        """How many slots there are."""
        return len(self.ledger)

    @property
    def num_held(self) -> int:
        """Slots that somebody holds."""
        return int(np.count_nonzero(self.ledger["holders"]))

    def free(self, index: int) -> None:
        """Put a slot back."""
        self._free.append(index)

    def _taken(self, index: int) -> Slot:
        """A slot that was free, for its next use."""
        self.ledger["generation"][index] += np.uint64(1)
        self.ledger["holders"][index] = _WRITER
        generation = int(self.ledger["generation"][index])
        return Slot(pool=self.name, index=index, generation=generation, shape=self.shape)

    def _check(self, slot: Slot) -> None:
        """Refuse a slot that has been used again since."""
        current = int(self.ledger["generation"][slot.index])
        if current != slot.generation:
            raise PipelineError(
                f"pool {self.name}: slot {slot.index} holds generation {current}, "
                f"wanted {slot.generation}; it was released too early"
            )


@dataclass(frozen=True)
class PoolFile:
    """A memory file laid out as `num_slots` arrays of one shape and type behind their ledger."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    num_slots: int
    descriptor: int

    @classmethod
    def reserve(cls, name: str, shape: tuple[int, ...], dtype: np.dtype, count: int) -> "PoolFile":
        """Make the file and have its pages.

        Raises:
            PipelineError: the machine has no room for it.
        """
        file = cls(name, shape, dtype, count, descriptor=-1)
        try:
            file = replace(file, descriptor=os.memfd_create("sightline-pool", os.MFD_CLOEXEC))
            os.posix_fallocate(file.descriptor, 0, file.num_bytes)
        except OSError as error:
            if file.descriptor >= 0:
                os.close(file.descriptor)
            raise _no_room(file, error) from error
        return file

    @cached_property
    def slot_bytes(self) -> int:
        """Bytes from one slot to the next."""
        return _page_aligned(int(np.prod(self.shape)) * self.dtype.itemsize)

    @cached_property
    def head_bytes(self) -> int:
        """Bytes before the first slot, where the ledger lies."""
        return _page_aligned(self.num_slots * LEDGER.itemsize)

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.head_bytes + self.num_slots * self.slot_bytes

    def map(self) -> mmap.mmap:
        """The file in this process's memory.

        Raises:
            PipelineError: the process may have no more memory.
        """
        try:
            return mmap.mmap(self.descriptor, self.num_bytes)
        except OSError as error:
            raise _no_room(self, error) from error


class Pool(Slots):
    """A pool in this process's memory."""

    look_again_ms = None

    def __init__(self, file: PoolFile) -> None:
        """Map the file, which may be closed thereafter.

        Raises:
            PipelineError: the process may have no more memory.
        """
        self.file = file
        self._memory = file.map()
        ledger = np.frombuffer(self._memory, LEDGER, file.num_slots)
        super().__init__(file.name, file.shape, ledger)

    @property
    def memory(self) -> np.ndarray:
        """All of it, as bytes."""
        return np.frombuffer(self._memory, np.uint8)

    def lease(self) -> Lease | None:
        """Take a free slot for writing; None where all are held."""
        if not self._free:
            return None
        index = self._free.popleft()
        return Lease(self, self._taken(index), self._array(index))

    def view(self, slot: Slot) -> np.ndarray:
        """The published contents of a slot, read-only.

        Raises:
            PipelineError: the slot has been used again since.
        """
        self._check(slot)
        array = self._array(slot.index)
        array.flags.writeable = False
        return array

    def _array(self, index: int) -> np.ndarray:
        start = self.file.head_bytes + index * self.file.slot_bytes
        return np.ndarray(self.shape, self.file.dtype, self._memory, start)


def named(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The pool of this name, or those in it where it is a folder."""
    if name.endswith("/"):
        return tuple(each for each in names if each.startswith(name))
    return tuple(each for each in names if each == name)


def _no_room(file: PoolFile, error: OSError) -> PipelineError:
    return PipelineError(
        f"pool {file.name}: cannot reserve {file.num_bytes >> 20} MiB ({error.strerror}); "
        "use fewer streams, a smaller image_size or shallower queues"
    )


def _page_aligned(num_bytes: int) -> int:
    return -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
