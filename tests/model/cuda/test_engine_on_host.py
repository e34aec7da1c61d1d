# SPDX-License-Identifier: Apache-2.0
"""The whole engine on the device that this processor plays."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.config import Suppression
from model.cuda import batchslot
from model.cuda.coded import CodedPicture, DeviceArray
from model.cuda.engine import CudaEngine
from model.cuda.hostmemory import HostMemory
from model.cuda.plan import EnginePlan
from model.detections import Detections
from model.engines.contract import Engine
from model.errors import EngineError
from model.slicing import Region
from model.suppression import suppress
from tests.model.cuda.fake_network import FakeNetwork, boxes_of, make_canvases, make_picture
from tests.model.cuda.host_device import HostDevice

CANVAS_HW = (64, 96)
LIMITS = Suppression(min_score=0.3, max_iou=0.3, max_boxes=20)
WAIT_S = 20


@pytest.fixture
def plan(weights: Path) -> EnginePlan:
    return EnginePlan(
        weights=weights,
        canvas_hw=CANVAS_HW,
        looks=1,
        number_format="f32",
        how="auto",
        batch_sizes=(1, 2, 4),
        in_flight=2,
        window_ms=0.0,
        file_batch=2,
        arena_mib=1,
        suppression=LIMITS,
        class_ids=None,
    )


@contextmanager
def serving(
    plan: EnginePlan, device: HostDevice, memory: HostMemory | None = None
) -> Iterator[CudaEngine]:
    engine = CudaEngine(plan, device, FakeNetwork, memory)
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
    alone = replace(plan, batch_sizes=(1,), in_flight=1)
    with serving(alone, HostDevice(library)) as engine:
        return [Asked(engine, each).result() for each in pictures]


def in_device_memory(device: HostDevice, picture: CodedPicture) -> tuple[CodedPicture, object]:
    """A picture that another stream is still writing, and what keeps its memory."""
    import torch

    assert isinstance(picture.pixels, np.ndarray)
    size = picture.pixels.nbytes
    memory = device.empty((size,), torch.uint8)
    source = device.pinned((size,), np.dtype(np.uint8))
    source[:] = picture.pixels
    writer, ready = device.stream(), device.event()
    device.copy_in(memory.data_ptr(), source.ctypes.data, size, writer)
    ready.record(writer)
    pixels = DeviceArray(memory.data_ptr(), size, device.index, ready)
    return replace(picture, pixels=pixels), memory


def test_it_finds_what_the_processor_finds(plan: EnginePlan, library: ctypes.CDLL) -> None:
    canvases = make_canvases((2, *CANVAS_HW, 3), seed=1)
    with serving(replace(plan, looks=2), HostDevice(library)) as engine:
        found = boxes_of(engine.infer(canvases))
    expected = [suppress(rows, LIMITS) for rows in FakeNetwork.on_canvases(canvases)]
    assert [len(each) for each in expected] > [3, 3]
    for ours, theirs in zip(found, expected, strict=True):
        same_boxes(ours, theirs)


def same_boxes(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-5)


def test_classes_and_thresholds_are_those_asked_for(plan: EnginePlan, library: ctypes.CDLL) -> None:
    canvases = make_canvases((1, *CANVAS_HW, 3), seed=1)
    limits = Suppression(min_score=0.6, max_iou=0.5, max_boxes=5, class_aware=False)
    wanted = replace(plan, suppression=limits, class_ids=(2, 0, 99))
    with serving(wanted, HostDevice(library)) as engine:
        (found,) = boxes_of(engine.infer(canvases))
    (rows,) = FakeNetwork.on_canvases(canvases)
    expected = suppress(rows, limits, classes=(0, 2))
    assert len(expected) == 5
    same_boxes(found, expected)


def test_it_says_what_it_is(plan: EnginePlan, library: ctypes.CDLL) -> None:
    with serving(replace(plan, looks=2), HostDevice(library)) as engine:
        assert isinstance(engine, Engine)
        assert (engine.name, engine.precision) == ("cuda (fake)", "f32")
        assert (engine.takes, engine.gives) == ("coded", "boxes")
        assert engine.classes == ("person", "bicycle", "car")
        assert engine.input_shape == (2, *CANVAS_HW, 3)
        assert engine.output_shape == (2, 21, 6)
        assert engine.num_requests == 6  # two batches of four under way, one collected
        assert engine.has_room


def test_a_coded_picture_of_many_looks_is_looked_at(plan: EnginePlan, library: ctypes.CDLL) -> None:
    """Each look gives what it gives alone."""
    whole = make_picture(seed=3)
    part = Region(32, 16, 64, 48)
    both = replace(whole, regions=(*whole.regions, part))
    with serving(replace(plan, looks=2), HostDevice(library)) as engine:
        first, second = Asked(engine, both).result()
    alone = infer_alone(plan, library, [whole, replace(whole, regions=(part,))])
    np.testing.assert_array_equal(np.stack((first, second)), np.concatenate(alone))
    assert second[0, 0] > 0
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("seed", range(8))
def test_any_order_the_streams_allow_gives_the_same(
    plan: EnginePlan, library: ctypes.CDLL, seed: int
) -> None:
    """Of pictures that are staged, registered, and still being written on the device."""
    pictures = [make_picture(seed=each, fixed=each % 2 == 0) for each in range(6)]
    expected = infer_alone(plan, library, pictures)
    device = HostDevice(library, seed=seed)
    memory = HostMemory(device)
    assert isinstance(pictures[0].pixels, np.ndarray)
    memory.register(pictures[0].pixels)
    with serving(plan, device, memory) as engine:
        device.hold()
        pictures[1], kept = in_device_memory(device, pictures[1])
        asked = ask_all(engine, pictures)
        device.release()
        for each, rows in zip(asked, expected, strict=True):
            np.testing.assert_array_equal(each.result(), rows)
    del kept


Mutation = Callable[[pytest.MonkeyPatch, CudaEngine], None]


def _forget_uploads(_: pytest.MonkeyPatch, engine: CudaEngine) -> None:
    for slot in engine._idle:
        slot._uploaded.is_forgotten = True


def _forget_ends(_: pytest.MonkeyPatch, engine: CudaEngine) -> None:
    for slot in engine._idle:
        slot._done.is_forgotten = True


def _forget_ends_and_tickets(patch: pytest.MonkeyPatch, engine: CudaEngine) -> None:
    _forget_ends(patch, engine)
    parse = batchslot.parse_found
    patch.setattr(
        batchslot, "parse_found", lambda found, _, to: parse(found, found[:, 1].copy(), to)
    )


def _share_a_pool(patch: pytest.MonkeyPatch, engine: CudaEngine) -> None:
    """Have the graphs of one slot poison what those of the other make, as if it were theirs."""
    first, second = engine._idle
    for mine, others in ((first, second), (second, first)):
        poisons = others._pool.poison
        for graph in mine._graphs.values():
            graph._steps = (poisons, *graph._steps)
    del patch


MUTATIONS: dict[str, Mutation] = {
    "uploaded": _forget_uploads,
    "done": _forget_ends,
    "ticket": _forget_ends_and_tickets,
    "pool": _share_a_pool,
}


@pytest.mark.parametrize("mutation", ["none", *MUTATIONS])
def test_a_missing_wait_is_seen(
    plan: EnginePlan, library: ctypes.CDLL, mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wait left out, some order of the streams gives other boxes, or an error."""
    pictures = [make_picture(seed=each) for each in range(4)]
    expected = infer_alone(plan, library, pictures)
    wrong = 0
    for seed in range(6):
        device = HostDevice(library, seed=seed)
        with monkeypatch.context() as patch, serving(plan, device) as engine:
            device.hold()
            if mutation != "none":
                MUTATIONS[mutation](patch, engine)
            asked = ask_all(engine, pictures)
            device.release()
            ends = [each.failure() for each in asked]
            assert all(end is None or isinstance(end, EngineError) for end in ends)
            right = [
                end is None and np.array_equal(each.predictions, rows)
                for end, each, rows in zip(ends, asked, expected, strict=True)
            ]
            wrong += not all(right)
    assert (wrong > 0) == (mutation != "none")


@pytest.mark.parametrize("forgotten", [False, True])
def test_pixels_that_are_being_written_are_waited_for(
    plan: EnginePlan, library: ctypes.CDLL, forgotten: bool
) -> None:
    picture = make_picture(seed=3)
    (expected,) = infer_alone(plan, library, [picture])
    right = []
    for seed in range(6):
        device = HostDevice(library, seed=seed)
        with serving(replace(plan, batch_sizes=(1,)), device) as engine:
            there, kept = in_device_memory(device, picture)
            there.pixels.ready.is_forgotten = forgotten
            right.append(np.array_equal(Asked(engine, there).result(), expected))
        del kept
    assert all(right) != forgotten
