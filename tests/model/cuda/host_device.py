# SPDX-License-Identifier: Apache-2.0
"""A device played on this processor, which does all its work as late as it may.

What is put on a stream is kept until somebody waits for an event. Then work is done, in an order
drawn from a seed among all that streams and events allow, and no more of it than the event needs.
Memory is poisoned when it is made, and so is that of a pool of graphs before each replay. Copies
reach no memory but the device's and what was pinned or registered. The kernels are their own texts,
compiled for this processor; of a captured graph every operation of torch is done again at a replay.

So a wait that is missing, a slot that is filled too early, or a result that is read before its time
shows as poison, as another picture's boxes or as a wrong ticket, for some seed if not for all.
"""

import ctypes
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.cuda.device import KernelName, OutOfDeviceMemory, Rows
from model.errors import EngineError
from tests.model.cuda.host_kernels import Dimensions, aligned_copy, launch

POISON = 0xA5


@dataclass(eq=False)
class Mark:
    """One place in a stream's work."""

    happened: bool = False

    def reach(self) -> None:
        self.happened = True


Work = Callable[[], None]


class HostEvent:
    def __init__(self, device: "HostDevice") -> None:
        self._device = device
        self.mark: Mark | None = None
        self.is_forgotten = False
        """Whether those who should wait for it do not: a fault, to be found."""

    def record(self, stream: "HostStream") -> None:
        self.mark = Mark()
        self._device.put(stream, self.mark.reach)

    def happened(self) -> bool:
        self._device.go_on()
        return self.mark is None or self.mark.happened

    def synchronize(self) -> None:
        if not self.is_forgotten:
            self._device.run_until(self.mark)


class HostStream:
    def __init__(self, device: "HostDevice", handle: int, speed: float) -> None:
        self._device = device
        self.handle = handle
        self.speed = speed
        """How often it goes on, against the others."""
        self.work: deque[Work | Mark] = deque()
        """What is to be done, and marks that must have happened before the rest."""

    @property
    def can_go_on(self) -> bool:
        if not self.work:
            return False
        first = self.work[0]
        return not isinstance(first, Mark) or first.happened

    def wait(self, event: HostEvent) -> None:
        if event.mark is not None and not event.is_forgotten:
            self._device.put(self, event.mark)


