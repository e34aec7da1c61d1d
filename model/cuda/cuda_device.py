# SPDX-License-Identifier: Apache-2.0
"""A real GPU: memory, streams, events and graphs are torch's, kernels are CuPy's.

Only addresses and streams pass between the two. Errors of both become `EngineError` here. This has
never met a GPU: it was written from what both libraries document, and tests play CuPy to it.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from model.cuda.device import KernelName, OutOfDeviceMemory, Rows
from model.cuda.draft import num_refused
from model.cuda.source import ARGUMENTS, kernel_source
from model.engines.direct import first_line
from model.errors import EngineError

if TYPE_CHECKING:
    from model.cuda.device import Event, Stream

_HOST_TO_DEVICE: Final = 1
_DEVICE_TO_HOST: Final = 2
_DEVICE_TO_DEVICE: Final = 3
_READ_ONLY: Final = 8
"""How memory is registered that this process may not write to, as pools of other processes are."""
_WRITABLE: Final = 0
_REGISTERED: Final[Counter[int]] = Counter()
"""By how many GPUs of this process memory is read, by its address: once one of them has registered
it, all may copy from it, and no other can."""
_REGISTERING: Final = threading.Lock()
_NUM_WARM_UPS: Final = 3
"""Libraries choose among their kernels and load them in the first runs, which a capture forbids."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what torch and CuPy raise into this package's errors."""
    try:
        yield
    except torch.OutOfMemoryError as failure:
        raise OutOfDeviceMemory(f"cuda: {doing}: {first_line(failure)}") from failure
    except RuntimeError as failure:
        kind = OutOfDeviceMemory if "out of memory" in str(failure).lower() else EngineError
        raise kind(f"cuda: {doing}: {first_line(failure)}") from failure


class CudaEvent:
    """An event that lets the thread sleep that waits for it."""

    def __init__(self) -> None:
        self.torch_event = torch.cuda.Event(blocking=True)

    def record(self, stream: "Stream") -> None:
        with translated("recording an event"):
            self.torch_event.record(_torch_stream(stream))

    def happened(self) -> bool:
        with translated("asking for an event"):
            return self.torch_event.query()

    def synchronize(self) -> None:
        with translated("waiting for a batch"):
            self.torch_event.synchronize()


class CudaStream:
    """One of torch's streams; they wait for none but by events, not for the legacy one either."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.torch_stream = stream
        self.handle: int = stream.cuda_stream

    def wait(self, event: "Event") -> None:
        assert isinstance(event, CudaEvent)
        with translated("waiting for an event"):
            self.torch_stream.wait_event(event.torch_event)


class CudaCaptured:
    """A graph, which is put on the stream that is current."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = graph

    def replay(self, stream: "Stream") -> None:
        with translated("running a batch"), torch.cuda.stream(_torch_stream(stream)):
            self._graph.replay()


@cache
def open_device(index: int) -> "CudaDevice":
    """Return the one device of this process with this number.

    Raises:
        EngineError: there is no such GPU, or CuPy is missing.
    """
    return CudaDevice(index)


