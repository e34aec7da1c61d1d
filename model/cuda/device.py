# SPDX-License-Identifier: Apache-2.0
"""What is asked of a device: memory, streams, events, copies, two kernels and captured graphs.

Work put on a stream is done in order; between streams only events give an order. The host waits
nowhere but in `Event.synchronize`. What a device cannot do is an `EngineError`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from model.errors import EngineError

if TYPE_CHECKING:
    import torch

KernelName = Literal["letterbox_batch", "suppress_ranked"]


class OutOfDeviceMemory(EngineError):  # noqa: N818 - it says what happened
    """A device has not as much memory as was asked for: ask for less."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows of bytes begin, so many bytes from one to the next."""

    address: int
    pitch: int


class Event(Protocol):
    """A place in a stream's work."""

    def record(self, stream: "Stream") -> None:
        """Move it behind all that was put on `stream` so far."""
        ...

    def happened(self) -> bool: ...

    def synchronize(self) -> None:
        """Sleep until it has happened, without holding the interpreter; raises `EngineError`."""
        ...


class Stream(Protocol):
    """Work done in order."""

    handle: int

    def wait(self, event: Event) -> None:
        """Do nothing that is put on it from now on before `event` has happened."""
        ...


class Captured(Protocol):
    """Work recorded once, to be done again with one call."""

    def replay(self, stream: Stream) -> None: ...


class Device(Protocol):
    """One accelerator."""

    index: int
    name: str

    def stream(self) -> Stream: ...

    def legacy(self) -> Stream:
        """The stream that libraries use unless they are told another."""
        ...

    def event(self) -> Event: ...

    def empty(
        self, shape: tuple[int, ...], dtype: "torch.dtype", *, channels_last: bool = False
    ) -> "torch.Tensor": ...

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Host memory that the device copies from and to by itself."""
        ...

    def register(self, memory: np.ndarray) -> bool:
        """Let the device copy from `memory` by itself; False where that is refused."""
        ...

    def unregister(self, memory: np.ndarray) -> None: ...

    def copy_in(self, to: int, source: int, num_bytes: int, stream: Stream) -> None: ...

    def copy_out(self, to: int, source: int, num_bytes: int, stream: Stream) -> None: ...

    def copy_rows(self, to: Rows, source: Rows, shape: tuple[int, int], stream: Stream) -> None:
        """Copy within the device: so many rows of so many bytes."""
        ...

    def copy_rows_out(self, to: Rows, source: Rows, shape: tuple[int, int], stream: Stream) -> None:
        """The same, to pinned memory of the host."""
        ...

    def launch(
        self,
        kernel: KernelName,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[int | float],
        stream: Stream,
        **defines: int,
    ) -> None:
        """Put a kernel on `stream`; addresses are ints."""
        ...

    def capture(
        self, stream: Stream, record: Callable[[], None], *, pool: object | None
    ) -> Captured:
        """Record what `record` puts on `stream`, to be done at each replay.

        It may be done some times before, so what it reads must be there.
        """
        ...

    def new_pool(self) -> object:
        """Memory for captured graphs that never run at once."""
        ...
