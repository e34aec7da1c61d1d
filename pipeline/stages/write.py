# SPDX-License-Identifier: Apache-2.0
"""The sinks: tracks and pictures into files, or into the hands of the caller.

A sink that is told to leave before its stream has ended keeps what it wrote as `*.partial`.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import msgspec

from pipeline.columns import tracks_from_buffers
from pipeline.messages import Drawn, Ended, Tracked
from pipeline.sinks.encoders import EncodedBy, pick_encoder
from pipeline.sinks.image import ImageWriter
from pipeline.sinks.jsonl import JsonlWriter
from pipeline.sinks.mot import MotWriter
from pipeline.sinks.mp4 import Mp4Writer
from pipeline.tracking.tracks import Tracks
from pipeline.transport.control import EncoderPicked
from pipeline.transport.ports import Ports


class TrackSink(Protocol):
    """Takes the tracks of one stream, frame after frame."""

    def write(self, frame: Tracked, tracks: Tracks) -> None: ...

    def finish(self) -> tuple[str, ...]:
        """Complete the output; returns what was written."""
        ...

    def abandon(self) -> None:
        """Leave what there is, marked as partial."""
        ...


class TextFiles:
    """MOT text and JSON lines side by side."""

    def __init__(self, mot: Path, jsonl: Path, classes: Sequence[str]) -> None:
        self._paths = (str(mot), str(jsonl))
        self._mot = MotWriter(mot)
        self._jsonl = JsonlWriter(jsonl, classes)

    def write(self, frame: Tracked, tracks: Tracks) -> None:
        """Add one frame to both."""
        self._mot.write(frame.frame_index, tracks)
        self._jsonl.write(frame.frame_index, frame.pts_ns, tracks, predicted=frame.predicted)

    def finish(self) -> tuple[str, ...]:
        """Give both their final names."""
        self._mot.finish()
        self._jsonl.finish()
        return self._paths

    def abandon(self) -> None:
        """Leave both as `*.partial`."""
        self._mot.abandon()
        self._jsonl.abandon()


class HandOver:
    """Calls a function with every frame's tracks, under the name its user gave the stream."""

    def __init__(self, take: Callable[[Tracked, Tracks], None], name: str) -> None:
        self._take = take
        self._name = name

    def write(self, frame: Tracked, tracks: Tracks) -> None:
        """Hand one frame over."""
        if frame.stream != self._name:
            frame = msgspec.structs.replace(frame, stream=self._name)
        self._take(frame, tracks)

    def finish(self) -> tuple[str, ...]:
        """Nothing was written."""
        return ()

    def abandon(self) -> None:
        """Nothing to leave."""


class WriteTracks:
    """Feeds a stream's tracks to a sink."""

    def __init__(self, open_sink: Callable[[], TrackSink]) -> None:
        self._open_sink = open_sink

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Write until the stream has ended."""
        wanted = 0
        sink = self._open_sink()
        try:
            while True:
                delivery = ports.receive("tracked")
                assert delivery is not None
                again = delivery.message.frame_index < wanted  # from a tracker's successor
                wanted = max(wanted, delivery.message.frame_index + 1)
                if isinstance(delivery.message, Tracked) and not again:
                    sink.write(delivery.message, tracks_from_buffers(delivery.buffers))
                if isinstance(delivery.message, Ended):
                    outputs = sink.finish()
                    delivery.acknowledge()
                    return outputs
                delivery.acknowledge()
        except BaseException:
            sink.abandon()
            raise


class WriteVideo:
    """Encodes a stream's annotated pictures."""

    def __init__(self, path: Path, *, audio_from: Path | None, encode: EncodedBy = "x264") -> None:
        self._path = path
        self._encode = encode
        self._audio_from = audio_from
        self._writer: Mp4Writer | None = None

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Encode until the stream has ended."""
        try:
            while True:
                delivery = ports.receive("drawn")
                assert delivery is not None
                match delivery.message:
                    case Drawn() as drawn:
                        pixels = ports.pools.view(drawn.picture)
                        if self._writer is None:
                            self._writer = self._open(ports, drawn)
                        self._writer.write(pixels, drawn.pts_ns)
                    case Ended():
                        outputs = self._finish()
                        delivery.acknowledge()
                        return outputs
                delivery.acknowledge()
        except BaseException:
            if self._writer is not None:
                self._writer.abandon()
            raise

    def _open(self, ports: Ports, first: Drawn) -> Mp4Writer:
        encoder = pick_encoder(self._encode, first.picture_hw)
        ports.report(EncoderPicked(name=encoder.name, reason=encoder.reason))
        return Mp4Writer(
            self._path,
            picture_hw=first.picture_hw,
            matrix=first.matrix,
            frame_rate=Fraction(1_000_000_000, first.duration_ns).limit_denominator(1001),
            audio_from=self._audio_from,
            encoder=encoder,
        )

    def _finish(self) -> tuple[str, ...]:
        if self._writer is None:
            return ()
        self._writer.finish()
        return (str(self._path),)


class WriteImage:
    """Writes the one annotated picture of an image."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Write the picture and wait for the end of the stream."""
        outputs: tuple[str, ...] = ()
        while True:
            delivery = ports.receive("drawn")
            assert delivery is not None
            if isinstance(delivery.message, Drawn):
                drawn = delivery.message
                writer = ImageWriter(self._path)
                pixels = ports.pools.view(drawn.picture)
                writer.write(pixels, picture_hw=drawn.picture_hw, matrix=drawn.matrix)
                writer.finish()
                outputs = (str(self._path),)
            delivery.acknowledge()
            if isinstance(delivery.message, Ended):
                return outputs