class HostPool:
    """The tensors that graphs of one pool make."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []

    def poison(self) -> None:
        for tensor in self.tensors:
            poison(tensor)


class HostCaptured:
    def __init__(self, device: "HostDevice", steps: Sequence[Work], pool: HostPool) -> None:
        self._device = device
        self._steps = (pool.poison, *steps)

    def replay(self, stream: HostStream) -> None:
        for step in self._steps:
            self._device.put(stream, step)


class HostDevice:
    """One device; it goes on only while somebody waits for it."""

    def __init__(
        self, library: ctypes.CDLL | None, *, seed: int = 0, room_bytes: int | None = None
    ) -> None:
        """Set up.

        Args:
            library: The kernels, of `build_host`.
            seed: Of the order in which work of several streams is done.
            room_bytes: Memory there is; as much as is asked for if not given.
        """
        self.index = 0
        self.name = "host"
        self.launches: list[tuple[KernelName, Dimensions]] = []
        """What was done, with the blocks it was done in."""
        self.registered: dict[int, int] = {}
        self.refuses_to_register = False
        self.copied_rows: list[tuple[int, int]] = []
        """The shapes of what was copied so far by rows."""
        self.refuses_work = False
        self.launches_left: int | None = None
        """Before it breaks; None if it does not."""
        self._library = library
        self._random = random.Random(seed)
        self._room_bytes = room_bytes
        self.used_bytes = 0
        self._spans: dict[int, int] = {}
        """Bytes at an address of the device's memory."""
        self._pooled: dict[int, int] = {}
        """The same for what graphs make."""
        self._pinned: list[np.ndarray] = []
        self._streams: list[HostStream] = []
        self._recording: list[Work] | None = None
        self._lock = threading.RLock()
        self._may_run = threading.Event()
        self._may_run.set()
        self._fault = ""
        self.stream()

    def hold(self) -> None:
        """Do nothing, however long somebody waits, until `release`."""
        self._may_run.clear()

    def release(self) -> None:
        self._may_run.set()

    def stream(self) -> HostStream:
        speed = 100 ** self._random.random()
        stream = HostStream(self, len(self._streams), speed)
        self._streams.append(stream)
        return stream

    def legacy(self) -> HostStream:
        return self._streams[0]

    def event(self) -> HostEvent:
        return HostEvent(self)

    def empty(
        self, shape: tuple[int, ...], dtype: torch.dtype, *, channels_last: bool = False
    ) -> torch.Tensor:
        order = torch.channels_last if channels_last else torch.contiguous_format
        made = torch.empty(shape, dtype=dtype, memory_format=order)
        self._own(made, self._spans)
        poison(made)
        return made

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        num_bytes = int(np.prod(shape)) * dtype.itemsize
        memory = aligned_copy(np.full(num_bytes, POISON, np.uint8))
        self._pinned.append(memory)
        return memory.view(dtype).reshape(shape)

    def register(self, memory: np.ndarray) -> bool:
        if self.refuses_to_register:
            return False
        assert memory.ctypes.data not in self.registered, "this memory is registered"
        self.registered[memory.ctypes.data] = memory.nbytes
        return True

    def unregister(self, memory: np.ndarray) -> None:
        del self.registered[memory.ctypes.data]

    def copy_in(self, to: int, source: int, num_bytes: int, stream: HostStream) -> None:
        self.put(stream, partial(self._copy, to, source, num_bytes, device=to, host=source))

    def copy_out(self, to: int, source: int, num_bytes: int, stream: HostStream) -> None:
        self.put(stream, partial(self._copy, to, source, num_bytes, device=source, host=to))

    def copy_rows(self, to: Rows, source: Rows, shape: tuple[int, int], stream: HostStream) -> None:
        self.put(stream, partial(self._copy_rows, to, source, shape, to_host=False))

    def copy_rows_out(
        self, to: Rows, source: Rows, shape: tuple[int, int], stream: HostStream
    ) -> None:
        self.put(stream, partial(self._copy_rows, to, source, shape, to_host=True))

    def launch(
        self,
        kernel: KernelName,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[int | float],
        stream: HostStream,
        **defines: int,
    ) -> None:
        self.put(stream, partial(self._launch, kernel, grid, block, tuple(args), defines))

    def capture(
        self, stream: HostStream, record: Callable[[], None], *, pool: object | None
    ) -> HostCaptured:
        assert pool is None or isinstance(pool, HostPool)
        shared = pool or HostPool()
        steps: list[Work] = []
        recorder = Recorder(steps)
        with self._lock:
            self._recording = steps
            try:
                with recorder:
                    record()
            finally:
                self._recording = None
        for tensor in recorder.made:
            self._own(tensor, self._pooled)
        shared.tensors += recorder.made
        captured = HostCaptured(self, steps, shared)
        captured.replay(stream)  # as a device warms up
        ended = self.event()
        ended.record(stream)
        ended.synchronize()
        return captured

    def new_pool(self) -> HostPool:
        return HostPool()

    def put(self, stream: HostStream, work: Work | Mark) -> None:
        """Have work done behind all that is on a stream."""
        with self._lock:
            if self.refuses_work:
                raise EngineError("host: this device takes no work")
            if self._recording is not None:
                assert not isinstance(work, Mark), "this capture would wait for another stream"
                self._recording.append(work)
            else:
                stream.work.append(work)

    def run_until(self, mark: Mark | None) -> None:
        """Do what must be done before a mark, and by chance some of the rest."""
        while mark is not None:
            self._may_run.wait()
            with self._lock:
                if self._fault:
                    raise EngineError(f"host: {self._fault}")
                if mark.happened:
                    return
                assert self.go_on(), "all streams wait for each other"

    def go_on(self) -> bool:
        """Do one piece of work of some stream, if one can go on."""
        with self._lock:
            able = [stream for stream in self._streams if stream.can_go_on]
            if able and not self._fault:
                speeds = [stream.speed for stream in able]
                work = self._random.choices(able, speeds)[0].work.popleft()
                if not isinstance(work, Mark):
                    self._do(work)
            return bool(able)

    def _do(self, work: Work) -> None:
        """What fails breaks the device for good, and is told to whoever waits."""
        try:
            work()
        except AssertionError as fault:
            self._fault = str(fault)

    def _own(self, made: torch.Tensor, spans: dict[int, int]) -> None:
        """Count memory as the device's for as long as a tensor lives."""
        address, num_bytes = made.data_ptr(), made.nbytes
        if self._room_bytes is not None and self.used_bytes + num_bytes > self._room_bytes:
            left = self._room_bytes - self.used_bytes
            raise OutOfDeviceMemory(f"tried to take {num_bytes} bytes of {left}")
        self.used_bytes += num_bytes
        spans[address] = num_bytes

        def disown() -> None:
            self.used_bytes -= num_bytes
            spans.pop(address, None)

        weakref.finalize(made, disown)

    def _copy(self, to: int, source: int, num_bytes: int, *, device: int, host: int) -> None:
        assert _holds(self._spans, device, num_bytes), "a copy misses the device's memory"
        pinned = {each.ctypes.data: each.nbytes for each in self._pinned}
        assert _holds(self.registered | pinned, host, num_bytes), "a copy of pageable memory"
        ctypes.memmove(to, source, num_bytes)

    def _copy_rows(self, to: Rows, source: Rows, shape: tuple[int, int], *, to_host: bool) -> None:
        num_rows, row_bytes = shape
        assert row_bytes <= min(to.pitch, source.pitch), "rows lie on each other"
        pinned = {each.ctypes.data: each.nbytes for each in self._pinned}
        for rows, spans in ((to, pinned if to_host else self._spans), (source, self._spans)):
            num_bytes = (num_rows - 1) * rows.pitch + row_bytes
            assert _holds(spans, rows.address, num_bytes), "a copy of rows misses its memory"
        for row in range(num_rows):
            first, second = to.address + row * to.pitch, source.address + row * source.pitch
            ctypes.memmove(first, second, row_bytes)
        self.copied_rows.append(shape)

    def _launch(
        self,
        kernel: KernelName,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[int | float],
        defines: dict[str, int],
    ) -> None:
        if self.launches_left is not None:
            assert self.launches_left > 0, "an illegal memory access was encountered"
            self.launches_left -= 1
        self.launches.append((kernel, grid))
        pooled = {at: size for at, size in self._pooled.items() if at in args}
        library = self._library
        assert library is not None
        for at, size in (self._spans | pooled).items():
            library.host_may_read(ctypes.c_uint64(at), ctypes.c_long(size))
            library.host_may_write(ctypes.c_uint64(at), ctypes.c_long(size))
        seed = self._random.randrange(1 << 16)
        status = launch(library, kernel, grid, block, args, seed=seed, **defines)
        faults = library.host_faults()
        library.host_forget()
        assert status == 0, f"{kernel}: status {status}, {faults} addresses out of bounds"


