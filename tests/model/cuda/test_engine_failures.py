# SPDX-License-Identifier: Apache-2.0
"""What the engine does when memory lacks, the device fails, or it is closed with work under way."""

import ctypes
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from model.config import Suppression
from model.cuda import batchslot
from model.cuda import engine as engine_module
from model.cuda.coded import CodedPicture, DeviceArray
from model.cuda.engine import CudaEngine
from model.cuda.plan import EnginePlan, NetworkPlan
from model.errors import EngineError
from tests.model.cuda.fake_network import FakeNetwork, make_canvases, make_picture
from tests.model.cuda.host_device import HostDevice
from tests.model.cuda.serving import Asked, ask_all, infer_alone, serving, wait_until, wanting

ENOUGH = 8 << 20


def test_a_size_that_finds_no_memory_is_left_out_and_named(
    plan: EnginePlan, library: ctypes.CDLL, caplog: pytest.LogCaptureFixture
) -> None:
    """And what was taken for it is given back before the rest is built."""
    wide = wanting(plan, batch_sizes=(1, 2, 64), arena_mib=1)
    pictures = [make_picture(seed=each) for each in range(3)]
    device = HostDevice(library, room_bytes=ENOUGH)
    with caplog.at_level(logging.WARNING), serving(wide, device) as engine:
        assert engine.num_requests == 6
        results = [each.result() for each in ask_all(engine, pictures)]
    (said,) = caplog.messages
    assert said.startswith("host: no memory for batches of 64 (tried to take ")
    assert said.endswith("the largest is now 2")
    np.testing.assert_array_equal(results, infer_alone(plan, library, pictures))


