# SPDX-License-Identifier: Apache-2.0
"""The sound of a source file, carried into an MP4 as its pictures advance.

Packets are copied as they are where MP4 players know the codec, and encoded to AAC otherwise. Sound
that cannot be read is left out with a warning: it never stops a video.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard

logger = logging.getLogger(__name__)

_COPIED: Final = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"})


_AAC_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

if TYPE_CHECKING:
    AudioPacket = Packet[AudioStream]
else:
    AudioPacket = Packet  # takes no type argument at run time


def open_audio(source: Path, output: OutputContainer) -> "Audio | None":
    """Give `output` a stream for the first sound of `source`, or return None without any."""
    try:
        container = av.open(str(source), metadata_errors="replace")
    except (OSError, av.FFmpegError) as failure:
        logger.warning("%s: sound is left out: %s", source, failure.strerror)
        return None
    if not container.streams.audio:
        container.close()
        return None
    try:
        return Audio(source, container, output)
    except (OSError, ValueError, IndexError, av.FFmpegError) as failure:
        logger.warning("%s: sound is left out: %s", source, failure)
        container.close()
        return None


class Audio:
    """The first audio stream of a file, read no further than the pictures have come."""

    def __init__(self, source: Path, container: InputContainer, output: OutputContainer) -> None:
        self._source = source
        self._container = container
        self._output = output
        for stream in container.streams:
            stream.discard = Discard.all
        incoming = container.streams.audio[0]
        incoming.discard = Discard.default
        if incoming.codec_context is None:
            raise ValueError("no decoder knows its codec")
        copies = incoming.codec_context.codec.canonical_name in _COPIED
        self._unpack = _unpacking(incoming) if copies else None
        self._packets = (_copied if copies else _encoded)(container, incoming, output)
        self._pending = next(self._packets, None)
        self._last_pts: int | None = None
        self._warned = False

    def copy(self, *, origin: Fraction, until: Fraction) -> None:
        """Write the packets that lie between two times in seconds on the source's timeline.

        Args:
            origin: Time of the output's zero; packets from before it are left out, and so are
                those of a damaged source that go back in time, which the muxer refuses.
            until: Packets that end later wait for the next call.
        """
        while (packet := self._pending) is not None:
            assert packet.pts is not None  # the generators below let no other pass
            start = packet.pts * packet.time_base
            if start + (packet.duration or 0) * packet.time_base > until:
                return
            if start >= origin and (self._last_pts is None or packet.pts > self._last_pts):
                self._last_pts = packet.pts
                packet.pts -= round(origin / packet.time_base)
                packet.dts = packet.pts
                self._mux(packet)
            self._pending = self._next()

    def close(self) -> None:
        """Close the source."""
        self._packets.close()
        self._container.close()

    def _mux(self, packet: AudioPacket) -> None:
        stream, time_base = packet.stream, packet.time_base  # the filter takes the packet over
        for unpacked in self._unpacked(packet):
            unpacked.stream, unpacked.time_base = stream, time_base
            self._output.mux(unpacked)

    def _unpacked(self, packet: AudioPacket) -> Sequence[AudioPacket]:
        """The packet without the header that MP4 has elsewhere; none where it is damaged."""
        if self._unpack is None:
            return (packet,)
        try:
            return self._unpack.filter(packet)
        except av.FFmpegError as failure:
            if not self._warned:
                logger.warning("%s: sound has gaps: %s", self._source, failure.strerror)
            self._warned = True
            return ()

    def _next(self) -> AudioPacket | None:
        try:
            return next(self._packets, None)
        except av.FFmpegError as failure:
            logger.warning("%s: sound ends early: %s", self._source, failure.strerror)
        except IndexError:  # PyAV, at the end of a file in which damage made streams appear
            pass
        return None


def _unpacking(incoming: AudioStream) -> BitStreamFilterContext | None:
    """AAC of transport streams has a header in each packet, which MP4 has once."""
    context = incoming.codec_context
    if context.name == "aac" and not context.extradata:
        return BitStreamFilterContext("aac_adtstoasc", incoming)
    return None


def _copied(
    container: InputContainer, incoming: AudioStream, output: OutputContainer
) -> Generator[AudioPacket, None, None]:
    packets = (packet for packet in container.demux(incoming) if packet.pts is not None)
    first = next(packets, None)
    if first is None:
        return
    outgoing = output.add_stream_from_template(incoming)
    for packet in chain((first,), packets):
        packet.stream = outgoing
        yield packet


def _encoded(
    container: InputContainer, incoming: AudioStream, output: OutputContainer
) -> Generator[AudioPacket, None, None]:
    frames = container.decode(incoming)
    first = next(frames, None)  # an undecodable stream fails here, before it is in the output
    if first is None:
        return
    rate = first.rate if first.rate in _AAC_RATES else max(_AAC_RATES)
    layout = "stereo" if first.layout.nb_channels > 1 else "mono"
    outgoing = output.add_stream("aac", rate=rate, layout=layout)
    resampler = AudioResampler(format="fltp", layout=layout, rate=rate)
    for frame in chain((first,), frames, (None,)):
        for resampled in resampler.resample(frame):
            yield from _timed(outgoing.encode(resampled))
    yield from _timed(outgoing.encode(None))


def _timed(packets: list[AudioPacket]) -> Iterator[AudioPacket]:
    return (packet for packet in packets if packet.pts is not None)
