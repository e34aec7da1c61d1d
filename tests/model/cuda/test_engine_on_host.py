# SPDX-License-Identifier: Apache-2.0
"""The whole engine on the device that this processor plays."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.config import Suppression
from model.cuda import batchslot, compiling
from model.cuda.coded import DeviceArray
from model.cuda.engine import CudaEngine
from model.cuda.hostmemory import HostMemory
from model.cuda.plan import EnginePlan, Network, NetworkPlan
from model.detections import Detections
from model.engines.contract import Engine
from model.engines.found import read_found
from model.errors import EngineError
from model.parity import make_pictures, run_once
from model.slicing import Region
from model.suppression import suppress
from tests.model.cuda.fake_network import FakeNetwork, make_canvases, make_picture
from tests.model.cuda.host_device import HostDevice, HostEvent
from tests.model.cuda.serving import (
    Asked,
    ask_all,
    in_device_memory,
    infer_alone,
    serving,
    wait_until,
    wanting,
)

CANVAS_HW = (32, 96)


def test_it_finds_what_the_processor_finds(plan: EnginePlan, library: ctypes.CDLL) -> None:
    canvases = make_canvases((2, *CANVAS_HW, 3), seed=1)
    with serving(replace(plan, looks=2), HostDevice(library)) as engine:
        found = read_found(engine.infer(canvases))
    expected = [suppress(rows, plan.gpu.suppression) for rows in FakeNetwork.on_canvases(canvases)]
    assert [len(each) for each in expected] > [3, 3]
    for ours, theirs in zip(found, expected, strict=True):
        same_boxes(ours, theirs)


def same_boxes(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-5)


def test_a_detector_finds_what_it_finds_by_itself(
    plan: EnginePlan, weights: Path, library: ctypes.CDLL
) -> None:
    """On 2026-11-22 boxes lay at most 1.4e-4 px and scores 1.7e-6 from its own."""
    pictures = make_pictures((2, 64, 96), seed=1)
    limits = Suppression(min_score=0.3, max_iou=0.5)
    larger = replace(plan, looks=2, canvas_hw=(64, 96))
    wanted = wanting(larger, batch_sizes=(2,), in_flight=1, suppression=limits)

    def compile_network(network_plan: NetworkPlan) -> Network:
        return compiling.compile_network(replace(network_plan, how="eager", device=-1))

    with serving(wanted, HostDevice(library), None, compile_network) as engine:
        found = read_found(engine.infer(pictures))
    expected = [suppress(rows, limits) for rows in run_once(weights, "torch", pictures)]
    assert all(len(each) > 5 for each in expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.class_id, theirs.class_id)
        np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)
        np.testing.assert_allclose(ours.score, theirs.score, atol=1e-3)


def test_classes_and_thresholds_are_those_asked_for(plan: EnginePlan, library: ctypes.CDLL) -> None:
    canvases = make_canvases((1, *CANVAS_HW, 3), seed=1)
    limits = Suppression(min_score=0.6, max_iou=0.5, max_boxes=5, class_aware=False)
    wanted = wanting(plan, suppression=limits, class_ids=(2, 0, 99))
    with serving(wanted, HostDevice(library)) as engine:
        (found,) = read_found(engine.infer(canvases))
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
    part = Region(32, 16, 64, 32)
    both = replace(whole, regions=(*whole.regions, part))
    with serving(replace(plan, looks=2), HostDevice(library)) as engine:
        first, second = Asked(engine, both).result()
    alone = infer_alone(plan, library, [whole, replace(whole, regions=(part,))])
    np.testing.assert_array_equal(np.stack((first, second)), np.concatenate(alone))
    assert second[0, 0] > 0
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("seed", range(5))
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
    """With a wait left out, some order of the streams gives other boxes, or an error.

    On 2026-11-22, of 30 orders each: 15 for uploads, 17 for a shared pool, all for the others.
    """
    pictures = [make_picture(seed=each) for each in range(3)]
    expected = infer_alone(plan, library, pictures)
    small = wanting(plan, batch_sizes=(1,), file_batch=1)
    is_seen = False
    for seed in range(6 if mutation == "none" else 20):
        device = HostDevice(library, seed=seed)
        with monkeypatch.context() as patch, serving(small, device) as engine:
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
        is_seen = not all(right)
        if is_seen:
            break
    assert is_seen == (mutation != "none")


class Lent:
    """Whoever lends pixels, and until when they are read."""

    def __init__(self) -> None:
        self.until: list[HostEvent] = []

    def read_until(self, event: HostEvent) -> None:
        self.until.append(event)


def test_a_lender_hears_until_when_its_pixels_are_read(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    """Before the request ends, and once for each: another batch tells another event."""
    device = HostDevice(library)
    with serving(wanting(plan, batch_sizes=(1,)), device) as engine:
        there, kept = in_device_memory(device, make_picture(seed=3))
        assert isinstance(there.pixels, DeviceArray)
        lent = [Lent(), Lent()]
        pictures = [replace(there, pixels=replace(there.pixels, lender=lender)) for lender in lent]
        device.hold()
        asked = ask_all(engine, pictures)
        wait_until(lambda: all(lender.until for lender in lent))
        events = [lender.until[0] for lender in lent]
        assert all(event.mark is not None and not event.mark.happened for event in events)
        device.release()
        for each in asked:
            each.result()
        assert all(event.mark.happened for event in events)
        assert [len(lender.until) for lender in lent] == [1, 1]
        assert events[0] is not events[1]
    del kept


@pytest.mark.parametrize("forgotten", [False, True])
def test_pixels_that_are_being_written_are_waited_for(
    plan: EnginePlan, library: ctypes.CDLL, forgotten: bool
) -> None:
    picture = make_picture(seed=3)
    (expected,) = infer_alone(plan, library, [picture])
    right = []
    for seed in range(20 if forgotten else 4):
        device = HostDevice(library, seed=seed)
        with serving(wanting(plan, batch_sizes=(1,)), device) as engine:
            there, kept = in_device_memory(device, picture)
            there.pixels.ready.is_forgotten = forgotten
            right.append(np.array_equal(Asked(engine, there).result(), expected))
        del kept
        if not all(right):
            break
    assert all(right) != forgotten


def sizes_of(device: HostDevice) -> list[int]:
    """The batches that were run, by their looks."""
    return [grid[0] for kernel, grid in device.launches if kernel == "suppress_ranked"]


def test_requests_of_many_streams_make_one_batch(plan: EnginePlan, library: ctypes.CDLL) -> None:
    """What comes while a batch runs is collected until that ends, not until the window does."""
    device = HostDevice(library)
    with serving(wanting(plan, window_ms=60_000.0), device) as engine:
        device.launches.clear()
        device.hold()
        (first,) = ask_all(engine, [make_picture(seed=0)])
        others = [Asked(engine, make_picture(seed=each)) for each in (1, 2, 3)]
        device.release()
        for each in (first, *others):
            each.result()
    assert sizes_of(device) == [1, 4]


def test_a_window_that_has_passed_starts_a_second_batch_beside_the_first(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    device = HostDevice(library)
    with serving(wanting(plan, window_ms=1.0), device) as engine:
        slots = list(engine._idle)
        device.hold()
        for seed in range(2):
            Asked(engine, make_picture(seed=seed))
            wait_until(lambda: not engine._collector)
        wait_until(lambda: all(slot._state == "running" for slot in slots))


def test_a_slot_is_filled_only_when_its_batch_has_ended(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    device = HostDevice(library)
    with serving(wanting(plan, in_flight=1, batch_sizes=(1,)), device) as engine:
        (slot,) = engine._idle
        device.hold()
        asked = ask_all(engine, [make_picture(seed=each) for each in range(3)])
        wait_until(lambda: slot._state == "running")
        assert (len(engine._collector), engine._idle) == (2, [])
        with pytest.raises(AssertionError):
            slot.submit((), 1, 0)
        device.release()
        results = [each.result() for each in asked]
    expected = infer_alone(plan, library, [make_picture(seed=each) for each in range(3)])
    np.testing.assert_array_equal(results, expected)


def test_frames_of_files_run_in_batches_of_one_size(plan: EnginePlan, library: ctypes.CDLL) -> None:
    device = HostDevice(library)
    with serving(plan, device) as engine:
        device.launches.clear()
        for fixed in (True, False):
            Asked(engine, make_picture(seed=1, fixed=fixed)).result()
        engine.infer(make_canvases((1, *CANVAS_HW, 3), seed=1))
    assert sizes_of(device) == [2, 1, 2]


def test_there_is_room_until_a_batch_waits(plan: EnginePlan, library: ctypes.CDLL) -> None:
    """Of cameras, or the smaller one of files, so that neither keeps the other out."""
    for fixed, most in ((True, 2), (False, 4)):
        device = HostDevice(library)
        with serving(wanting(plan, in_flight=1), device) as engine:
            device.hold()
            ask_all(engine, [make_picture(seed=0)])
            waiting = 0
            while engine.has_room:
                Asked(engine, make_picture(seed=1, fixed=fixed))
                waiting += 1
            assert waiting == most


def test_pictures_lie_where_the_device_reads_them(plan: EnginePlan, library: ctypes.CDLL) -> None:
    """In registered memory, or in memory of its own, to which they are copied and counted."""
    device = HostDevice(library)
    memory = HostMemory(device)
    pictures = [make_picture(seed=each) for each in range(2)]
    assert isinstance(pictures[0].pixels, np.ndarray)
    memory.register(pictures[0].pixels)
    with serving(plan, device, memory) as engine:
        for picture, staged in zip(pictures, (0, 1), strict=True):
            Asked(engine, picture).result()
            assert engine.num_staged == staged
        device.hold()
        ask_all(engine, [pictures[0]])
        memory.forget(pictures[0].pixels)
        assert device.registered
        device.release()
        wait_until(lambda: not device.registered)


def test_results_are_the_callers_and_the_end_is_told_once(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    canvases, others = (make_canvases((1, *CANVAS_HW, 3), seed=each) for each in (1, 2))
    canvases.setflags(write=False)
    roomy = wanting(plan, suppression=Suppression(max_boxes=30, max_iou=0.2))
    with serving(roomy, HostDevice(library)) as engine:
        asked = Asked(engine, canvases)
        first = asked.result()
        kept = first.copy()
        assert not np.array_equal(engine.infer(others), kept)
        np.testing.assert_array_equal(engine.infer(canvases), kept)
        np.testing.assert_array_equal(first, kept)
        count = int(kept[0, 0, 0])
        assert 0 < count < 30
        assert not kept[0, 0, 1:].any()
        assert not kept[0, 1 + count :].any()
    assert asked.ends == [None]
