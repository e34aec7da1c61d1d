# SPDX-License-Identifier: Apache-2.0
"""Decoding on an NVIDIA GPU (NVDEC) while that really happens, and on the processor while not.

FFmpeg goes over to the processor without a word, and PyAV's `is_hwaccel` stays true then. So each
picture is asked where it was made. One that the GPU made stays there where an engine of this
process reads it there (`pipeline/decoding/surface.py`). Else it is brought to the host at once:
everyone reads it there as any other, and the decoder's few surfaces are free again.

With a GPU this has never run.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import av
from av.codec.hwaccel import HWAccel

from pipeline.decoding.context import RawPacket, open_on_cpu, open_on_device
from pipeline.decoding.surface import AnyFrame, Surface, SurfaceReader, downloaded
from pipeline.messages import CodecParameters, DecoderKind

FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 600.0
MOST_FAULTS: Final = 8
"""Packets in a row that fail on the GPU before the processor has a try."""
_ON_GPU: Final = "cuda"


@dataclass(frozen=True, slots=True)
class MadeBy:
    """Who decodes a stream."""

    kind: DecoderKind
    reason: str = ""
    """Why it is the processor."""
    lost: bool = False
    """Whether the GPU did before."""


class HardwareWatch:
    """Where a stream's pictures really come from, and when the GPU is to be tried.

    It knows no decoder and hears what came of one. After a loss the GPU is tried again, after
    pauses that grow, where the stream is one that may begin anew at a keyframe.
    """

    def __init__(self, *, retries: bool, now_s: Callable[[], float] = time.monotonic) -> None:
        self.made_by: MadeBy | None = None
        """None before the first picture or refusal."""
        self._retries = retries
        self._now_s = now_s
        self._asked = False
        """Whether the GPU is to decode what comes now."""
        self._asked_s = 0.0
        self._again_s = -math.inf
        self._pause_s = FIRST_PAUSE_S
        self._num_faults = 0
        self._untold = False

    @property
    def wants_gpu(self) -> bool:
        """Whether the GPU is to decode from the next keyframe on."""
        return self._asked or self._now_s() >= self._again_s

    def on_opened(self) -> None:
        """Hear that a decoder on the GPU was made."""
        self._asked, self._asked_s, self._num_faults = True, self._now_s(), 0

    def on_refused(self, reason: str) -> None:
        """Hear that none could be made."""
        self._give_up(reason)

    def on_picture(self, kind: DecoderKind) -> None:
        """Hear who made a picture."""
        if not self._asked:
            return  # the last of a decoder that was given up
        self._num_faults = 0
        if kind == "cpu":
            self._give_up("FFmpeg went over to the processor")
        else:
            self._note(MadeBy(kind))

    def on_fault(self) -> None:
        """Hear that a packet could not be decoded."""
        self._num_faults += 1
        if self._asked and self._num_faults == MOST_FAULTS:
            self._give_up(f"{MOST_FAULTS} packets in a row failed on the GPU")

    def news(self) -> MadeBy | None:
        """Who decodes, the first time after that has changed."""
        untold, self._untold = self._untold, False
        return self.made_by if untold else None

    def _give_up(self, reason: str) -> None:
        now_s = self._now_s()
        if self._asked and now_s - self._asked_s > LONGEST_PAUSE_S:
            self._pause_s = FIRST_PAUSE_S  # it went well for long
        self._asked = False
        self._again_s = now_s + self._pause_s if self._retries else math.inf
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        lost = self.made_by is not None and self.made_by.kind != "cpu"
        self._note(MadeBy("cpu", reason, lost))

    def _note(self, made_by: MadeBy) -> None:
        before = self.made_by
        if before is None or before.kind != made_by.kind:
            self.made_by, self._untold = made_by, True


@dataclass(slots=True)
class Hardware:
    """What a stream's decoders are told of the GPU."""

    device: int
    watch: HardwareWatch
    reader: SurfaceReader | None = None
    """Reads pictures that stay on the GPU; None while they are brought to the host."""


class HardwareDecoder:
    """Stands in the place of FFmpeg's decoder of one stream, on the GPU or on the processor.

    From one to the other it goes at a keyframe, once the one before has given all it held: where
    nothing after a keyframe refers to what was before it, no picture is lost.
    """

    def __init__(self, parameters: CodecParameters, hardware: Hardware, *, live: bool) -> None:
        self._parameters = parameters
        self._hardware = hardware
        self._watch = hardware.watch
        self._live = live
        self._ready: list[AnyFrame] = []
        """Pictures that a packet which failed left behind."""
        context = self._opened_on_gpu() if self._watch.wants_gpu else None
        self._is_on_gpu = context is not None
        self._context = context or open_on_cpu(parameters, live=live)

    def decode(self, packet: "RawPacket | None") -> list[AnyFrame]:
        """The pictures that a packet completes; without one, those that are held back.

        Raises:
            FFmpegError: the packet is damaged.
        """
        if packet is not None and packet.is_keyframe:
            self._go_over()
        self._ready += self._pictures(packet)
        ready, self._ready = self._ready, []
        return ready

    def _go_over(self) -> None:
        """Let another decoder begin here, if the one at work is not the one wanted."""
        context: av.VideoCodecContext | None = None
        if self._watch.wants_gpu and not self._is_on_gpu:
            context = self._opened_on_gpu()
            on_gpu = True
        elif self._is_on_gpu and not self._watch.wants_gpu:
            context = open_on_cpu(self._parameters, live=self._live)
            on_gpu = False
        if context is not None:
            self._ready += self._pictures(None)
            self._context, self._is_on_gpu = context, on_gpu

    def _opened_on_gpu(self) -> av.VideoCodecContext | None:
        try:
            device = HWAccel(
                _ON_GPU,
                device=str(self._hardware.device),
                allow_software_fallback=True,
                is_hw_owned=True,
            )
            context = open_on_device(self._parameters, device)
        except (av.error.FFmpegError, RuntimeError, TypeError) as error:
            self._watch.on_refused(f"no decoder on the GPU: {_said(error)}")
            return None
        if not context.is_hwaccel:
            self._watch.on_refused(f"no GPU decodes {self._parameters.codec}")
            return None
        self._watch.on_opened()
        return context

    def _pictures(self, packet: "RawPacket | None") -> list[AnyFrame]:
        try:
            return [self._kept(frame) for frame in self._context.decode(packet)]
        except av.error.FFmpegError:
            self._watch.on_fault()
            if packet is None:
                return []  # what it held is lost with it
            raise

    def _kept(self, frame: av.VideoFrame) -> AnyFrame:
        """The picture where it is to be read, after hearing where it was made."""
        if frame.format.name != _ON_GPU:
            if self._is_on_gpu:
                self._watch.on_picture("cpu")
                self._is_on_gpu = False
            return frame
        self._watch.on_picture("nvdec")
        reader = self._hardware.reader
        return downloaded(frame) if reader is None else Surface(frame, reader)


def _said(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).lower()
