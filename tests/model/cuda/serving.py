# SPDX-License-Identifier: Apache-2.0
"""Engines at work on a device that this processor plays, and what is asked of them."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from model.cuda.coded import CodedPicture, DeviceArray
from model.cuda.engine import CudaEngine
from model.cuda.fitting import CompileNetwork
from model.cuda.hostmemory import HostMemory
from model.cuda.plan import EnginePlan
from tests.model.cuda.fake_network import FakeNetwork
from tests.model.cuda.host_device import HostDevice

WAIT_S = 20


def wanting(plan: EnginePlan, **changes: Any) -> EnginePlan:
    """The engine of a plan, but otherwise asked for in some respects."""
    return replace(plan, gpu=replace(plan.gpu, **changes))


@contextmanager
def serving(
    plan: EnginePlan,
    device: HostDevice,
    memory: HostMemory | None = None,
    compile_network: CompileNetwork = FakeNetwork,
) -> Iterator[CudaEngine]:
    engine = CudaEngine(plan, device, compile_network, memory)
    try:
        yield engine
    finally:
        device.release()
        engine.close()


class Asked:
    """A request, and how it ended."""

    def __init__(self, engine: CudaEngine, images: np.ndarray | CodedPicture) -> None:
        self.predictions = np.full(engine.output_shape, -1, np.float32)
        self.ends: list[BaseException | None] = []
        self._ended = threading.Event()
        engine.start(images, self.predictions, self._on_done)

    def _on_done(self, failure: BaseException | None) -> None:
        self.ends.append(failure)
        self._ended.set()

    def result(self) -> np.ndarray:
        assert self._ended.wait(WAIT_S), "the request never ended"
        assert self.ends == [None]
        return self.predictions

    def failure(self) -> BaseException | None:
        assert self._ended.wait(WAIT_S), "the request never ended"
        assert len(self.ends) == 1
        return self.ends[0]


def ask_all(engine: CudaEngine, pictures: Sequence[CodedPicture]) -> list[Asked]:
    """Ask for one after another; each goes in a batch of its own while there are slots."""
    asked = []
    for picture in pictures:
        asked.append(Asked(engine, picture))
        wait_until(lambda: not engine._collector or not engine._idle)
    return asked


def wait_until(is_so: Callable[[], bool]) -> None:
    """Give other threads time for something that they are about to do."""
    until_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < until_s, "it never came"
        time.sleep(0.001)


def infer_alone(
    plan: EnginePlan, library: ctypes.CDLL, pictures: Sequence[CodedPicture]
) -> list[np.ndarray]:
    """The results of pictures that are looked at one after the other."""
    alone = wanting(plan, batch_sizes=(1,), in_flight=1)
    with serving(alone, HostDevice(library)) as engine:
        return [Asked(engine, each).result() for each in pictures]


def in_device_memory(device: HostDevice, picture: CodedPicture) -> tuple[CodedPicture, object]:
    """A picture that another stream is still writing, and what keeps its memory."""
    assert isinstance(picture.pixels, np.ndarray)
    size = picture.pixels.nbytes
    memory = device.empty((size,), torch.uint8)
    source = device.pinned((size,), np.dtype(np.uint8))
    source[:] = picture.pixels
    before = device.pinned((size,), np.dtype(np.uint8))
    writer, ready = device.stream(), device.event()
    for each in (*[before] * 20, source):
        device.copy_in(memory.data_ptr(), each.ctypes.data, size, writer)
    ready.record(writer)
    pixels = DeviceArray(memory.data_ptr(), size, device.index, ready)
    return replace(picture, pixels=pixels), memory
