# SPDX-License-Identifier: Apache-2.0
"""Who has which pools: the supervisor owns them all, every process maps those it uses.

A process asks for pools over a socket it inherited, one request and one answer at a time; the
memory comes as a descriptor beside the answer. The supervisor never maps what it only owns. Pools
in a GPU's memory are of the process that made them, and no other hears of them.
"""

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import msgspec
import numpy as np

from model.cuda.coded import DeviceArray
from model.engines.contract import PictureMemory
from pipeline.errors import PipelineError
from pipeline.messages import Slot
from pipeline.transport.descriptors import receive
from pipeline.transport.devicepool import DevicePools
from pipeline.transport.pool import Pool, PoolFile, SlotGone, named

_MOST_BYTES = 1 << 16


class PoolStore(Protocol):
    """Where pools come from."""

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype, count: int) -> PoolFile:
        """A new pool; the descriptor is the caller's to close."""
        ...

    def open(self, name: str) -> PoolFile:
        """A pool that exists; the descriptor is the caller's to close.

        Raises:
            SlotGone: it was discarded.
        """
        ...

    def discard(self, name: str) -> None:
        """Give up a pool, or with a name that ends in a slash all whose names begin so."""
        ...


class PoolDesk:
    """Every pool of a run; owned by the supervisor."""

    def __init__(self) -> None:
        self._files: dict[str, PoolFile] = {}
        self._uses: Counter[str] = Counter()
        self._owners: dict[str, str] = {}
        self._lock = threading.Lock()

    def create(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        count: int,
        *,
        owner: str = "",
    ) -> PoolFile:
        """Make a pool; a name that was used before gets a number, since old slots may be read.

        Raises:
            PipelineError: the machine has no room for it.
        """
        with self._lock:
            self._uses[name] += 1
            number = self._uses[name]
            unique = name if number == 1 else f"{name}~{number}"
            file = self._files[unique] = PoolFile.reserve(unique, shape, dtype, count)
            self._owners[unique] = owner
            return _duplicate(file)

    def open(self, name: str) -> PoolFile:
        """A pool that exists.

        Raises:
            SlotGone: it was discarded.
        """
        with self._lock:
            if name not in self._files:
                raise SlotGone(f"pool {name} is gone")
            return _duplicate(self._files[name])

    def discard(self, name: str) -> None:
        """Give up a pool, or a folder of pools; who has mapped one may go on reading it."""
        with self._lock:
            self._close(named(name, self._files))

    def forget(self, folder: str) -> None:
        """Keep no account of the names in a folder that were used; they do not come again."""
        with self._lock:
            for name in named(folder, tuple(self._uses)):
                del self._uses[name]

    def disown(self, owner: str) -> tuple[str, ...]:
        """Give up the pools of a process that died, and say which they were."""
        with self._lock:
            names = tuple(name for name, of in self._owners.items() if of == owner)
            self._close(names)
            return names

    def close(self) -> None:
        """Give up all of them."""
        with self._lock:
            self._close(tuple(self._files))

    def answer(self, line: socket.socket, owner: str) -> None:
        """Answer one request of a process.

        Raises:
            ConnectionError: the process is gone.
        """
        body = line.recv(_MOST_BYTES)
        if not body:
            raise ConnectionError
        request = _requests.decode(body)
        try:
            file = self._granted(request, owner)
        except PipelineError as error:
            refused = _Refused(message=str(error), gone=isinstance(error, SlotGone))
            line.sendall(_encoder.encode(refused))
            return
        if file is None:
            line.sendall(_encoder.encode(_Done()))
        else:
            socket.send_fds(line, [_encoder.encode(_described(file))], [file.descriptor])
            os.close(file.descriptor)

    def _granted(self, request: "_AnyRequest", owner: str) -> PoolFile | None:
        match request:
            case _Create():
                dtype = np.dtype(request.dtype)
                return self.create(request.name, request.shape, dtype, request.count, owner=owner)
            case _Open():
                return self.open(request.name)
            case _Discard():
                self.discard(request.name)
        return None

    def _close(self, names: Iterable[str]) -> None:
        for name in names:
            os.close(self._files.pop(name).descriptor)
            del self._owners[name]

    @property
    def num_bytes(self) -> int:
        """Memory reserved by all pools."""
        return sum(file.num_bytes for file in tuple(self._files.values()))


