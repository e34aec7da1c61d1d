# SPDX-License-Identifier: Apache-2.0
"""Packets to frames: a decoder made from parameters, which need not be where the reader is."""

from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from heapq import heapify, heappop, heappush

import av
from av.codec.context import Flags

from pipeline.decoding.deinterlace import Deinterlacer
from pipeline.decoding.images import IMAGE_CODEC, decode_image
from pipeline.messages import CodecParameters, Packet

# Threads by frame are faster on many cores, but report a damaged packet some packets later, and
# PyAV cannot take the good pictures out of a decoder that does so while it is being emptied: how
# many were lost would depend on the number of cores.
_THREADS = "SLICE"
_OPTIONS = {"libdav1d": {"max_frame_delay": "1"}}  # the same for AV1
_MOST_PIXELS = 1 << 27  # a size beyond 16384 x 8192 is a fault of the file, and costs gigabytes
_MOST_REORDERED = 16  # pictures that a decoder holds back at most
_NANOSECONDS = Fraction(1, 1_000_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedFrame:
    """A picture in the decoder's own pixel format, not yet turned upright."""

    frame: av.VideoFrame
    pts_ns: int | None
    corrupt: bool
    """Damaged, or made from pictures that are; to be counted, not to be looked at."""


class Undecodable(Exception):  # noqa: N818 - it concerns one packet, the stream goes on
    """The decoder refused a packet."""


class MediaDecoder:
    """FFmpeg's software decoder of one video stream.

    Frames come in the order they are shown. Where packets have no time of presentation but one of
    decoding, as in an AVI, the frames get those times in their order. Interlaced frames are made
    whole.
    """

    def __init__(self, parameters: CodecParameters, *, live: bool) -> None:
        """Set up a decoder; live streams are many, so each keeps to one thread."""
        context = av.CodecContext.create(parameters.codec, "r")
        assert isinstance(context, av.VideoCodecContext)
        context.extradata = parameters.extradata or None
        context.width, context.height = parameters.width, parameters.height
        if parameters.pixel_format is not None:
            context.pix_fmt = parameters.pixel_format
        context.codec_tag = parameters.codec_tag
        context.bits_per_coded_sample = parameters.bits_per_coded_sample
        context.colorspace = parameters.color_space
        context.color_range = parameters.color_range
        context.reorder_depth = parameters.reorder_frames
        context.options = {"max_pixels": str(_MOST_PIXELS), **_OPTIONS.get(parameters.codec, {})}
        context.thread_type, context.thread_count = _THREADS, int(live)
        # Without it, frames that lack what they refer to vanish and nobody can count them.
        context.flags |= Flags.output_corrupt
        self._context = context
        self._hidden_ns: set[int] = set()
        self._decoding_ns: list[int] = []
        """A heap of the times of packets without time of presentation, until a frame takes them."""
        self._deinterlacer: Deinterlacer | None = None
        self._woven: deque[DecodedFrame] = deque()
        """What stands beside the frames that the deinterlacer holds."""

    def decode(self, packet: Packet, data: memoryview) -> list[DecodedFrame]:
        """The frames that this packet completes.

        Raises:
            Undecodable: the packet is damaged.
        """
        # A packet made from bytes lacks the padding that decoders read beyond the end.
        raw: av.Packet[av.stream.Stream] = av.Packet(len(data))
        raw.update(data)  # type: ignore[arg-type]  # the stub names bytes alone
        raw.time_base = _NANOSECONDS
        raw.pts, raw.dts = packet.pts_ns, packet.dts_ns
        raw.is_keyframe, raw.is_corrupt = packet.keyframe, packet.corrupt
        if packet.hidden and packet.pts_ns is not None:
            self._hidden_ns.add(packet.pts_ns)
        if packet.pts_ns is not None or packet.dts_ns is None:
            return self._frames(raw)
        heappush(self._decoding_ns, packet.dts_ns)
        try:
            return self._frames(raw)
        except Undecodable:
            self._decoding_ns.remove(packet.dts_ns)
            heapify(self._decoding_ns)
            raise

    def flush(self) -> list[DecodedFrame]:
        """The frames the decoder still holds."""
        try:
            frames = self._frames(None)
        except Undecodable:
            frames = []
        if self._deinterlacer is not None:
            frames += self._beside(self._deinterlacer.flush())
        return frames

    def _frames(self, packet: "av.Packet[av.stream.Stream] | None") -> list[DecodedFrame]:
        try:
            frames = self._context.decode(packet)
        except av.error.FFmpegError as error:
            raise Undecodable(error.strerror or str(error)) from error
        decoded = (
            DecodedFrame(frame=frame, pts_ns=self._time_ns(frame), corrupt=bool(frame.is_corrupt))
            for frame in frames
            if not self._is_hidden(frame)
        )
        return [whole for woven in decoded for whole in self._whole(woven)]

    def _whole(self, woven: DecodedFrame) -> list[DecodedFrame]:
        """The frames that are whole once this one is there; from the first interlaced one on."""
        if self._deinterlacer is None:
            if not woven.frame.interlaced_frame:
                return [woven]
            self._deinterlacer = Deinterlacer()
        self._woven.append(woven)
        return self._beside(self._deinterlacer.push(woven.frame))

    def _beside(self, frames: list[av.VideoFrame]) -> list[DecodedFrame]:
        return [replace(self._woven.popleft(), frame=frame) for frame in frames]

    def _time_ns(self, frame: av.VideoFrame) -> int | None:
        if frame.pts is not None or not self._decoding_ns:
            return frame.pts
        while len(self._decoding_ns) > _MOST_REORDERED:  # packets that gave no frame
            heappop(self._decoding_ns)
        return heappop(self._decoding_ns)

    def _is_hidden(self, frame: av.VideoFrame) -> bool:
        if frame.pts not in self._hidden_ns:
            return False
        self._hidden_ns.discard(frame.pts)
        return True


class ImageDecoder:
    """Whole image files."""

    def decode(self, packet: Packet, data: memoryview) -> list[DecodedFrame]:
        """The image.

        Raises:
            Undecodable: the file is no image or is cut off.
        """
        try:
            frame = decode_image(data)
        except ValueError as error:
            raise Undecodable(str(error)) from error
        return [DecodedFrame(frame=frame, pts_ns=packet.pts_ns, corrupt=False)]

    def flush(self) -> list[DecodedFrame]:
        """Nothing is held back."""
        return []


Decoder = MediaDecoder | ImageDecoder


def make_decoder(parameters: CodecParameters, *, live: bool) -> Decoder:
    """The decoder for these parameters."""
    if parameters.codec == IMAGE_CODEC:
        return ImageDecoder()
    return MediaDecoder(parameters, live=live)
