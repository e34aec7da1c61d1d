# SPDX-License-Identifier: Apache-2.0
"""Packets to frames: a decoder made from parameters, which need not be where the reader is."""

from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from heapq import heapify, heappop, heappush

import av

from pipeline.decoding.context import Context, RawPacket, open_on_cpu
from pipeline.decoding.deinterlace import Deinterlacer
from pipeline.decoding.hardware import Hardware, HardwareDecoder
from pipeline.decoding.images import IMAGE_CODEC, decode_image
from pipeline.decoding.surface import AnyFrame, on_host
from pipeline.messages import CodecParameters, Packet

_MOST_REORDERED = 16  # pictures that a decoder holds back at most
_NANOSECONDS = Fraction(1, 1_000_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedFrame:
    """A picture in the decoder's own pixel format, not yet turned upright."""

    frame: AnyFrame
    pts_ns: int | None
    corrupt: bool
    """Damaged, or made from pictures that are; to be counted, not to be looked at."""


class Undecodable(Exception):  # noqa: N818 - it concerns one packet, the stream goes on
    """The decoder refused a packet."""


class MediaDecoder:
    """FFmpeg's decoder of one video stream.

    Frames come in the order they are shown. Where packets have no time of presentation but one of
    decoding, as in an AVI, the frames get those times in their order. Interlaced frames are made
    whole.
    """

    def __init__(
        self, parameters: CodecParameters, *, live: bool, context: Context | None = None
    ) -> None:
        """Set up a decoder; on the processor if none is given."""
        self._context = context or open_on_cpu(parameters, live=live)
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
        raw: RawPacket = av.Packet(len(data))
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

    def _frames(self, packet: "RawPacket | None") -> list[DecodedFrame]:
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
        return self._beside(self._deinterlacer.push(on_host(woven.frame)))

    def _beside(self, frames: list[av.VideoFrame]) -> list[DecodedFrame]:
        return [replace(self._woven.popleft(), frame=frame) for frame in frames]

    def _time_ns(self, frame: AnyFrame) -> int | None:
        if frame.pts is not None or not self._decoding_ns:
            return frame.pts
        while len(self._decoding_ns) > _MOST_REORDERED:  # packets that gave no frame
            heappop(self._decoding_ns)
        return heappop(self._decoding_ns)

    def _is_hidden(self, frame: AnyFrame) -> bool:
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


def make_decoder(
    parameters: CodecParameters, *, live: bool, hardware: Hardware | None = None
) -> Decoder:
    """The decoder for these parameters, on a GPU where one is to be used and can."""
    if parameters.codec == IMAGE_CODEC:
        return ImageDecoder()
    if hardware is None:
        return MediaDecoder(parameters, live=live)
    context = HardwareDecoder(parameters, hardware, live=live)
    return MediaDecoder(parameters, live=live, context=context)
