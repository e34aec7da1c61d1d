# SPDX-License-Identifier: Apache-2.0
"""NVDEC as tests play it: pictures in the memory of a device that this processor plays.

FFmpeg decodes on the processor. What it gives is written to a surface on the device's legacy
stream, so as late as the device likes. Surfaces are few, and one that nobody holds is poisoned.
"""

import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import av
import numpy as np
import torch

from pipeline.decoding.context import open_on_cpu
from pipeline.decoding.hardware import Hardware, HardwareWatch
from pipeline.decoding.scaling import rows_of
from pipeline.decoding.surface import Surface, SurfaceReader
from pipeline.messages import CodecParameters
from tests.model.cuda.host_device import POISON, HostDevice

NUM_SURFACES = 4
"""One that is being looked at, two that are being copied, and one for the next picture."""
What = Literal["nvdec", "cpu", "fault", "interlaced"]
Script = Callable[[int], What]
"""What becomes of a stream's packet of this number."""


class OnSurface:
    """A frame as PyAV gives it for a surface of a GPU."""

    format = SimpleNamespace(name="cuda")

    def __init__(self, frame: av.VideoFrame, device: HostDevice, memory: torch.Tensor) -> None:
        """Put a frame of two planes, which is nobody else's, onto a surface."""
        self.sw_format = frame.format
        self.width, self.height, self.pts = frame.width, frame.height, frame.pts
        self.key_frame, self.is_corrupt = frame.key_frame, frame.is_corrupt
        self.interlaced_frame = frame.interlaced_frame
        self.colorspace, self.color_range = frame.colorspace, frame.color_range
        self._frame, self._device, self._memory = frame, device, memory
        pitch = pitch_of(frame)
        rows = np.concatenate([_padded(rows_of(plane), pitch) for plane in frame.planes])
        source = device.pinned((rows.nbytes,), np.dtype(np.uint8))
        source[:] = rows.ravel()
        device.copy_in(memory.data_ptr(), source.ctypes.data, rows.nbytes, device.legacy())
        starts = (0, frame.height * pitch)
        self.planes = tuple(
            SimpleNamespace(buffer_ptr=memory.data_ptr() + start, line_size=pitch)
            for start in starts
        )

    def reformat(self, *, format: str) -> av.VideoFrame:  # noqa: A002 - PyAV's name
        """Bring it to the host."""
        assert format == self._frame.format.name
        written = self._device.event()
        written.record(self._device.legacy())
        written.synchronize()
        there = self._memory.numpy().reshape(-1, pitch_of(self._frame))
        first = 0
        for plane in self._frame.planes:  # which knows the rest of what a frame does
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            across = min(plane.line_size, there.shape[1])
            rows[:, :across] = there[first : first + plane.height, :across]
            plane.update(rows.tobytes())
            first += plane.height
        return self._frame


def pitch_of(frame: av.VideoFrame) -> int:
    """Other than that of any slot."""
    return -(-frame.planes[0].line_size // 128) * 128 + 128


class PlayedNvdec:
    """FFmpeg's decoder of one stream, on a GPU that is played."""

    is_hwaccel = True

    def __init__(
        self, parameters: CodecParameters, device: HostDevice, script: Script = lambda _: "nvdec"
    ) -> None:
        self._context = open_on_cpu(parameters, live=True)
        self._device, self._script = device, script
        self._num_packets = 0
        self.surfaces = Surfaces(device)

    def decode(self, packet: Any) -> Sequence[Any]:
        what = self._script(self._num_packets)
        self._num_packets += 1
        if what == "fault":
            raise av.error.ExternalError(1, "the GPU is gone")
        frames = self._context.decode(packet)
        if what == "cpu":
            return frames
        return [self._on_surface(frame.reformat(format="nv12")) for frame in frames]

    def _on_surface(self, frame: av.VideoFrame) -> OnSurface:
        num_bytes = -(-frame.height * 3 // 2) * pitch_of(frame)
        made = OnSurface(frame, self._device, self.surfaces.take(num_bytes))
        weakref.finalize(made, self.surfaces.give_back, made._memory)
        return made


class Surfaces:
    """The few surfaces of a decoder."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device
        self._num_bytes = 0
        self._free: list[torch.Tensor] = []
        self.num_held = self.most_held = 0

    def take(self, num_bytes: int) -> torch.Tensor:
        if num_bytes != self._num_bytes:
            self._num_bytes = num_bytes
            self._free = [
                self._device.empty((num_bytes,), torch.uint8) for _ in range(NUM_SURFACES)
            ]
        assert self._free, "a picture is held for too long"
        self.num_held += 1
        self.most_held = max(self.most_held, self.num_held)
        return self._free.pop(0)

    def give_back(self, memory: torch.Tensor) -> None:
        self.num_held -= 1
        memory.fill_(POISON)
        if memory.nbytes == self._num_bytes:
            self._free.append(memory)


def surface_of(frame: av.VideoFrame, device: HostDevice) -> Surface:
    """A frame of two planes as a stream finds it on a device."""
    memory = device.empty((-(-frame.height * 3 // 2) * pitch_of(frame),), torch.uint8)
    played: Any = OnSurface(_copied(frame), device, memory)
    return Surface(played, SurfaceReader(device))


def hardware_on(device: HostDevice) -> Hardware:
    """What a stream's decoder is told where an engine reads pictures on this device."""
    return Hardware(device.index, HardwareWatch(retries=True), SurfaceReader(device))


def _copied(frame: av.VideoFrame) -> av.VideoFrame:
    copy = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for to, plane in zip(copy.planes, frame.planes, strict=True):
        to.update(bytes(plane))
    copy.pts, copy.colorspace, copy.color_range = frame.pts, frame.colorspace, frame.color_range
    return copy


def _padded(rows: np.ndarray, pitch: int) -> np.ndarray:
    padded = np.full((len(rows), pitch), POISON, np.uint8)
    across = min(pitch, rows.shape[1])
    padded[:, :across] = rows[:, :across]
    return padded
