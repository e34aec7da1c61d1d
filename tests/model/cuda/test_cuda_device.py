# SPDX-License-Identifier: Apache-2.0
"""What a GPU's device asks of CuPy, and what becomes of errors: all that can be tried without one.

CuPy is played by a few lines here, after what it documents.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model.cuda import cuda_device
from model.cuda.cuda_device import CudaDevice, CudaStream, open_device, translated
from model.cuda.device import OutOfDeviceMemory, Rows
from model.cuda.source import ARGUMENTS
from model.errors import EngineError


class FakeCupy:
    """Notes what it is asked for; kernels do nothing."""

    def __init__(self) -> None:
        self.compiled: list[tuple[str, ...]] = []
        self.launched: list[tuple[Any, ...]] = []
        self.flags: list[int] = []
        self.refused_flags: tuple[int, ...] = ()
        self.refused_kernel = False
        self.unregistered: list[int] = []
        self.copied: list[tuple[int, ...]] = []
        self.refused_copy = False
        runtime = SimpleNamespace(
            hostRegister=self._register,
            hostUnregister=self.unregistered.append,
            memcpy2DAsync=self._copy_rows,
            CUDARuntimeError=RuntimeError,
        )
        self.cuda = SimpleNamespace(
            runtime=runtime,
            Device=self._current,
            ExternalStream=self._current,
            compiler=SimpleNamespace(CompileException=ArithmeticError),
        )

    @contextmanager
    def _current(self, _: int) -> Iterator[None]:
        yield

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> "FakeCupy":  # noqa: N802
        assert "__global__" in code
        self.compiled.append(options)
        return self

    def get_function(self, name: str) -> Any:
        if self.refused_kernel:
            raise ArithmeticError(f"{name}(7): error: expected a semicolon\nand more")
        return lambda *how: self.launched.append((name, *how))

    def _copy_rows(self, *places: int) -> None:
        if self.refused_copy:
            raise RuntimeError("cudaErrorInvalidPitchValue: invalid pitch argument\nand more")
        self.copied.append(places)

    def _register(self, address: int, num_bytes: int, flags: int) -> None:
        assert address
        assert num_bytes
        self.flags.append(flags)
        if flags in self.refused_flags:
            raise RuntimeError("cudaErrorNotSupported: operation not supported")


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda_device, "_REGISTERED", Counter())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU of this test")
    return fake


LETTERBOX = (1 << 40, 2 << 40, 640, 384, 737280, 245760, 640, 1)
SUPPRESS = (1 << 40, 2 << 40, 3 << 40, 36, 8400, 8400, 80, 300, 0.7, 1, 4 << 40)
STREAM: Any = SimpleNamespace(handle=7)


def test_without_cupy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(EngineError, match=r"needs CuPy \(extra: gpu\).*pip install -e '.\[gpu\]'"):
        CudaDevice()


def test_a_gpu_that_is_not_there_is_named(cupy: FakeCupy) -> None:
    del cupy
    assert CudaDevice(0).name == "a GPU of this test"
    with pytest.raises(EngineError, match=r"gpu.devices: there are 2 GPUs here, got 2"):
        CudaDevice(2)


def test_a_device_is_opened_once(cupy: FakeCupy) -> None:
    """Or its kernels would be compiled and its memory registered for each engine."""
    del cupy
    open_device.cache_clear()
    assert open_device(0) is open_device(0)
    open_device.cache_clear()


def test_each_argument_has_the_type_that_the_kernel_reads(cupy: FakeCupy) -> None:
    """An int would be passed as 64 bits, and a float as a double."""
    device = CudaDevice()
    device.launch("letterbox_batch", (20, 12, 4), (32, 8, 1), LETTERBOX, STREAM, OUT=1)
    device.launch("suppress_ranked", (4, 1, 1), (256, 1, 1), SUPPRESS, STREAM, MAX_BOXES=300)
    (name, grid, block, typed), (other, *_, others) = cupy.launched
    assert (name, grid, block) == ("letterbox_batch", (20, 12, 4), (32, 8, 1))
    assert [type(each) for each in typed] == list(ARGUMENTS["letterbox_batch"])
    assert [type(each) for each in others] == list(ARGUMENTS[other])
    assert [each.item() for each in typed] == list(LETTERBOX)


def test_a_kernel_is_compiled_once_for_its_numbers_and_never_inexact(cupy: FakeCupy) -> None:
    device = CudaDevice()
    for out in (1, 2, 1):
        device.launch("letterbox_batch", (1, 1, 1), (32, 8, 1), LETTERBOX, STREAM, OUT=out)
    assert cupy.compiled == [("--std=c++17", "-DOUT=1"), ("--std=c++17", "-DOUT=2")]


def test_a_kernel_that_does_not_compile_is_told_in_one_line(cupy: FakeCupy) -> None:
    cupy.refused_kernel = True
    said = r"cuda: letterbox_batch does not compile here: .*expected a semicolon$"
    with pytest.raises(EngineError, match=said):
        CudaDevice().launch("letterbox_batch", (1, 1, 1), (32, 8, 1), LETTERBOX, STREAM, OUT=1)


def test_rows_are_copied_from_pitch_to_pitch(cupy: FakeCupy) -> None:
    """As CuPy has it: to, pitch, from, pitch, bytes of a row, rows, kind of copy, stream."""
    device, to, source = CudaDevice(), Rows(1 << 40, 320), Rows(2 << 40, 512)
    device.copy_rows(to, source, (192, 300), STREAM)
    device.copy_rows_out(to, source, (12, 320), STREAM)
    assert cupy.copied == [
        (1 << 40, 320, 2 << 40, 512, 300, 192, 3, 7),
        (1 << 40, 320, 2 << 40, 512, 320, 12, 2, 7),
    ]
    cupy.refused_copy = True
    with pytest.raises(EngineError, match=r"^cuda: copying 192 rows: .*invalid pitch argument$"):
        device.copy_rows(to, source, (192, 300), STREAM)


@pytest.mark.parametrize(
    ("refused", "tried", "registered"),
    [((), [8], True), ((8,), [8, 0], True), ((8, 0), [8, 0], False)],
)
def test_memory_is_registered_to_be_read_else_as_it_may(
    cupy: FakeCupy, refused: tuple[int, ...], tried: list[int], registered: bool
) -> None:
    cupy.refused_flags = refused
    assert CudaDevice().register(np.zeros(4096, np.uint8)) == registered
    assert cupy.flags == tried


def test_memory_that_two_gpus_read_is_registered_once_and_until_the_last_lets_go(
    cupy: FakeCupy,
) -> None:
    memory = np.zeros(4096, np.uint8)
    for device in (CudaDevice(0), CudaDevice(1)):
        assert device.register(memory)
    assert cupy.flags == [8]
    CudaDevice(0).unregister(memory)
    assert not cupy.unregistered
    CudaDevice(1).unregister(memory)
    assert cupy.unregistered == [memory.ctypes.data]
    assert not cuda_device._REGISTERED


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore"), OutOfDeviceMemory),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), OutOfDeviceMemory),
        (RuntimeError("CUDA error: an illegal memory access\nmore"), EngineError),
    ],
)
def test_what_libraries_raise_becomes_one_line_of_ours(
    failure: RuntimeError, kind: type[EngineError]
) -> None:
    with pytest.raises(EngineError) as raised, translated("capturing a batch"):
        raise failure
    assert type(raised.value) is kind
    assert str(raised.value) == f"cuda: capturing a batch: {str(failure).splitlines()[0]}"


@pytest.mark.parametrize(("refused", "kind"), [(1, OutOfDeviceMemory), (0, EngineError)])
def test_compiled_code_that_lacks_memory_is_known_by_torchs_count(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, refused: int, kind: type[EngineError]
) -> None:
    del cupy
    counts = [0]
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: {"num_ooms": counts[0]})
    for context in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, context, lambda _: nullcontext())
    stream = CudaStream(SimpleNamespace(cuda_stream=7))  # type: ignore[arg-type]

    def record() -> None:
        counts[0] += refused
        raise RuntimeError("run failed with error code 1")

    with pytest.raises(EngineError) as raised:
        CudaDevice().capture(stream, record, pool=None)
    assert type(raised.value) is kind


def test_an_error_that_is_ours_stays_as_it_is() -> None:
    with pytest.raises(EngineError, match=r"^ours$"), translated("capturing a batch"):
        raise EngineError("ours")
