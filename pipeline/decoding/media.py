# SPDX-License-Identifier: Apache-2.0
"""Containers and streams of cameras opened with PyAV: facts about the video, then its packets.

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
from pipeline.errors import SourceError, SourceForbidden, SourceLost, SourceUnreadable
from pipeline.messages import CodecParameters, Packet

OPEN_FACTOR = 2
"""Opening a live source takes several answers, so it may take so many times the time limit."""

_SLACK_S = 0.5  # the last picture may be shown for longer than the others
_MOST_RATE = 1000.0  # frames a second, and seconds a frame
_MOST_ASPECT = 4.0  # of a pixel's sides; more is a fault of the file
_MOST_NS = 2**62  # 146 years; a time beyond it is a fault of the file
_UNTIMED = {"mpjpeg", "mjpeg"}  # formats whose times FFmpeg makes up, as 25 pictures a second


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What a container says about its video before a packet is read."""

    parameters: CodecParameters
    num_frames: int
    """0 where the container does not say."""
    frame_rate: float
    """0 where the container does not say."""
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

    def header(self, stream: str, number: int) -> Packet:
        """What is said of it beside its bytes, as the `number`th packet of a stream."""
        return Packet(
            stream=stream,
            frame_index=number,
            pts_ns=self.pts_ns,
            dts_ns=self.dts_ns,
            keyframe=self.keyframe,
            hidden=self.hidden,
            corrupt=self.corrupt,
            captured_ns=self.captured_ns,
        )


class Reader(Protocol):
    """An open source of packets."""

    facts: MediaFacts

    def packets(self) -> Iterator[RawPacket]:
        """The packets in the order of the source; a failure on the way is a `SourceError`."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Progress:
    """How far a file was read."""

    num_packets: int = 0
    end_s: float = 0.0
    """When the last picture in the order of the show was over."""
    longest_gap_s: float = 0.0
    _place: int = -1
    """The last packet's place in the order of decoding."""
    _step: int = 1
    """How far it lies from the one before."""

    def note(self, packet: "av.Packet[VideoStream]") -> None:
        """Take a packet into account."""
        self.num_packets += 1
        if packet.dts is not None:
            self._step, self._place = max(1, packet.dts - self._place), packet.dts
        if packet.pts is not None:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            if self.num_packets > 1:
                self.longest_gap_s = max(self.longest_gap_s, end_s - self.end_s)
            self.end_s = max(self.end_s, end_s)

    def num_missing(self, num_places: int) -> int:
        """Pictures that lack where an AVI declares so many places.

        A picture that repeats the one before takes a place without data, and a file may have more
        places than pictures a second throughout.
        """
        return max(0, num_places - self._place - self._step) // self._step


class MediaReader:
    """The first video stream of a file, an address or a camera on this machine."""

    def __init__(self, source: Source, *, rtsp_transport: str = "tcp", timeout_s: float = 5.0):
        """Open the source.

        Raises:
            SourceUnreadable: it will not be readable the next time either.
            SourceLost: a live source does not answer.
        """
        self._source = source
        if source.live:
            transport = source.camera.transport or rtsp_transport
            self._container = self._open_live(transport, timeout_s)
            rotation_deg = 0
        else:
            self._container = _open_file(source)
            rotation_deg = _rotation_deg(source)
        try:
            self._stream = video_stream(source, self._container)
            self.facts = facts_of(self._container, self._stream, rotation_deg)
        except SourceError:
            self._container.close()
            raise

    def packets(self) -> Iterator[RawPacket]:
        """The packets in the order of the source.

        Raises:
            SourceLost: a live source broke off; a live source never simply ends.
            SourceUnreadable: a file is damaged from here on.
        """
        progress = _Progress()
        try:
            for packet in self._demuxed():
                if packet.size:
                    progress.note(packet)
                    yield self._raw(packet)
        except av.error.FFmpegError as error:
            raise _translated(self._source, error, "broke off") from error
        if self._source.live:
            raise SourceLost(f"{self._source.label}: the stream ended")
        if self._is_avi:
            missing = progress.num_missing(self.facts.num_frames)
            self.facts = replace(self.facts, num_frames=progress.num_packets + missing)
        if "matroska" in self._container.format.name:
            self._refuse_early_end(progress)

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    @property
    def _is_avi(self) -> bool:
        return self._container.format.name == "avi"

    def _demuxed(self) -> "Iterator[av.Packet[VideoStream]]":
        try:
            yield from self._container.demux(self._stream)
        except IndexError:
            # PyAV, after the last packet, where damage made streams appear that were not there
            # when the file was opened.
            return

    def _raw(self, packet: "av.Packet[VideoStream]") -> RawPacket:
        raw = raw_packet(packet)
        if self._is_avi:  # FFmpeg makes up times of presentation, in the order of decoding
            return replace(raw, pts_ns=None)
        if self._container.format.name in _UNTIMED and self._source.live:
            return replace(raw, pts_ns=raw.captured_ns, dts_ns=raw.captured_ns)
        return raw

    def _refuse_early_end(self, progress: "_Progress") -> None:
        """Notice a Matroska file that ends before its time: it declares no number of frames."""
        declared_s = _video_duration_s(self._container, self._stream)
        slack_s = max(_SLACK_S, progress.longest_gap_s)
        if progress.end_s < declared_s - slack_s:
            raise SourceUnreadable(
                f"{self._source.label}: ends at {progress.end_s:.2f} s of the {declared_s:.2f} s "
                "it declares; the file is cut off or damaged, copy it again"
            )

    def _open_live(self, rtsp_transport: str, timeout_s: float) -> InputContainer:
        options = {
            "fpsprobesize": "0",  # the default guesses the frame rate for 5 s
            "timeout": str(int(timeout_s * 1e6)),
        }
        match self._source.kind:
            case "rtsp":
                # no word of the others: silence shows as silence
                options |= {"rtsp_transport": rtsp_transport, "allowed_media_types": "video"}
            case "http":  # what is there must not send us on to a file
                options |= {"protocol_whitelist": "http,https,tcp,tls"}
            case _:
                options = {}
        device = self._source.kind == "device"
        # The option ends waiting for the socket; the limits, waiting for a packet while the
        # socket has something else to say.
        limits_s = (timeout_s * OPEN_FACTOR, timeout_s)
        try:
            return av.open(
                self._source.location,
                format="v4l2" if device else None,
                options=options,
                timeout=limits_s,
            )
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


