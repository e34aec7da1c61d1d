# SPDX-License-Identifier: Apache-2.0
"""FFmpeg's decoder of one stream, made from parameters."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import av
from av.codec.context import Flags
from av.codec.hwaccel import HWAccel

from pipeline.decoding.surface import AnyFrame
from pipeline.messages import CodecParameters

# Threads by frame are faster on many cores, but report a damaged packet some packets later, and
# PyAV cannot take the good pictures out of a decoder that does so while it is being emptied: how
# many were lost would depend on the number of cores.
_THREADS = "SLICE"
_OPTIONS = {"libdav1d": {"max_frame_delay": "1"}}  # the same for AV1
_MOST_PIXELS = 1 << 27  # a size beyond 16384 x 8192 is a fault of the file, and costs gigabytes

RawPacket: TypeAlias = "av.Packet[av.stream.Stream]"


class Context(Protocol):
    """What turns packets into pictures."""

    def decode(self, packet: "RawPacket | None") -> Sequence[AnyFrame]:
        """The pictures that a packet completes; without one, those that are held back.

        Raises:
            FFmpegError: the packet is damaged.
        """
        ...


def open_on_cpu(parameters: CodecParameters, *, live: bool) -> av.VideoCodecContext:
    """A decoder on the processor; live streams are many, so each keeps to one thread."""
    context = _made(parameters, None)
    if parameters.pixel_format is not None:
        context.pix_fmt = parameters.pixel_format
    context.thread_type, context.thread_count = _THREADS, int(live)
    return context


def open_on_device(parameters: CodecParameters, device: HWAccel) -> av.VideoCodecContext:
    """A decoder on a device, whose pictures tell where they really were made.

    Raises:
        FFmpegError: the device cannot be had.
    """
    context = _made(parameters, device)
    context.thread_count = 1  # of the processor; the device has its own
    return context


def _made(parameters: CodecParameters, device: HWAccel | None) -> av.VideoCodecContext:
    context = av.CodecContext.create(parameters.codec, "r", hwaccel=device)
    assert isinstance(context, av.VideoCodecContext)
    context.extradata = parameters.extradata or None
    context.width, context.height = parameters.width, parameters.height
    context.codec_tag = parameters.codec_tag
    context.bits_per_coded_sample = parameters.bits_per_coded_sample
    context.colorspace = parameters.color_space
    context.color_range = parameters.color_range
    context.reorder_depth = parameters.reorder_frames
    context.options = {"max_pixels": str(_MOST_PIXELS), **_OPTIONS.get(parameters.codec, {})}
    # Without it, frames that lack what they refer to vanish and nobody can count them.
    context.flags |= Flags.output_corrupt
    return context
