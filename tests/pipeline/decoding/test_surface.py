# SPDX-License-Identifier: Apache-2.0
"""Pictures that stay on the device that decoded them, on one that this processor plays."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from model.errors import EngineError
from model.slicing import Region
from pipeline.config import GateConfig
from pipeline.decoding import hardware as module
from pipeline.decoding.damage import DamageWatch
from pipeline.decoding.decoder import DecodedFrame, make_decoder
from pipeline.decoding.freezing import FreezeWatch
from pipeline.decoding.hardware import MadeBy
from pipeline.decoding.motion import MotionGate
from pipeline.decoding.planes import copy_planes, plane_layout
from pipeline.decoding.scaling import FrameScaler, rows_of
from pipeline.decoding.surface import Surface, SurfaceReader, on_host
from pipeline.stages.imaging import CanvasImager, CodedImager
from tests.model.cuda.host_device import HostDevice, Mark
from tests.pipeline.decoding.played_nvdec import PlayedNvdec, hardware_on, surface_of
from tests.pipeline.decoding.test_decoder import read
from tests.pipeline.decoding.test_deinterlace import interlaced, woven
from tests.pipeline.decoding.test_planes import made
from tests.pipeline.media_factory import message_of, write_video

SIZES = [(320, 180), (641, 359), (1, 1), (66, 2)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("pixel_format", ["nv12", "p010le"])
def test_planes_are_copied_as_they_would_be_on_the_host(
    pixel_format: str, width: int, height: int
) -> None:
    frame = made(width, height, pixel_format)
    for seed in range(3):
        device = HostDevice(None, seed=seed)
        surface = surface_of(frame, device)
        coded = plane_layout(surface)
        assert coded == plane_layout(frame)
        assert coded is not None
        slot = device.empty((coded.num_bytes,), torch.uint8)
        slot.fill_(7)
        surface.copy_to(coded, slot.data_ptr()).synchronize()
        expected = np.full(coded.num_bytes, 7, np.uint8)
        copy_planes(frame, coded, expected)
        np.testing.assert_array_equal(slot.numpy(), expected)


def test_a_surface_tells_of_itself_what_its_frame_on_the_host_does() -> None:
    frame = made(64, 48, "nv12")
    frame.pts, frame.colorspace, frame.color_range = 7, 1, 2
    surface = surface_of(frame, HostDevice(None))
    there = on_host(surface)
    for name in ("width", "height", "pts", "colorspace", "color_range"):
        assert getattr(surface, name) == getattr(there, name) == getattr(frame, name), name
    assert surface.format.name == there.format.name == "nv12"
    assert on_host(surface) is there  # it is brought once
    assert on_host(frame) is frame
    np.testing.assert_array_equal(there.to_ndarray(), frame.to_ndarray())


WHOLE_AND_PART = [Region(0, 0, 66, 48), Region(8, 4, 20, 16)]


@pytest.mark.parametrize(
    ("pixel_aspect", "regions", "stays"),
    [(1.0, WHOLE_AND_PART, True), (1.0, WHOLE_AND_PART[:1], True), (1.5, [], False)],
)
def test_what_the_engine_reads_stays_and_what_it_does_not_is_made_on_the_host(
    pixel_aspect: float, regions: list[Region], stays: bool
) -> None:
    """Whoever has no slot for what stays is given the same on the host."""
    frame = made(66, 48, "nv12")
    surface = surface_of(frame, HostDevice(None))
    regions = regions or [Region(0, 0, 99, 48), Region(8, 4, 20, 16)]
    images = [
        CodedImager().image(FrameScaler(0, pixel_aspect), each, regions, (32, 64))
        for each in (surface, frame)
    ]
    assert images[0].surface is (surface if stays else None)
    assert images[1].surface is None
    assert images[0].coded == images[1].coded
    slots = [np.full(image.shape, 7, np.uint8) for image in images]
    for image, slot in zip(images, slots, strict=True):
        image.write(slot)
    np.testing.assert_array_equal(*slots)


def test_canvases_are_made_of_a_picture_on_the_host() -> None:
    frame = made(66, 48, "nv12")
    canvases = []
    for each in (surface_of(frame, HostDevice(None)), frame):
        image = CanvasImager().image(FrameScaler(90), each, [Region(0, 0, 48, 66)], (64, 32))
        canvases.append(np.empty(image.shape, np.uint8))
        image.write(canvases[-1])
    np.testing.assert_array_equal(*canvases)


def test_a_device_that_hangs_does_not_keep_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.decoding.surface._CLOSING_S", 0.05)
    device = HostDevice(None)
    reader = SurfaceReader(device)
    never = device.event()
    never.mark = Mark()
    reader._stream.wait(never)
    surface = Surface(surface_of(made(66, 48, "nv12"), device).frame, reader)
    coded = plane_layout(surface)
    assert coded is not None
    slot = device.empty((coded.num_bytes,), torch.uint8)
    ended = surface.copy_to(coded, slot.data_ptr())
    frame = weakref.ref(surface.frame)
    del surface
    assert frame() is not None
    reader.close()
    assert frame() is None
    assert not ended.happened()


def test_a_picture_that_does_not_come_to_the_host_ends_its_stream_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surface = surface_of(made(64, 48, "nv12"), HostDevice(None))

    def refuse(**_: Any) -> None:
        raise av.error.ExternalError(1, "the GPU is gone")

    monkeypatch.setattr(surface.frame, "reformat", refuse)
    with pytest.raises(EngineError, match=r"^cuda: a decoded picture .*: the GPU is gone$"):
        on_host(surface)


class Film:
    """A clip through a decoder whose device is played, each picture copied to a slot."""

    def __init__(self, clip: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> None:
        self.device = HostDevice(None, seed=seed)
        self.parameters, self.packets = read(clip)
        self.nvdec = PlayedNvdec(self.parameters, self.device)
        monkeypatch.setattr(module, "open_on_device", lambda *_: self.nvdec)
        monkeypatch.setattr(module, "HWAccel", lambda *_, **__: None)

    def play(self, see: Callable[[DecodedFrame], None]) -> None:
        """Show each picture to somebody, and hold none."""
        hardware = hardware_on(self.device)
        decoder = make_decoder(self.parameters, live=True, hardware=hardware)
        for index, raw in enumerate(self.packets):
            for frame in decoder.decode(message_of(raw, index), memoryview(raw.data)):
                see(frame)
                del frame
        for frame in decoder.flush():
            see(frame)
            del frame
        assert hardware.reader is not None
        hardware.reader.close()

    def expected(self) -> list[np.ndarray]:
        decoder = make_decoder(self.parameters, live=True)
        frames = []
        for index, raw in enumerate(self.packets):
            frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
        frames += decoder.flush()
        return [on_host(each.frame).to_ndarray(format="nv12") for each in frames]

    def slots(self) -> list[np.ndarray]:
        """What lies in the slots of all pictures, seen only when all are copied."""
        slots: list[torch.Tensor] = []
        ends: list[Any] = []

        def copy(decoded: DecodedFrame) -> None:
            surface = decoded.frame
            assert isinstance(surface, Surface)
            coded = plane_layout(surface)
            assert coded is not None
            slots.append(self.device.empty((coded.num_bytes,), torch.uint8))
            ends.append(surface.copy_to(coded, slots[-1].data_ptr()))

        self.play(copy)
        for end in ends:
            end.synchronize()
        return [slot.numpy() for slot in slots]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of 128 x 96, so that rows in slots have no padding."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", b_frames=0)


def is_right(film: Film, expected: list[np.ndarray]) -> bool:
    seen = film.slots()
    assert len(seen) == len(expected) == 24
    return all(np.array_equal(a, b.ravel()) for a, b in zip(seen, expected, strict=True))


def test_pictures_are_copied_before_their_surfaces_are_used_again(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Film(clip, monkeypatch).expected()
    for seed in range(5):
        film = Film(clip, monkeypatch, seed)
        assert is_right(film, expected)
        gc.collect()
        assert film.nvdec.surfaces.most_held <= 4


def _hold_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SurfaceReader, "_hold", lambda *_: None)


def _follow_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SurfaceReader, "_follow_the_decoder", lambda *_: None)


@pytest.mark.parametrize("fault", [_hold_nothing, _follow_nobody])
def test_a_missing_wait_is_seen(
    clip: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """So the test above would notice it."""
    expected = Film(clip, monkeypatch).expected()
    fault(monkeypatch)
    assert not all(is_right(Film(clip, monkeypatch, seed), expected) for seed in range(5))


def still_and_moving() -> list[av.VideoFrame]:
    """A scene that stands still, but for a spot between the rows that are looked at first."""
    scene = made(128, 96, "nv12")
    spot = made(128, 96, "nv12")
    pixels = scene.to_ndarray()
    pixels[3:6, 100:110] ^= 255
    spot = av.VideoFrame.from_ndarray(pixels, format="nv12")
    return [scene] * 6 + [spot] + [scene] * 5 + [made(128, 96, "nv12", seed=1)] * 3


def test_a_frozen_camera_is_known_by_what_a_few_rows_bring() -> None:
    device = HostDevice(None)
    reader = SurfaceReader(device)
    on_device, on_processor = FreezeWatch(2.0), FreezeWatch(2.0)
    told = []
    for second, frame in enumerate(still_and_moving()):
        surface = Surface(surface_of(frame, device).frame, reader)
        frozen = on_device.is_frozen(surface, second * 10**9)
        assert frozen == on_processor.is_frozen(frame, second * 10**9)
        told.append(frozen)
    assert True in told
    assert not all(told)
    assert (6, 128) in device.copied_rows


def test_a_few_rows_are_those_of_the_picture() -> None:
    for width, height in SIZES:
        frame = made(width, height, "nv12")
        rows = rows_of(frame.planes[0])[:, :width]
        surface = surface_of(frame, HostDevice(None))
        for every in (16, 1, 16):
            np.testing.assert_array_equal(surface.some_luma(every), rows[::every])


def test_a_moving_picture_is_not_brought_whole_to_see_that_it_is_not_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = HostDevice(None)
    watch = FreezeWatch(1.0)
    for second in range(5):
        surface = surface_of(made(128, 96, "nv12", seed=second), device)
        monkeypatch.setattr(surface.frame, "reformat", None)
        assert not watch.is_frozen(surface, second * 10**9)
    assert device.copied_rows == [(6, 128)] * 5


def test_the_gate_and_the_look_for_damage_see_the_same_on_the_device() -> None:
    device = HostDevice(None)
    on_device, on_processor = MotionGate(GateConfig()), MotionGate(GateConfig())
    damaged, undamaged = DamageWatch(), DamageWatch()
    for second, frame in enumerate(still_and_moving()):
        surface = surface_of(frame, device)
        at_ns = second * 10**9
        assert on_device.opens(surface, at_ns) == on_processor.opens(frame, at_ns)
    grey = av.VideoFrame.from_ndarray(np.full((144, 128), 128, np.uint8), format="nv12")
    surface = surface_of(grey, device)
    assert not undamaged.shows_in(surface)
    damaged.on_fault()
    assert damaged.shows_in(surface)


@pytest.mark.needs_cuda
def test_a_gpu_copies_what_it_decoded_as_it_would_come_to_the_host(clip: Path) -> None:
    """Planes, a few rows, and the picture on the host. This has never run."""
    from model.cuda.cuda_device import open_device

    device: Any = open_device(0)
    hardware = hardware_on(device)
    parameters, packets = read(clip)
    decoder = make_decoder(parameters, live=False, hardware=hardware)
    frames = []
    for index, raw in enumerate(packets):
        frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
        for surface in (each.frame for each in frames):
            assert isinstance(surface, Surface)
            coded = plane_layout(surface)
            assert coded is not None
            slot = device.empty((coded.num_bytes,), torch.uint8)
            slot.fill_(7)
            torch.cuda.synchronize()
            surface.copy_to(coded, slot.data_ptr()).synchronize()
            there = on_host(surface)
            expected = np.full(coded.num_bytes, 7, np.uint8)
            copy_planes(there, coded, expected)
            np.testing.assert_array_equal(slot.cpu().numpy(), expected)
            rows = rows_of(there.planes[0])[::16, : surface.width]
            np.testing.assert_array_equal(surface.some_luma(16), rows)
        frames.clear()
    assert hardware.watch.made_by == MadeBy("nvdec")


def test_interlaced_pictures_are_made_whole_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = Film(
        write_video(tmp_path / "clip.mp4", b_frames=0, prepare=interlaced, picture=woven),
        monkeypatch,
    )
    seen: list[np.ndarray] = []

    def see(decoded: DecodedFrame) -> None:
        assert isinstance(decoded.frame, av.VideoFrame)
        seen.append(decoded.frame.to_ndarray(format="nv12"))

    film.play(see)
    np.testing.assert_array_equal(seen, film.expected())
