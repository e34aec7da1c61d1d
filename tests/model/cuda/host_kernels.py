# SPDX-License-Identifier: Apache-2.0
"""The kernels' own texts on this processor: compiled by g++, each address checked.

`Kernels` launches them for the tests of what they compute, here or on a GPU: only the machine
differs, which brings arrays to where the kernels can reach them and back.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from model.cuda.device import KernelName
from model.cuda.looks import ALIGNMENT
from model.cuda.source import ARGUMENTS

KERNELS = Path(__file__).parents[3] / "model/cuda/kernels"
HOST = Path(__file__).with_name("host.cpp")
HOST_MOST_BOXES = 300
FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC")
Dimensions = tuple[int, int, int]
_C_TYPES = {
    np.uint64: ctypes.c_uint64,
    np.int64: ctypes.c_int64,
    np.int32: ctypes.c_int32,
    np.float32: ctypes.c_float,
}


def build_host(folder: Path) -> ctypes.CDLL:
    """Compile the kernels for this processor; the test is skipped where there is no compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        missing = "no C++ compiler; install one with: apt-get install -y g++"
        if os.environ.get("REQUIRE_COMPILER") == "1":
            pytest.fail(f"REQUIRE_COMPILER=1, and here is {missing}")
        pytest.skip(missing)
    library = folder / "kernels.so"
    command = [
        *(compiler, *FLAGS),
        *(f"-I{KERNELS}", f"-DMAX_BOXES={HOST_MOST_BOXES}"),
        *(str(HOST), "-o", str(library)),
    ]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stderr
    return ctypes.CDLL(str(library))


class Machine(Protocol):
    """Where kernels run, and the memory they reach."""

    def put(self, array: np.ndarray) -> int:
        """Copy an array to where kernels may read it; returns its aligned address."""
        ...

    def put_for_writing(self, array: np.ndarray) -> int:
        """The same, where they may write."""
        ...

    def get(self, address: int) -> np.ndarray:
        """What lies now where an array was put; ends the use of all that was put."""
        ...

    def launch(
        self,
        kernel: KernelName,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[int | float],
        **defines: int,
    ) -> None:
        """Run a kernel to its end."""
        ...


class HostMachine:
    """This processor. It fails on any address that was not put here, and on a second store."""

    def __init__(self, library: ctypes.CDLL, *, seed: int = 0) -> None:
        """Set up for a compiled library.

        Args:
            library: Of `build_host`.
            seed: In which order blocks and threads run: 0 forward, 1 backward, else shuffled.
        """
        self._library = library
        self._seed = seed
        self._readable: dict[int, np.ndarray] = {}
        self._writable: dict[int, np.ndarray] = {}

    def in_order(self, seed: int) -> "HostMachine":
        """The same machine, that runs blocks and threads in another order."""
        return HostMachine(self._library, seed=seed)

    def put(self, array: np.ndarray) -> int:
        copy = aligned_copy(array)
        self._readable[copy.ctypes.data] = copy
        return copy.ctypes.data

    def put_for_writing(self, array: np.ndarray) -> int:
        copy = aligned_copy(array)
        self._writable[copy.ctypes.data] = copy
        return copy.ctypes.data

    def get(self, address: int) -> np.ndarray:
        array = self._writable[address]
        self._readable, self._writable = {}, {}
        return array

    def launch(
        self,
        kernel: KernelName,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[int | float],
        **defines: int,
    ) -> None:
        for allow, arrays in (
            (self._library.host_may_read, self._readable),
            (self._library.host_may_write, self._writable),
        ):
            for address, array in arrays.items():
                allow(ctypes.c_uint64(address), ctypes.c_long(array.nbytes))
        try:
            status = launch(self._library, kernel, grid, block, args, seed=self._seed, **defines)
            assert status != 1, f"{kernel}: a thread ended while others waited for it"
            assert status == 0, f"{kernel}: {self._library.host_faults()} addresses out of bounds"
            assert self._library.host_twice() == 0, f"{kernel}: stored twice to a place"
        finally:
            self._library.host_forget()


def launch(
    library: ctypes.CDLL,
    kernel: KernelName,
    grid: Dimensions,
    block: Dimensions,
    args: Sequence[int | float],
    *,
    seed: int = 0,
    **defines: int,
) -> int:
    """Run a kernel as `Device.launch` would; 0 if all went well.

    Addresses are not checked here unless the library was told which may be used.
    """
    typed = [_C_TYPES[kind](value) for kind, value in zip(ARGUMENTS[kernel], args, strict=True)]
    order = ctypes.c_uint(seed)
    sizes = (_three(grid), _three(block))
    if kernel == "letterbox_batch":
        assert set(defines) == {"OUT"}
        return library.host_letterbox_batch(*sizes, order, ctypes.c_int(defines["OUT"]), *typed)
    assert set(defines) == {"MAX_BOXES"}
    assert defines["MAX_BOXES"] <= HOST_MOST_BOXES
    return library.host_suppress_ranked(*sizes, order, *typed)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A copy that begins where a slot may, with nothing of this array's behind it."""
    room = np.full(array.nbytes + 2 * ALIGNMENT, 0xA5, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    copy = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _three(dimensions: Dimensions) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * 3)(*dimensions)
