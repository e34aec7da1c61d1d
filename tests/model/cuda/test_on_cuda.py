# SPDX-License-Identifier: Apache-2.0
"""The engine on a GPU. None of this has run yet: where it was written there is no GPU."""

import mmap
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import Suppression
from model.cuda.coded import CodedPicture, DeviceArray
from model.cuda.device import Device, Rows
from model.cuda.engine import CudaEngine
from model.cuda.hostmemory import HostMemory
from model.cuda.plan import EnginePlan, GpuWanted, NetworkKind
from model.engines.found import read_found
from model.parity import make_pictures, run_once
from model.suppression import suppress
from tests.model.cuda.fake_network import make_picture
from tests.model.cuda.serving import Asked, wanting

pytestmark = pytest.mark.needs_cuda

CANVAS_HW = (384, 640)
SHOWN = 0.3


@pytest.fixture(scope="module")
def device() -> Device:
    from model.cuda.cuda_device import CudaDevice

    return CudaDevice(0)


@pytest.fixture
def large(weights: Path) -> EnginePlan:
    """An engine of the sizes that a pipeline has, in eager torch, which needs no compiler."""
    return EnginePlan(
        weights=weights,
        canvas_hw=CANVAS_HW,
        looks=1,
        number_format="f16",
        gpu=GpuWanted(
            device=0,
            how="eager",
            batch_sizes=(1, 4, 32),
            in_flight=2,
            window_ms=2.0,
            file_batch=4,
            arena_mib=16,
            suppression=Suppression(min_score=SHOWN, max_iou=0.5),
            class_ids=None,
        ),
    )


def build(plan: EnginePlan, device: Device, memory: HostMemory | None = None) -> CudaEngine:
    from model.cuda.compiling import compile_network

    return CudaEngine(plan, device, compile_network, memory)


@pytest.fixture
def engine(large: EnginePlan, device: Device) -> Iterator[CudaEngine]:
    with closing(build(large, device)) as built:
        yield built


@pytest.mark.parametrize("how", ["eager", pytest.param("aoti", marks=pytest.mark.compiled)])
def test_captured_float32_is_what_the_processor_finds(
    large: EnginePlan, device: Device, weights: Path, how: NetworkKind
) -> None:
    pictures = make_pictures((2, *CANVAS_HW), seed=1)
    exact = replace(large, number_format="f32", looks=2)
    exact = wanting(exact, how=how, batch_sizes=(2,), file_batch=2)
    with closing(build(exact, device)) as engine:
        found = read_found(engine.infer(pictures))
    for ours, rows in zip(found, run_once(weights, "torch", pictures), strict=True):
        theirs = suppress(rows, large.gpu.suppression)
        np.testing.assert_array_equal(ours.class_id, theirs.class_id)
        np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)
        np.testing.assert_allclose(ours.score, theirs.score, atol=1e-3)


def test_half_precision_finds_nearly_the_same(
    large: EnginePlan, device: Device, weights: Path
) -> None:
    """Each box that is surely above the limit, within half a pixel at the 99th percentile."""
    (picture,) = make_pictures((1, *CANVAS_HW), seed=1)
    with closing(build(large, device)) as engine:
        (ours,) = read_found(engine.infer(picture[None]))
    (rows,) = run_once(weights, "torch", picture[None])
    theirs = suppress(rows, large.gpu.suppression)
    sure = theirs[theirs.score > SHOWN + 0.05]
    away = np.abs(sure.xyxy[:, None] - ours.xyxy[None]).max(axis=2)
    nearest = away.argmin(axis=1)
    assert len(sure) > 20
    assert np.quantile(away.min(axis=1), 0.99) < 0.5
    assert np.quantile(np.abs(sure.score - ours.score[nearest]), 0.99) < 0.01


def test_replays_give_equal_bits(engine: CudaEngine) -> None:
    (picture,) = make_pictures((1, *CANVAS_HW), seed=1)
    first = engine.infer(picture[None])
    for _ in range(20):
        np.testing.assert_array_equal(engine.infer(picture[None]), first)


@pytest.mark.parametrize("size", [1, 4, 32])
def test_batch_mates_change_nothing_at_one_size(
    large: EnginePlan, device: Device, size: int
) -> None:
    """Neither who they are nor the place among them; this is what files rely on."""
    with closing(build(wanting(large, batch_sizes=(size,), file_batch=size), device)) as engine:
        pictures = [make_picture(seed=each, picture_hw=(720, 1280)) for each in range(size)]
        alone = [Asked(engine, each).result() for each in pictures]
        for _ in range(3):
            asked = [Asked(engine, each) for each in reversed(pictures)]
            together = [each.result() for each in reversed(asked)]
            np.testing.assert_array_equal(together, alone)


def test_nothing_is_allocated_after_capture(engine: CudaEngine) -> None:
    """In the memory of the device, from the second batch of each slot on."""
    pictures = [make_picture(seed=each, picture_hw=(720, 1280)) for each in range(40)]
    counts = []
    for _ in range(3):
        for asked in [Asked(engine, each) for each in pictures]:
            asked.result()
        counts.append(torch.cuda.memory_stats()["allocation.all.allocated"])
    assert counts[0] == counts[2]


