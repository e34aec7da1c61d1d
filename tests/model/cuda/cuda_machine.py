# SPDX-License-Identifier: Apache-2.0
"""A GPU as the tests of the kernels use one: every launch is waited for. It has never run."""

from collections.abc import Sequence

import numpy as np
import torch

from model.cuda.device import Device, KernelName
from tests.model.cuda.host_kernels import Dimensions


def open_device() -> Device:
    """The first GPU."""
    from model.cuda.cuda_device import CudaDevice

    return CudaDevice(0)


class CudaMachine:
    """A device; arrays are copied to its memory and back."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = device.stream()
        self._arrays: dict[int, tuple[torch.Tensor, np.ndarray]] = {}

    def put(self, array: np.ndarray) -> int:
        source = np.ascontiguousarray(array)
        there = self._device.empty((max(source.nbytes, 1),), torch.uint8)
        address = there.data_ptr()
        self._arrays[address] = there, source
        self._device.copy_in(address, source.ctypes.data, source.nbytes, self._stream)
        self._wait()
        return address

    def put_for_writing(self, array: np.ndarray) -> int:
        return self.put(array)

    def get(self, address: int) -> np.ndarray:
        copy = np.empty_like(self._arrays[address][1])
        self._device.copy_out(copy.ctypes.data, address, copy.nbytes, self._stream)
        self._wait()
        self._arrays.clear()
        return copy

    def launch(
        self,
        kernel: KernelName,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[int | float],
        **defines: int,
    ) -> None:
        self._device.launch(kernel, grid, block, args, self._stream, **defines)
        self._wait()

    def _wait(self) -> None:
        ended = self._device.event()
        ended.record(self._stream)
        ended.synchronize()
