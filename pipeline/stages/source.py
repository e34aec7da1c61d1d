# SPDX-License-Identifier: Apache-2.0
"""source: opens what the user named and sends its packets.

A file is read as fast as its packets are taken. A live source is read without a pause, so that
nothing waits in the camera's socket; what the decoder does not take in time is given up here, up
to a keyframe, and counted `late_packets`.
"""

import logging
import random
import time

from pipeline.config import SourceConfig
from pipeline.decoding.images import ImageReader
from pipeline.decoding.inputs import Source
from pipeline.decoding.media import MediaReader, RawPacket, Reader
from pipeline.decoding.ring import PacketRing
from pipeline.errors import SourceError, SourceLost
from pipeline.messages import Ended, Opened, Packet
from pipeline.metrics import Counters
from pipeline.transport.control import StreamFacts
from pipeline.transport.ports import Ports

logger = logging.getLogger(__name__)

_RING_BYTES = 64 << 20
_RETRY_FIRST_S, _RETRY_MOST_S = 0.25, 2.0
_RETRY_REFUSED_S = 30.0
STOPPED = "stopped before its end"


def open_reader(source: Source, config: SourceConfig) -> Reader:
    """Open a source of any kind.

    Raises:
        SourceError: it cannot be read.
    """
    if source.kind in ("image", "images"):
        return ImageReader(source, rate=config.image_rate)
    return MediaReader(source, rtsp_transport=config.rtsp_transport, timeout_s=config.timeout_s)


class ReadFile:
    """Reads a file, an image or a folder of images once, to its end."""

    def __init__(self, source: Source, config: SourceConfig, counters: Counters) -> None:
        self._source = source
        self._config = config
        self._counters = counters

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Send every packet, then how it ended."""
        name = self._source.name
        reader = open_reader(self._source, self._config)
        try:
            _announce(ports, name, reader)
            reason = self._read(ports, reader)
        finally:
            reader.close()
        count, declared = self._counters["packets"], reader.facts.num_frames
        if not reason and count < declared:
            reason = f"gave {count} of the {declared} frames it declares; the file is cut off"
        ports.send(
            "packets",
            Ended(stream=name, frame_index=count, complete=not reason, reason=reason),
        )
        ports.drain()
        return ()

    def _read(self, ports: Ports, reader: Reader) -> str:
        try:
            for raw in reader.packets():
                if ports.stopping:
                    return STOPPED
                _send(ports, self._source.name, raw, self._counters)
        except SourceError as error:
            return str(error)
        return ""


class ReadCamera:
    """Reads a live source until it is told to stop, and comes back to it for ever."""

    def __init__(self, source: Source, config: SourceConfig, counters: Counters) -> None:
        self._source = source
        self._config = config
        self._counters = counters
        self._ring = PacketRing(max_bytes=_RING_BYTES, staleness_ns=round(config.staleness_s * 1e9))

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Send packets; the first must come within `open_timeout_s`.

        Raises:
            SourceError: the source never gave a packet.
        """
        give_up_s = time.monotonic() + self._config.open_timeout_s
        pause_s = _RETRY_FIRST_S
        while not ports.stopping:
            before = self._counters["packets"]
            try:
                self._follow(ports)
            except SourceError as error:
                if self._counters["packets"] > before:
                    pause_s = _RETRY_FIRST_S
                self._counters.add("late_packets", self._ring.clear())
                if self._counters["packets"] == 0 and (
                    not isinstance(error, SourceLost) or time.monotonic() >= give_up_s
                ):
                    raise
                wait_s = pause_s if isinstance(error, SourceLost) else _RETRY_REFUSED_S
                logger.warning("%s: %s; trying again in %.2f s", self._source.name, error, wait_s)
                _sleep(ports, wait_s * random.uniform(0.8, 1.2))
                pause_s = min(pause_s * 2, _RETRY_MOST_S)
                self._counters.add("reconnects")
        ports.send(
            "packets",
            Ended(stream=self._source.name, frame_index=self._counters["packets"], complete=True),
        )
        ports.drain()
        return ()

    def _follow(self, ports: Ports) -> None:
        """Read one connection until it breaks or the supervisor says stop."""
        reader = open_reader(self._source, self._config)
        try:
            _announce(ports, self._source.name, reader)
            for raw in reader.packets():
                if ports.stopping:
                    return
                self._counters.add("late_packets", self._ring.push(raw))
                while self._ring.peek() and ports.can_send("packets", self._source.name):
                    _send(ports, self._source.name, self._ring.pop(), self._counters)
        finally:
            reader.close()


def _announce(ports: Ports, name: str, reader: Reader) -> None:
    facts = reader.facts
    ports.report(
        StreamFacts(
            num_frames=facts.num_frames,
            frame_rate=facts.frame_rate,
            duration_s=facts.duration_s,
        )
    )
    ports.send(
        "packets",
        Opened(
            stream=name,
            frame_index=0,
            parameters=facts.parameters,
            frame_rate=facts.frame_rate,
        ),
    )


def _send(ports: Ports, name: str, raw: RawPacket, counters: Counters) -> None:
    packet = Packet(
        stream=name,
        frame_index=counters["packets"],
        pts_ns=raw.pts_ns,
        dts_ns=raw.dts_ns,
        keyframe=raw.keyframe,
        hidden=raw.hidden,
        corrupt=raw.corrupt,
        captured_ns=raw.captured_ns,
    )
    ports.send("packets", packet, (raw.data,))
    counters.add("packets")


def _sleep(ports: Ports, seconds: float) -> None:
    """Wait, but not longer than until the supervisor speaks."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not ports.stopping:
        ports.wait(max(1, round(left * 1000)))