def raw_packet(packet: "av.Packet[VideoStream]") -> RawPacket:
    """A packet as bytes and times."""
    return RawPacket(
        data=bytes(packet),
        pts_ns=_nanoseconds(packet.pts, packet.time_base),
        dts_ns=_nanoseconds(packet.dts, packet.time_base),
        keyframe=packet.is_keyframe,
        hidden=packet.is_discard,
        corrupt=packet.is_corrupt,
        captured_ns=time.monotonic_ns(),
    )


def video_stream(source: Source, container: InputContainer) -> VideoStream:
    """The first stream of a container that is video and no cover picture.

    Raises:
        SourceUnreadable: there is none that can be decoded.
    """
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


def facts_of(container: InputContainer, stream: VideoStream, rotation_deg: int) -> MediaFacts:
    """What a container says about a video stream."""
    context = stream.codec_context
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
            pixel_aspect=_pixel_aspect(stream),
        ),
        num_frames=stream.frames,
        frame_rate=_frame_rate(stream),
        duration_s=max(0.0, duration_s),
    )


def _frame_rate(stream: VideoStream) -> float:
    """Frames a second; 0 where the file says nothing or nonsense, as ticks for frames."""
    rates = (float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate)
    return next((rate for rate in rates if 1 / _MOST_RATE <= rate <= _MOST_RATE), 0.0)


def _pixel_aspect(stream: VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT else 1.0


def _rotation_deg(source: Source) -> int:
    """How the file wants its pictures turned; only a decoded frame tells."""
    try:
        with _open_file(source) as probe:
            stream = video_stream(source, probe)
            stream.thread_type = "NONE"
            return next((frame.rotation for frame in probe.decode(stream)), 0)
    except (av.error.FFmpegError, SourceError):
        return 0  # what is wrong with the file is said where it is read


def _video_duration_s(container: InputContainer, stream: VideoStream) -> float:
    """When a Matroska file says that its video ends; 0 where that is not certain."""
    told = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = map(float, told.split(":"))
    except ValueError:
        alone = len(container.streams) == 1  # else the file may last as long as its sound
        return (container.duration or 0) / 1e6 if alone else 0.0
    return hours * 3600 + minutes * 60 + seconds


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
            return SourceForbidden(f"{source.label}: wrong user name or password")
        case av.error.HTTPNotFoundError():
            return SourceUnreadable(f"{source.label}: no such path on the camera")
        case av.error.ExitError():
            return SourceLost(f"{source.label}: {what} (silent for too long)")
        case av.error.InvalidDataError() | av.error.EOFError() if not source.live:
            return SourceUnreadable(
                f"{source.label}: {what}: not a video that can be read ({reason}); "
                "it may be cut off or of another kind"
            )
        case _ if source.live:
            return SourceLost(f"{source.label}: {what} ({reason})")
    return SourceUnreadable(f"{source.label}: {what} ({reason})")