class PoolLine:
    """A process's end of the socket to the supervisor's desk."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lock = threading.Lock()

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype, count: int) -> PoolFile:
        """Have a pool made.

        Raises:
            PipelineError: the machine has no room for it.
        """
        return self._file(_Create(name=name, shape=shape, dtype=dtype.str, count=count))

    def open(self, name: str) -> PoolFile:
        """A pool that another process made.

        Raises:
            SlotGone: it was discarded.
        """
        return self._file(_Open(name=name))

    def discard(self, name: str) -> None:
        """Have a pool given up, or a folder of pools."""
        self._ask(_Discard(name=name))

    def _file(self, request: "_AnyRequest") -> PoolFile:
        answer, descriptors = self._ask(request)
        if isinstance(answer, _Refused):
            raise (SlotGone if answer.gone else PipelineError)(answer.message)
        assert isinstance(answer, _Granted)
        return PoolFile(
            answer.name, answer.shape, np.dtype(answer.dtype), answer.count, descriptors[0]
        )

    def _ask(self, request: "_AnyRequest") -> "tuple[_AnyAnswer, list[int]]":
        with self._lock:
            self._line.sendall(_encoder.encode(request))
            body, descriptors = receive(self._line, _MOST_BYTES)
        if not body:
            raise PipelineError("the supervisor is gone")
        return _answers.decode(body), descriptors


class Pools:
    """The pools that this process has mapped; shared by its stages."""

    def __init__(self, store: PoolStore) -> None:
        self._store = store
        self._mapped: dict[str, Pool] = {}
        self._watching: list[tuple[str, PictureMemory]] = []
        """Who hears of the pools of which kind."""
        self._lock = threading.Lock()
        self.gpu = DevicePools()
        """Those in GPUs' memory."""

    def watch(self, kind: str, memory: PictureMemory) -> None:
        """Have somebody hear of the pools `STREAM/kind`, those there are and those to come."""
        with self._lock:
            if (kind, memory) in self._watching:
                return
            self._watching.append((kind, memory))
            for pool in self._mapped.values():
                if _kind(pool.name) == kind:
                    memory.register(pool.memory)

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype, count: int) -> Pool:
        """Make a pool for the calling stage to lease from.

        Raises:
            PipelineError: there is no room for it.
        """
        file = self._store.create(name, shape, dtype, count)
        try:
            return self._map(file)
        except PipelineError:
            self._store.discard(file.name)
            raise

    def view(self, slot: Slot) -> np.ndarray:
        """The published contents of a slot, read-only; the array outlives the pool.

        Raises:
            SlotGone: the pool was discarded.
        """
        pool = self._mapped.get(slot.pool)
        if pool is None:
            self._forget_earlier(slot.pool)
            pool = self._map(self._store.open(slot.pool))
        return pool.view(slot)

    def pixels(self, slot: Slot) -> np.ndarray | DeviceArray:
        """The same, wherever the slot is: of one on a GPU, the bytes there.

        Raises:
            SlotGone: the pool was discarded.
        """
        there = self.gpu.view(slot)
        return self.view(slot) if there is None else there

    def discard(self, name: str) -> None:
        """Give up a pool, or a folder of pools; arrays on them stay readable."""
        self._store.discard(name)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Map a pool, or a folder of pools, no longer."""
        for mapped in named(name, tuple(self._mapped)):
            self._unmap(mapped)
        self.gpu.forget(name)

    def forget_all(self) -> None:
        """Map none any longer."""
        for name in tuple(self._mapped):
            self._unmap(name)
        self.gpu.forget_all()

    def _forget_earlier(self, name: str) -> None:
        """Map the pools no longer that came before this one: their writer has gone on.

        One that is still read is mapped again.
        """
        stem = name.partition("~")[0]
        for earlier in [other for other in self._mapped if other.partition("~")[0] == stem]:
            self._unmap(earlier)

    def _map(self, file: PoolFile) -> Pool:
        try:
            pool = Pool(file)
        finally:
            os.close(file.descriptor)
        with self._lock:
            mapped = self._mapped.setdefault(file.name, pool)
            if mapped is pool:
                for memory in self._watchers(pool):
                    memory.register(pool.memory)
        return mapped

    def _unmap(self, name: str) -> None:
        with self._lock:
            pool = self._mapped.pop(name, None)
            if pool is not None:
                for memory in self._watchers(pool):
                    memory.forget(pool.memory)

    def _watchers(self, pool: Pool) -> list[PictureMemory]:
        return [memory for kind, memory in self._watching if _kind(pool.name) == kind]


class _Create(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int


class _Open(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str


class _Discard(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str


class _Granted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int


class _Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    message: str
    gone: bool


class _Done(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


_AnyRequest = _Create | _Open | _Discard
_AnyAnswer = _Granted | _Refused | _Done

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(_AnyRequest)
_answers = msgspec.msgpack.Decoder(_AnyAnswer)


def _kind(name: str) -> str:
    """What the pool is for: the last part of its name, without a number."""
    return name.rpartition("/")[2].partition("~")[0]


def _duplicate(file: PoolFile) -> PoolFile:
    return replace(file, descriptor=os.dup(file.descriptor))


def _described(file: PoolFile) -> _Granted:
    return _Granted(name=file.name, shape=file.shape, dtype=file.dtype.str, count=file.num_slots)
