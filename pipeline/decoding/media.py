# SPDX-License-Identifier: Apache-2.0
"""Containers and RTSP streams opened with PyAV: facts about the video, then its packets.

Packets leave here as bytes and times, so that the decoder may run in another thread, process or
host than the reader that has to keep the socket empty.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.decoding.inputs import Source
from pipeline.decoding.redaction import redact
from pipeline.errors import SourceError, SourceLost, SourceUnreadable
from pipeline.messages import CodecParameters

_MOST_NS = 2**62  # 146 years; a time beyond it is a fault of the file


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What a container says about its video before a packet is read."""

    parameters: CodecParameters
    num_frames: int
    """0 where the container does not say."""
    frame_rate: float
    duration_s: float
    """0 where the container does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPacket:
    """One compressed picture."""

    data: bytes
    pts_ns: int | None
    dts_ns: int | None
    keyframe: bool
    hidden: bool
    """Needed to decode what follows, but not to be shown."""
    corrupt: bool
    """Damaged on its way here."""
    captured_ns: int


class Reader(Protocol):
    """An open source of packets."""

    facts: MediaFacts

    def packets(self) -> Iterator[RawPacket]:
        """The packets in the order of the source; a failure on the way is a `SourceError`."""
        ...

    def close(self) -> None: ...


class MediaReader:
    """The first video stream of a file or an RTSP address."""

    def __init__(self, source: Source, *, rtsp_transport: str = "tcp", timeout_s: float = 5.0):
        """Open the source.

        Raises:
            SourceUnreadable: it will not be readable the next time either.
            SourceLost: a live source does not answer.
        """
        self._source = source
        if source.live:
            self._container = self._open_live(rtsp_transport, timeout_s)
            rotation_deg = 0
        else:
            self._container = _open_file(source)
            rotation_deg = _rotation_deg(source)
        try:
            self._stream = _video_stream(source, self._container)
            self.facts = _facts(self._container, self._stream, rotation_deg)
        except SourceError:
            self._container.close()
            raise

    def packets(self) -> Iterator[RawPacket]:
        """The packets in the order of the source.

        Raises:
            SourceLost: a live source broke off; a live source never simply ends.
            SourceUnreadable: a file is damaged from here on.
        """
        count, place = 0, 0
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    count, place = count + 1, (packet.dts or 0) + 1
                    yield _raw(packet)
        except av.error.FFmpegError as error:
            raise _translated(self._source, error, "broke off") from error
        if self._source.live:
            raise SourceLost(f"{self._source.label}: the stream ended")
        if self._container.format.name == "avi":
            # An AVI declares places; a picture that repeats the one before takes one without data.
            missing = max(0, self.facts.num_frames - place)
            self.facts = replace(self.facts, num_frames=count + missing)

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    def _open_live(self, rtsp_transport: str, timeout_s: float) -> InputContainer:
        options = {
            "rtsp_transport": rtsp_transport,
            "fpsprobesize": "0",  # the default guesses the frame rate for 5 s
            "timeout": str(int(timeout_s * 1e6)),
        }
        try:
            return av.open(self._source.location, options=options, timeout=(timeout_s * 2, None))
        except av.error.FFmpegError as error:
            raise _translated(self._source, error, "cannot be opened") from error


def _open_file(source: Source) -> InputContainer:
    path = Path(source.location)
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise SourceUnreadable(f"{source.label}: the file is empty (0 bytes); copy it again")
        # A path from the root: FFmpeg takes `12:30.mp4` for the protocol `12`.
        return av.open(str(path.absolute()), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise _translated(source, error, "cannot be opened") from error


def _video_stream(source: Source, container: InputContainer) -> VideoStream:
    if container.format.name == "tty":  # FFmpeg takes any text for a film of letters
        raise SourceUnreadable(f"{source.label}: a text file and no video; name another")
    pictures = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & pictures:
            if stream.codec_context is None:
                raise SourceUnreadable(
                    f"{source.label}: no decoder for its video; convert it to H.264"
                )
            return stream
    others = (s for s in container.streams if not isinstance(s, VideoStream))
    kinds = ", ".join(sorted({stream.type for stream in others})) or "nothing"
    raise SourceUnreadable(f"{source.label}: no video stream in it, only {kinds}; name another")


def _facts(container: InputContainer, stream: VideoStream, rotation_deg: int) -> MediaFacts:
    context = stream.codec_context
    rate = stream.average_rate or stream.guessed_rate
    duration_s = 0.0
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / 1e6
    return MediaFacts(
        parameters=CodecParameters(
            codec=context.name,
            width=context.width,
            height=context.height,
            pixel_format=context.pix_fmt,
            codec_tag=_codec_tag(context),
            color_space=context.colorspace,
            color_range=context.color_range,
            reorder_frames=context.reorder_depth,
            bits_per_coded_sample=context.bits_per_coded_sample,
            extradata=context.extradata or b"",
            rotation_deg=rotation_deg,
        ),
        num_frames=stream.frames,
        frame_rate=float(rate) if rate else 0.0,
        duration_s=duration_s,
    )


def _rotation_deg(source: Source) -> int:
    """How the file wants its pictures turned; only a decoded frame tells."""
    try:
        with _open_file(source) as probe:
            stream = _video_stream(source, probe)
            stream.thread_type = "NONE"
            return next((frame.rotation for frame in probe.decode(stream)), 0)
    except (av.error.FFmpegError, SourceError):
        return 0  # what is wrong with the file is said where it is read


def _raw(packet: "av.Packet[VideoStream]") -> RawPacket:
    return RawPacket(
        data=bytes(packet),
        pts_ns=_nanoseconds(packet.pts, packet.time_base),
        dts_ns=_nanoseconds(packet.dts, packet.time_base),
        keyframe=packet.is_keyframe,
        hidden=packet.is_discard,
        corrupt=packet.is_corrupt,
        captured_ns=time.monotonic_ns(),
    )


def _nanoseconds(ticks: int | None, base: Fraction) -> int | None:
    nanoseconds = None if ticks is None else round(ticks * base * 1_000_000_000)
    return nanoseconds if nanoseconds is None or abs(nanoseconds) < _MOST_NS else None


def _codec_tag(context: VideoCodecContext) -> str:
    try:
        return context.codec_tag
    except UnicodeDecodeError:  # PyAV knows only tags of letters, as almost all are
        return "\0\0\0\0"


def _translated(source: Source, error: Exception, what: str) -> SourceError:
    """The error in our words; FFmpeg's own text may hold the address with its password."""
    reason = redact(getattr(error, "strerror", None) or type(error).__name__)
    match error:
        case av.error.HTTPUnauthorizedError() | av.error.HTTPForbiddenError():
            return SourceUnreadable(f"{source.label}: wrong user name or password")
        case av.error.HTTPNotFoundError():
            return SourceUnreadable(f"{source.label}: no such path on the camera")
        case av.error.InvalidDataError() | av.error.EOFError() if not source.live:
            return SourceUnreadable(
                f"{source.label}: {what}: not a video that can be read ({reason}); "
                "it may be cut off or of another kind"
            )
        case _ if source.live:
            return SourceLost(f"{source.label}: {what} ({reason})")
    return SourceUnreadable(f"{source.label}: {what} ({reason})")
