# SPDX-License-Identifier: Apache-2.0
"""Annotated pictures as an H.264 MP4, with the source's sound.

The file is fragmented while it is written, so what a killed process leaves plays up to its last
whole fragment (1 s); each is sent to the disk at once, so that a power cut takes hardly more.
Finishing turns it into an ordinary, seekable MP4 (docs/decisions/0019). Pictures keep their
distances in time, also where the frame rate varies; the first one is at 0.
"""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from jaxtyping import UInt8

from pipeline.errors import SinkError
from pipeline.nv12 import Matrix
from pipeline.sinks.audio import open_audio
from pipeline.sinks.canvas import Canvas
from pipeline.sinks.encoders import X264, Encoder
from pipeline.sinks.partial import PartialFile, partial_path, publish, reported

logger = logging.getLogger(__name__)

_TAGS: Final[dict[Matrix, int]] = {"bt601": 6, "bt709": 1}
"""As H.264 counts matrices, primaries and transfers alike; 6 is smpte170m."""
_TICKS: Final = 90_000
"""Ticks a second: every usual frame rate falls on whole ones."""
_FRAGMENT_S: Final = 1
_KEYFRAME_S: Final = 2
_MUXER: Final = {
    "movflags": "hybrid_fragmented+delay_moov+default_base_moof",
    "frag_duration": str(_FRAGMENT_S * 1_000_000),  # us
    "flush_packets": "1",
    "strict": "experimental",  # sound that is rare in MP4, as MP3 at 8 kHz
    "max_interleave_delta": "1000000",  # us; sound that ends early holds back no pictures
}


class Mp4Writer:
    """Writes one stream's pictures."""

    def __init__(
        self,
        path: Path,
        *,
        picture_hw: tuple[int, int],
        matrix: Matrix,
        frame_rate: Fraction,
        audio_from: Path | None = None,
        encoder: Encoder = X264,
    ) -> None:
        """Open the file.

        Args:
            path: Final name of the file.
            picture_hw: Height and width of the video in pixels; odd ones grow by one.
            matrix: What the pictures' colours went through, for the player to undo.
            frame_rate: Nominal rate: how long the last picture lasts, how often keyframes come.
            audio_from: File whose first sound is kept, on the same timeline as the pictures' pts.
            encoder: Who encodes the pictures.
        """
        if frame_rate <= 0:
            raise ValueError(f"frame_rate must be positive, got {frame_rate}")
        self._path = path
        self._canvas = Canvas(picture_hw)
        self._frame_ticks = max(1, round(_TICKS / frame_rate))
        self._origin_ns: int | None = None
        """Time of the output's zero; None before the first picture."""
        self._last_tick = -1
        self._intact = True
        """Whether all writes succeeded; FFmpeg crashes when it goes on after one that did not."""
        with reported(path):
            self._file = PartialFile(path)
            self._container = av.open(self._file, "w", format="mp4", options=dict(_MUXER))
            self._video = self._add_video(frame_rate, matrix, encoder)
            self._audio = open_audio(audio_from, self._container) if audio_from else None

    def write(self, picture: UInt8[np.ndarray, "rows W"], pts_ns: int) -> None:
        """Add a picture (NV12 of the file's matrix); its memory is free when this returns.

        Args:
            picture: One of another size is fitted in between black bars.
            pts_ns: Its presentation time; a picture not later than the one before follows it by
                one tick, and after a jump back of over a second by one frame.
        """
        frame = self._canvas.frame(picture)
        frame.pts = self._last_tick = self._tick(pts_ns)
        frame.time_base = Fraction(1, _TICKS)
        self._intact = False
        with reported(self._path):
            self._encode(frame)
            self._copy_audio(until_tick=self._last_tick)
        self._intact = True

    def finish(self) -> None:
        """Complete the file; without any picture there is none."""
        with reported(self._path):
            whole = self._close()
            if self._origin_ns is None:
                partial_path(self._path).unlink()
            elif whole:
                publish(self._path)
        if not whole:
            raise SinkError(f"{self._path}: is incomplete: writing failed; kept as *.partial")

    def abandon(self) -> None:
        """Close the file under its temporary name, as far as it goes."""
        try:
            with reported(self._path):
                self._close()
        except SinkError as failure:
            logger.warning("%s", failure)

    def _add_video(self, frame_rate: Fraction, matrix: Matrix, encoder: Encoder) -> VideoStream:
        options = dict(encoder.options)
        stream = self._container.add_stream(encoder.name, rate=frame_rate, options=options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.height, context.width = self._canvas.hw
        context.pix_fmt = "nv12"  # how encoders keep pictures, so they only copy
        context.time_base = Fraction(1, _TICKS)
        context.gop_size = min(max(1, round(_KEYFRAME_S * frame_rate)), 250)
        context.thread_count = encoder.threads
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _TAGS[matrix]
        return stream

    def _tick(self, pts_ns: int) -> int:
        """Time of the next picture in the output, later than the last one's."""
        if self._origin_ns is None:
            self._origin_ns = pts_ns
        tick = round(Fraction(pts_ns - self._origin_ns, 1_000_000_000) * _TICKS)
        if tick < self._last_tick - _TICKS:
            tick = self._last_tick + self._frame_ticks
            self._origin_ns = pts_ns - tick * 1_000_000_000 // _TICKS
        return max(tick, self._last_tick + 1)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        for packet in self._video.encode(frame):
            packet.duration = self._frame_ticks
            self._container.mux(packet)
            self._file.sync_soon()  # writes come a whole fragment at a time

    def _copy_audio(self, *, until_tick: int) -> None:
        if self._audio is not None and self._origin_ns is not None:
            origin = Fraction(self._origin_ns, 1_000_000_000)
            self._audio.copy(origin=origin, until=origin + Fraction(until_tick, _TICKS))

    def _close(self) -> bool:
        """Write what is still to come, and close; return whether the file holds everything."""
        whole, self._intact = self._intact, False
        try:
            if whole and self._origin_ns is not None:
                self._encode(None)
                self._copy_audio(until_tick=self._last_tick + self._frame_ticks)
                self._container.close()
        finally:
            if self._audio is not None:
                self._audio.close()
            self._file.close()
        return whole
