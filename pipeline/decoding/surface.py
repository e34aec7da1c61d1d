# SPDX-License-Identifier: Apache-2.0
"""Pictures that a GPU decoded, where its decoder left them, and how they are read there.

The decoder writes such a picture on the stream that libraries use unless told another, and writes
to its memory again once nobody holds the picture. So whoever copies waits for that stream, on the
device alone, and holds the picture until the copy has ended: of two pictures at most beside the one
in hand, and never for as long as a batch takes. FFmpeg has to be in the same context of the GPU as
torch, which PyAV sees to for pictures that stay there (`primary_ctx`).

Who reads pixels with the processor asks for the picture on the host. It comes there once, when the
first asks. Nothing of this has run on a GPU.
"""

import time
from collections import deque
from contextlib import suppress
from functools import cached_property
from typing import Final, TypeAlias

import av
import numpy as np
from jaxtyping import UInt8

from model.cuda.coded import Coded, plane_sizes
from model.cuda.device import Device, Event, Rows
from model.errors import EngineError

_MOST_HELD: Final = 2
"""Pictures whose copies have not ended; a decoder has few to give."""
_CLOSING_S: Final = 2.0
"""For copies to end; those of a GPU that hangs do not."""
_POLL_S: Final = 0.001
_UINT8: Final = np.dtype(np.uint8)


class Surface:
    """A picture in a GPU's memory; knows of itself what a frame on the host does."""

    def __init__(self, frame: av.VideoFrame, reader: "SurfaceReader") -> None:
        assert frame.sw_format is not None, "a frame of a GPU has a format for the host"
        self.frame = frame
        self.format = frame.sw_format
        """How its planes lie."""
        self.width, self.height = frame.width, frame.height
        self.pts = frame.pts
        self.key_frame, self.is_corrupt = frame.key_frame, frame.is_corrupt
        self.interlaced_frame = frame.interlaced_frame
        self.colorspace, self.color_range = frame.colorspace, frame.color_range
        self._reader = reader

    @property
    def device(self) -> Device:
        """Where it is."""
        return self._reader.device

    @cached_property
    def on_host(self) -> av.VideoFrame:
        """The picture in the host's memory.

        Raises:
            EngineError: the GPU does not give it.
        """
        try:
            return downloaded(self.frame)
        except av.error.FFmpegError as error:
            said = error.strerror or str(error)
            raise EngineError(
                f"cuda: a decoded picture does not come to the host: {said}"
            ) from error

    def copy_to(self, coded: Coded, address: int) -> Event:
        """Have its planes copied to a slot on the device; the event is the end of that."""
        return self._reader.copy(self, coded, address)

    def some_luma(self, every: int) -> UInt8[np.ndarray, "rows W"]:
        """Bring one of so many rows of luma to the host; good until the next are brought."""
        return self._reader.some_luma(self, every)


AnyFrame: TypeAlias = av.VideoFrame | Surface
"""A decoder's picture, wherever it is."""


def on_host(frame: AnyFrame) -> av.VideoFrame:
    """The picture where the processor can read it."""
    return frame.on_host if isinstance(frame, Surface) else frame


def downloaded(frame: av.VideoFrame) -> av.VideoFrame:
    """A copy in the host's memory of a frame of a GPU.

    Raises:
        FFmpegError: the GPU does not give it.
    """
    assert frame.sw_format is not None
    return frame.reformat(format=frame.sw_format.name)


class SurfaceReader:
    """Reads the surfaces of one stream; used by the thread that decodes it."""

    def __init__(self, device: Device) -> None:
        """Set up on a device.

        Raises:
            EngineError: the device refuses.
        """
        self.device = device
        self._stream = device.stream()
        self._held: deque[tuple[av.VideoFrame, Event]] = deque()
        """What is being copied, and the ends of that."""
        self._rows = np.empty((0, 0), _UINT8)

    def copy(self, surface: Surface, coded: Coded, address: int) -> Event:
        """Have the planes copied to a slot that begins at an address, without waiting for it."""
        self._follow_the_decoder()
        sizes = plane_sizes(coded.pixel_format, coded.coded_hw)
        places = zip(surface.frame.planes, sizes, coded.offsets, coded.pitches, strict=True)
        for plane, size, offset, pitch in places:
            to = Rows(address + offset, pitch)
            self.device.copy_rows(to, Rows(plane.buffer_ptr, plane.line_size), size, self._stream)
        ended = self._end()
        self._hold(surface.frame, ended)
        return ended

    def some_luma(self, surface: Surface, every: int) -> UInt8[np.ndarray, "rows W"]:
        """Bring one of so many rows of luma to the host, and wait for them."""
        shape = (-(-surface.height // every), surface.width)
        if self._rows.shape != shape:
            self._rows = self.device.pinned(shape, _UINT8)
        self._follow_the_decoder()
        luma = surface.frame.planes[0]
        source = Rows(luma.buffer_ptr, luma.line_size * every)
        to = Rows(self._rows.ctypes.data, surface.width)
        self.device.copy_rows_out(to, source, shape, self._stream)
        self._end().synchronize()
        return self._rows

    def close(self) -> None:
        """Let go of every picture, once its copy has ended."""
        until_s = time.monotonic() + _CLOSING_S
        with suppress(EngineError):  # a broken GPU copies nothing more
            while self._held and time.monotonic() < until_s:
                if self._held[0][1].happened():
                    self._held.popleft()
                else:
                    time.sleep(_POLL_S)
        self._held.clear()

    def _follow_the_decoder(self) -> None:
        written = self.device.event()
        written.record(self.device.legacy())
        self._stream.wait(written)

    def _end(self) -> Event:
        ended = self.device.event()
        ended.record(self._stream)
        return ended

    def _hold(self, frame: av.VideoFrame, ended: Event) -> None:
        """Hold a frame until its copy has ended, and let go of those whose copies have."""
        self._held.append((frame, ended))
        while len(self._held) > _MOST_HELD:
            self._held[0][1].synchronize()
            self._held.popleft()
        while self._held and self._held[0][1].happened():
            self._held.popleft()