class Recorder(TorchDispatchMode):
    """Notes what torch does, so that it can be done again to the same tensors."""

    def __init__(self, steps: list[Work]) -> None:
        super().__init__()
        self._steps = steps
        self.made: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        assert func is not torch.ops.aten._local_scalar_dense.default, "a capture reads no value"
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        given = {_storage(each) for each in _tensors((args, kwargs))}
        fresh = [_storage(each) not in given for each in _tensors(made)]
        if any(fresh) or func._schema.is_mutable:
            self._steps.append(partial(_do_again, func, args, kwargs, made, fresh))
        self.made += [each for each, new in zip(_tensors(made), fresh, strict=True) if new]
        return made


@torch.no_grad()
def _do_again(
    func: Any, args: Any, kwargs: dict[str, Any], made: Any, fresh: Sequence[bool]
) -> None:
    again = _tensors(func(*args, **kwargs))
    for old, new, is_fresh in zip(_tensors(made), again, fresh, strict=True):
        if is_fresh:
            old.copy_(new)


def poison(tensor: torch.Tensor) -> None:
    """Fill memory with what nobody meant."""
    if tensor.is_floating_point():
        tensor.fill_(torch.nan)
    elif tensor.dtype == torch.bool:
        tensor.fill_(True)
    else:
        tensor.fill_(torch.iinfo(tensor.dtype).min + POISON)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _holds(spans: dict[int, int], address: int, num_bytes: int) -> bool:
    return any(at <= address and address + num_bytes <= at + size for at, size in spans.items())