def test_no_operation_makes_the_host_wait(engine: CudaEngine) -> None:
    """Torch tells of none; a batch is waited for by its event, which is not one."""
    pictures = [make_picture(seed=each, picture_hw=(720, 1280)) for each in range(40)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for asked in [Asked(engine, each) for each in pictures]:
            asked.result()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_many_batches_side_by_side_give_what_one_gives(large: EnginePlan, device: Device) -> None:
    pictures = [make_picture(seed=each, picture_hw=(720, 1280)) for each in range(64)]
    one_size = wanting(large, batch_sizes=(4,), window_ms=0.0)
    with closing(build(wanting(one_size, in_flight=1), device)) as engine:
        alone = [Asked(engine, each).result() for each in pictures]
    with closing(build(wanting(one_size, in_flight=4), device)) as engine:
        for _ in range(5):
            asked = [Asked(engine, each) for each in pictures]
            np.testing.assert_array_equal([each.result() for each in asked], alone)


@pytest.mark.parametrize("writable", [False, True])
def test_registered_pools_are_read_where_they_lie(
    large: EnginePlan, device: Device, writable: bool
) -> None:
    picture = make_picture(seed=1, picture_hw=(720, 1280))
    assert isinstance(picture.pixels, np.ndarray)
    pool = _mapped(picture.pixels, writable=writable)
    memory = HostMemory(device)
    assert memory.register(pool)
    there = replace(picture, pixels=pool[: picture.pixels.nbytes])
    with closing(build(large, device, memory)) as engine:
        read = Asked(engine, there).result()
        assert engine.num_staged == 0
        np.testing.assert_array_equal(Asked(engine, picture).result(), read)
        assert engine.num_staged == 1
        memory.forget(pool)
        np.testing.assert_array_equal(Asked(engine, there).result(), read)
        assert engine.num_staged == 2


def test_pixels_on_the_device_are_waited_for(large: EnginePlan, device: Device) -> None:
    picture = make_picture(seed=1, picture_hw=(720, 1280))
    with closing(build(large, device)) as engine:
        expected = Asked(engine, picture).result()
        for _ in range(20):
            there, kept = _being_written(device, picture)
            np.testing.assert_array_equal(Asked(engine, there).result(), expected)
            del kept


def test_rows_are_copied_within_the_device_and_to_the_host(device: Device) -> None:
    """Between pitches that differ; what lies beside the rows stays as it is."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 512), np.uint8)
    before = device.pinned(pixels.shape, np.dtype(np.uint8))
    before[:] = pixels
    there = device.empty(pixels.shape, torch.uint8)
    slot = device.empty((96, 320), torch.uint8)
    after = device.pinned((96, 320), np.dtype(np.uint8))
    few = device.pinned((6, 300), np.dtype(np.uint8))
    stream, ended = device.stream(), device.event()
    after[:] = 7
    device.copy_in(slot.data_ptr(), after.ctypes.data, after.nbytes, stream)
    device.copy_in(there.data_ptr(), before.ctypes.data, before.nbytes, stream)
    source = Rows(there.data_ptr(), 512)
    device.copy_rows(Rows(slot.data_ptr(), 320), source, (96, 300), stream)
    device.copy_out(after.ctypes.data, slot.data_ptr(), after.nbytes, stream)
    every = Rows(source.address, 16 * source.pitch)
    device.copy_rows_out(Rows(few.ctypes.data, 300), every, (6, 300), stream)
    ended.record(stream)
    ended.synchronize()
    np.testing.assert_array_equal(after[:, :300], pixels[:, :300])
    assert (after[:, 300:] == 7).all()
    np.testing.assert_array_equal(few, pixels[::16, :300])


def test_memory_is_given_back(large: EnginePlan, device: Device) -> None:
    def build_and_close() -> int:
        with closing(build(large, device)) as engine:
            Asked(engine, make_picture(seed=1)).result()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    first = build_and_close()
    assert [build_and_close() for _ in range(3)] == [first] * 3


def _mapped(pixels: np.ndarray, *, writable: bool) -> np.ndarray:
    """A memory file with these pixels, mapped as a process maps another's pool."""
    descriptor = os.memfd_create("pool")
    size = -(-pixels.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    os.write(descriptor, pixels.tobytes().ljust(size, b"\0"))
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    mapping = mmap.mmap(descriptor, size, mmap.MAP_SHARED, access)
    os.close(descriptor)
    return np.frombuffer(mapping, np.uint8)


def _being_written(device: Device, picture: CodedPicture) -> tuple[CodedPicture, object]:
    """A picture on its way to the device behind a long piece of work, and what keeps it."""
    assert isinstance(picture.pixels, np.ndarray)
    size = picture.pixels.nbytes
    memory = device.empty((size,), torch.uint8)
    memory.zero_()
    torch.cuda.synchronize()
    source = device.pinned((64 << 20,), np.dtype(np.uint8))
    source[:size] = picture.pixels
    slow = device.empty((64 << 20,), torch.uint8)
    writer, ready = device.stream(), device.event()
    for _ in range(4):
        device.copy_in(slow.data_ptr(), source.ctypes.data, source.nbytes, writer)
    device.copy_in(memory.data_ptr(), source.ctypes.data, size, writer)
    ready.record(writer)
    pixels = DeviceArray(memory.data_ptr(), size, device.index, ready)
    return replace(picture, pixels=pixels), (memory, slow, source)