def test_an_engine_that_finds_no_memory_at_all_says_what_to_lower(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    device = HostDevice(library, room_bytes=1 << 20)
    with pytest.raises(
        EngineError, match=r"no memory for a batch of 1 on 96x32 \(tried.*arena_mib"
    ):
        CudaEngine(plan, device, FakeNetwork)
    assert device.used_bytes == 0


def test_a_size_below_the_looks_of_a_frame_is_no_way_out(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    device = HostDevice(library, room_bytes=ENOUGH)
    with pytest.raises(EngineError, match="no memory for a batch of 3 on 96x32"):
        CudaEngine(wanting(replace(plan, looks=3), batch_sizes=(1, 2, 64)), device, FakeNetwork)


def test_a_network_that_finds_no_memory_is_left_out(
    plan: EnginePlan, library: ctypes.CDLL, caplog: pytest.LogCaptureFixture
) -> None:
    compiled = []

    def compile_network(network_plan: NetworkPlan) -> FakeNetwork:
        compiled.append(network_plan.batch)
        if network_plan.batch == 4:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 2.00 GiB.\nAnd so on.")
        return FakeNetwork(network_plan)

    with serving(plan, HostDevice(library), None, compile_network):
        assert compiled == [4, 2, 1]
    assert "(out of memory. Tried to allocate 2.00 GiB.); the largest is now 2" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            lambda plan: replace(plan, looks=17),
            "gpu.batch_sizes: the 17 looks at a frame go into one batch, of 4 at most",
        ),
        (
            partial(wanting, suppression=Suppression(multi_label=True)),
            "suppression.multi_label: engine cuda",
        ),
        (
            partial(wanting, suppression=Suppression(max_boxes=9999)),
            "suppression.max_boxes: engine cuda keeps",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_built(
    plan: EnginePlan, changed: Callable[[EnginePlan], EnginePlan], said: str
) -> None:
    with pytest.raises(EngineError, match=said):
        CudaEngine(changed(plan), HostDevice(None), FakeNetwork)


@pytest.mark.parametrize("launches", [0, 1, 3])
def test_a_failing_device_ends_every_request_once(
    plan: EnginePlan, library: ctypes.CDLL, launches: int
) -> None:
    """Those under way, those that wait for a slot, and those that come later."""
    device = HostDevice(library)
    with serving(plan, device) as engine:
        device.hold()
        asked = ask_all(engine, [make_picture(seed=each) for each in range(7)])
        device.launches_left = launches
        device.release()
        failures = [each.failure() for each in asked]
        wait_until(lambda: not any(thread.is_alive() for thread in engine._threads))
        late = Asked(engine, make_picture(seed=9)).failure()
        failed = [end for end in failures if end is not None]
        assert len(failed) >= 5
        for end in (*failed, late):
            assert isinstance(end, EngineError)
            assert "an illegal memory access was encountered" in str(end)
        with pytest.raises(EngineError, match="illegal memory access"):
            engine.infer(make_canvases((1, 32, 96, 3), seed=1))


def test_a_device_that_takes_no_work_ends_every_request_once(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    device = HostDevice(library)
    with serving(wanting(plan, in_flight=1), device) as engine:
        device.hold()
        (slot,) = engine._idle
        (begun,) = ask_all(engine, [make_picture(seed=1)])
        wait_until(lambda: slot._state == "running")
        device.refuses_work = True
        waiting = ask_all(engine, [make_picture(seed=2), make_picture(seed=3)])
        device.release()
        begun.result()
        for each in waiting:
            assert str(each.failure()) == "host: this device takes no work"


@pytest.mark.parametrize("closes", [False, True])
def test_a_device_that_hangs_is_given_up(
    plan: EnginePlan, library: ctypes.CDLL, closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request ends once, also where the device comes back; closing does not wait for it."""
    monkeypatch.setattr(engine_module, "HANG_S", 0.3)
    device = HostDevice(library)
    engine = CudaEngine(plan, device, FakeNetwork)
    device.hold()
    asked = ask_all(engine, [make_picture(seed=each) for each in range(4)])
    if closes:
        engine.close()
    for each in asked:
        assert str(each.failure()) == "cuda (fake): host has not ended a batch for 0 s"
    engine.close()
    device.release()
    wait_until(lambda: not any(thread.is_alive() for thread in engine._threads))
    assert [len(each.ends) for each in asked] == [1] * 4


def test_a_result_of_another_batch_is_an_error_and_no_box(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    """As where a slot is filled again before its batch has ended."""
    device = HostDevice(library)
    with serving(wanting(plan, in_flight=1), device) as engine:
        (slot,) = engine._idle
        device.hold()
        (asked,) = ask_all(engine, [make_picture(seed=1)])
        wait_until(lambda: slot._state == "running")
        slot._looks_host["ticket"] += 1
        device.release()
        assert "results of other looks: tickets [2], expected [1]" in str(asked.failure())


def test_a_fault_of_the_program_ends_every_request_too(
    plan: EnginePlan,
    library: ctypes.CDLL,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: object) -> None:
        raise TypeError("a slip of the pen")

    device = HostDevice(library)
    with serving(plan, device) as engine:
        monkeypatch.setattr(batchslot, "parse_found", fails)
        failures = [each.failure() for each in ask_all(engine, [make_picture(seed=1)] * 6)]
    assert {str(failure) for failure in failures} == {"a slip of the pen"}
    assert "a fault of this program ends it" in caplog.text


def test_closing_ends_what_was_begun(plan: EnginePlan, library: ctypes.CDLL) -> None:
    """Though the window of what waits is far from its end; then no thread is left."""
    device = HostDevice(library)
    pictures = [make_picture(seed=each) for each in range(7)]
    with serving(wanting(plan, window_ms=60_000.0), device) as engine:
        device.hold()
        asked = [Asked(engine, each) for each in pictures]
        closing = [threading.Thread(target=engine.close) for _ in range(2)]
        for each in closing:
            each.start()
        wait_until(lambda: engine._closed)
        with pytest.raises(EngineError, match="this engine is closed"):
            Asked(engine, pictures[0])
        assert not any(each.ends for each in asked)
        device.release()
        for each in closing:
            each.join()
        results = [each.result() for each in asked]
    assert not any(thread.is_alive() for thread in engine._threads)
    np.testing.assert_array_equal(results, infer_alone(plan, library, pictures))


def test_closing_gives_the_memory_back(plan: EnginePlan, library: ctypes.CDLL) -> None:
    device = HostDevice(library)
    with serving(plan, device) as engine:
        Asked(engine, make_picture(seed=1)).result()
        assert device.used_bytes > 2 << 20
    assert device.used_bytes == 0


def test_closing_after_a_failure_ends(plan: EnginePlan, library: ctypes.CDLL) -> None:
    device = HostDevice(library)
    with serving(plan, device) as engine:
        device.launches_left = 0
        Asked(engine, make_picture(seed=1)).failure()
    engine.close()
    with pytest.raises(EngineError, match="this engine is closed"):
        Asked(engine, make_picture(seed=1))


def test_a_picture_it_cannot_look_at_ends_its_own_request_alone(
    plan: EnginePlan, library: ctypes.CDLL
) -> None:
    with serving(plan, HostDevice(library)) as engine:
        large = Asked(engine, make_picture(seed=1, picture_hw=(1024, 1024))).failure()
        assert isinstance(large, EngineError)
        assert str(large) == "gpu.arena_mib: a picture of 1.5 MiB does not fit into 1; raise it"
        Asked(engine, make_picture(seed=1)).result()


def test_memory_of_another_kind_is_refused(plan: EnginePlan, library: ctypes.CDLL) -> None:
    picture = make_picture(seed=1)
    assert isinstance(picture.pixels, np.ndarray)
    size = picture.pixels.nbytes
    with serving(plan, HostDevice(library)) as engine:
        room = np.zeros(engine.output_shape, np.float32)
        fixed = room.copy()
        fixed.setflags(write=False)
        for said, images, predictions in (
            ("predictions must be float32 of shape", picture, room[:, 1:]),
            ("predictions must be float32 of shape", picture, room.astype(np.float64)),
            ("predictions must be C-contiguous", picture, room[:, ::-1]),
            ("predictions must be writeable", picture, fixed),
            ("pixels must be uint8 of shape", replace(picture, pixels=picture.pixels[1:]), room),
            ("expected 1 regions, got 2", replace(picture, regions=picture.regions * 2), room),
            ("on device 0, got 9216 on 1", _on(picture, DeviceArray(0, size, 1, None)), room),
            ("bytes on device 0, got 7 on 0", _on(picture, DeviceArray(0, 7, 0, None)), room),
            ("images must be uint8 of shape", np.zeros((1, 32, 32, 3), np.uint8), room),
        ):
            with pytest.raises(ValueError, match=said):
                engine.start(images, predictions, print)


def _on(picture: CodedPicture, pixels: DeviceArray) -> CodedPicture:
    return replace(picture, pixels=pixels)