class CudaDevice:
    """One GPU, by its number."""

    def __init__(self, index: int = 0) -> None:
        """Open it.

        Raises:
            EngineError: there is no such GPU, or CuPy is missing.
        """
        self._cupy = _import_cupy()
        with translated("opening the GPU"):
            count = torch.cuda.device_count()
            if index >= count:
                raise EngineError(f"gpu.devices: there are {count} GPUs here, got {index}")
            self.name = torch.cuda.get_device_name(index)
        self.index = index
        self._torch_device = torch.device("cuda", index)
        self._functions: dict[tuple[KernelName, tuple[str, ...]], Any] = {}

    def stream(self) -> CudaStream:
        with translated("making a stream"):
            return CudaStream(torch.cuda.Stream(self._torch_device))

    def legacy(self) -> CudaStream:
        return CudaStream(torch.cuda.default_stream(self._torch_device))

    def event(self) -> CudaEvent:
        return CudaEvent()

    def empty(
        self, shape: tuple[int, ...], dtype: torch.dtype, *, channels_last: bool = False
    ) -> torch.Tensor:
        order = torch.channels_last if channels_last else torch.contiguous_format
        with translated(f"taking memory of shape {shape}"):
            return torch.empty(shape, dtype=dtype, device=self._torch_device, memory_format=order)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        num_bytes = int(np.prod(shape)) * dtype.itemsize
        with translated(f"pinning {num_bytes} bytes"), torch.cuda.device(self.index):
            memory = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        return memory.numpy().view(dtype).reshape(shape)

    def register(self, memory: np.ndarray) -> bool:
        address = memory.ctypes.data
        with _REGISTERING:
            if not _REGISTERED[address] and not self._register(address, memory.nbytes):
                return False
            _REGISTERED[address] += 1
            return True

    def _register(self, address: int, num_bytes: int) -> bool:
        """CuPy clears what a refusal leaves behind, which torch would take for its own."""
        runtime = self._cupy.cuda.runtime
        with self._cupy.cuda.Device(self.index):
            for flags in (_READ_ONLY, _WRITABLE):
                try:
                    runtime.hostRegister(address, num_bytes, flags)
                except runtime.CUDARuntimeError:
                    continue
                return True
        return False

    def unregister(self, memory: np.ndarray) -> None:
        address = memory.ctypes.data
        with _REGISTERING:
            _REGISTERED[address] -= 1
            if _REGISTERED[address]:
                return
            del _REGISTERED[address]
            with translated("unregistering memory"), self._cupy.cuda.Device(self.index):
                self._cupy.cuda.runtime.hostUnregister(address)

    def copy_in(self, to: int, source: int, num_bytes: int, stream: "Stream") -> None:
        self._copy(to, source, num_bytes, _HOST_TO_DEVICE, stream)

    def copy_out(self, to: int, source: int, num_bytes: int, stream: "Stream") -> None:
        self._copy(to, source, num_bytes, _DEVICE_TO_HOST, stream)

    def copy_rows(self, to: Rows, source: Rows, shape: tuple[int, int], stream: "Stream") -> None:
        self._copy_rows(to, source, shape, _DEVICE_TO_DEVICE, stream)

    def copy_rows_out(
        self, to: Rows, source: Rows, shape: tuple[int, int], stream: "Stream"
    ) -> None:
        self._copy_rows(to, source, shape, _DEVICE_TO_HOST, stream)

    def launch(
        self,
        kernel: KernelName,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[int | float],
        stream: "Stream",
        **defines: int,
    ) -> None:
        # CuPy would pass an int as 64 bits and a float as a double
        typed = tuple(kind(value) for kind, value in zip(ARGUMENTS[kernel], args, strict=True))
        with translated(f"launching {kernel}"), self._current(stream):
            self._function(kernel, defines)(grid, block, typed)

    def capture(self, stream: "Stream", record: Callable[[], None], *, pool: Any) -> CudaCaptured:
        torch_stream = _torch_stream(stream)
        with (
            self._noticing_lack(),
            translated("capturing a batch"),
            torch.cuda.device(self.index),
        ):
            with torch.cuda.stream(torch_stream):
                for _ in range(_NUM_WARM_UPS):
                    record()
            torch_stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # other engines of this process work on while this one is built
            with torch.cuda.graph(
                graph, pool=pool, stream=torch_stream, capture_error_mode="thread_local"
            ):
                record()
            torch_stream.synchronize()
        return CudaCaptured(graph)

    def new_pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def _copy(self, to: int, source: int, num_bytes: int, kind: int, stream: "Stream") -> None:
        with translated(f"copying {num_bytes} bytes"), self._cupy.cuda.Device(self.index):
            self._cupy.cuda.runtime.memcpyAsync(to, source, num_bytes, kind, stream.handle)

    def _copy_rows(
        self, to: Rows, source: Rows, shape: tuple[int, int], kind: int, stream: "Stream"
    ) -> None:
        num_rows, row_bytes = shape
        places = (to.address, to.pitch, source.address, source.pitch)
        with translated(f"copying {num_rows} rows"), self._cupy.cuda.Device(self.index):
            self._cupy.cuda.runtime.memcpy2DAsync(*places, row_bytes, num_rows, kind, stream.handle)

    @contextmanager
    def _noticing_lack(self) -> Iterator[None]:
        """Compiled code does not say that memory was lacking; torch counts it."""
        before = num_refused(self._torch_device)
        try:
            yield
        except EngineError as failure:
            if num_refused(self._torch_device) > before:
                raise OutOfDeviceMemory(str(failure)) from failure
            raise

    @contextmanager
    def _current(self, stream: "Stream") -> Iterator[None]:
        with self._cupy.cuda.Device(self.index), self._cupy.cuda.ExternalStream(stream.handle):
            yield

    def _function(self, kernel: KernelName, defines: dict[str, int]) -> Any:
        """A kernel compiled for these numbers; kept, since a capture may compile nothing."""
        options = ("--std=c++17", *(f"-D{name}={value}" for name, value in sorted(defines.items())))
        if (kernel, options) not in self._functions:
            try:
                module = self._cupy.RawModule(code=kernel_source(kernel), options=options)
                self._functions[kernel, options] = module.get_function(kernel)
            except self._cupy.cuda.compiler.CompileException as failure:
                raise EngineError(
                    f"cuda: {kernel} does not compile here: {first_line(failure)}"
                ) from failure
        return self._functions[kernel, options]


def _torch_stream(stream: "Stream") -> torch.cuda.Stream:
    assert isinstance(stream, CudaStream)
    return stream.torch_stream


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as failure:
        raise EngineError(
            f"model.engine: cuda needs CuPy (extra: gpu): {first_line(failure)}; install it with: "
            "pip install -e '.[gpu]'"
        ) from failure
    return cupy
