# SPDX-License-Identifier: Apache-2.0
"""source: opens what the user named and sends its packets.

A file is read as fast as its packets are taken. A live source is read without a pause, so that
nothing waits in the camera's socket; what the decoder does not take in time is given up here, up
to a keyframe, and counted `late_packets`.
"""

import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from pipeline.config import SourceConfig
from pipeline.decoding.connection import Arrival, Connection
from pipeline.decoding.gst_elements import OnGpu
from pipeline.decoding.gst_turns import Turns
from pipeline.decoding.gstreamer import GStreamerReader
from pipeline.decoding.hardware import Hardware
from pipeline.decoding.images import ImageReader
from pipeline.decoding.inputs import Source
from pipeline.decoding.media import OPEN_FACTOR, MediaFacts, MediaReader, RawPacket, Reader
from pipeline.decoding.replay import ReplayReader
from pipeline.decoding.ring import PacketRing
from pipeline.errors import SourceError, SourceForbidden, SourceLost
from pipeline.messages import Ended, Opened
from pipeline.metrics import Counters
from pipeline.stages.condition import ConditionReporter
from pipeline.stages.decoded_by import tell_who_decodes
from pipeline.transport.control import StreamFacts
from pipeline.transport.ports import Ports

logger = logging.getLogger(__name__)

_DECODING = 4  # packets at the decoder; the others wait where they can still be given up
_LOOK_MS = 20
_BEFORE_DECODING = 0.5  # of the time a live frame is of use
_IDLE_S = 0.1
_GRACE_S = 1.0
_RETRY_FIRST_S, _RETRY_MOST_S = 0.25, 2.0
_RETRY_REFUSED_S = 30.0
_SAY_AGAIN_S = 60.0
STOPPED = "stopped before its end"


def open_reader(source: Source, config: SourceConfig, gpu: OnGpu | None = None) -> Reader:
    """Open a source of any kind; `gpu` is for one that GStreamer decodes.

    Raises:
        SourceError: it cannot be read.
    """
    if source.by_gstreamer:
        return GStreamerReader(
            source, rtsp_transport=config.rtsp_transport, timeout_s=config.timeout_s, gpu=gpu
        )
    if source.kind in ("image", "images"):
        return ImageReader(source, rate=config.image_rate)
    if source.kind == "replay":
        return ReplayReader(source)
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
            reason = self._read(ports, reader, ports.checkpoint.packet if ports.checkpoint else 0)
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

    def _read(self, ports: Ports, reader: Reader, first: int) -> str:
        """Send the packets from number `first` on; the ones before were decoded earlier."""
        self._counters.put("packets", 0)
        try:
            for raw in reader.packets():
                if ports.stopping:
                    return STOPPED
                if self._counters["packets"] < first:
                    self._counters.add("packets")
                    continue
                _send(ports, self._source.name, raw, self._counters)
        except SourceError as error:
            return str(error)
        return ""


class ReadCamera:
    """Reads a live source until it is told to stop, and comes back to it for ever."""

    def __init__(
        self,
        source: Source,
        config: SourceConfig,
        counters: Counters,
        *,
        patience_s: float | None,
        hardware: Hardware | None = None,
    ) -> None:
        """Make ready to read.

        Args:
            source: The camera.
            config: How it is read.
            counters: Of its stream.
            patience_s: How long it may give no frame at all before it is given up; None for ever.
            hardware: The GPU, where GStreamer is to decode there.
        """
        self._source = source
        self._config = config
        self._counters = counters
        self._patience_s = patience_s
        self._ring = PacketRing(max_bytes=config.ring_mib << 20)
        self._cursor = self._ring.follow(
            staleness_ns=round(config.staleness_s * 1e9 * _BEFORE_DECODING)
        )
        self._num_late = 0
        self._num_decoding = 0
        """Packets the decoder has and is not done with."""
        self._decoding: MediaFacts | None = None
        """The connection whose packets it is being sent."""
        self._came_before = counters["packets"] > 0  # to a process that died
        self._connected = self._came_before
        self._give_up_s = math.inf if patience_s is None else time.monotonic() + patience_s
        self._condition = ConditionReporter(counters, config.timeout_s)
        self._turns = Turns(hardware)
        self._trouble = ""
        self._said = ""
        self._silent_until_s = 0.0

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Send packets; the first frame must come while there is patience.

        Raises:
            SourceError: the source never gave a frame.
        """
        pause_s = _RETRY_FIRST_S
        while not ports.stopping:
            given = self._cursor.given
            self._condition.on_try(ports)
            try:
                with closing(Connection(self._source.name, self._opener())) as connection:
                    self._follow(ports, connection)
            except SourceError as error:
                self._turns.on_error(error)
                self._tell_who_decodes(ports)
                self._condition.on_error(ports, error)
                if self._is_final(error):
                    raise
                if self._cursor.given > given:
                    pause_s = _RETRY_FIRST_S
                self._pause(ports, pause_s, error)
                pause_s = min(pause_s * 2, _RETRY_MOST_S)
        ports.send(
            "packets",
            Ended(stream=self._source.name, frame_index=self._counters["packets"], complete=True),
        )
        ports.drain()
        return ()

    def _opener(self) -> Callable[[], Reader]:
        return partial(open_reader, self._source, self._config, self._turns.next())

    def _follow(self, ports: Ports, connection: Connection) -> None:
        """Read one connection until it breaks, has to give way, or the supervisor says stop."""
        facts: MediaFacts | None = None
        heard_s = time.monotonic()
        while not (ports.stopping or self._turns.is_gpu_due):
            wait_s = self._feed(ports)
            for arrival in self._arrivals(ports, connection, wait_s):
                heard_s = time.monotonic()
                if isinstance(arrival, MediaFacts):
                    facts = arrival
                    self._note_connection(ports, facts)
                else:
                    assert facts is not None
                    self._ring.push(arrival, facts)
            silent_s = time.monotonic() - heard_s
            self._condition.look(ports, silent_s)
            self._check_patience(silent_s)

    def _arrivals(self, ports: Ports, connection: Connection, wait_s: float) -> list[Arrival]:
        """What has come from the camera after at most `wait_s`."""
        started_ns = time.monotonic_ns()
        try:
            return connection.arrivals(wait_s)
        finally:
            ports.usage.waiting_for_input_ns += time.monotonic_ns() - started_ns

    def _feed(self, ports: Ports) -> float:
        """Give the decoder what it has room for; returns how long to wait for the camera now."""
        name = self._source.name
        while (kept := self._cursor.peek(time.monotonic_ns())) is not None:
            if self._num_decoding >= _DECODING or not ports.can_send("packets", name):
                break
            if kept.facts is not self._decoding:
                self._decoding = kept.facts
                ports.send("packets", _opened(name, kept.facts))
                continue
            self._num_decoding += 1
            _send(ports, name, kept.raw, self._counters, on_acknowledged=self._on_decoded)
            self._cursor.take()
        self._count_late()
        # Every round looks at the supervisor's orders. While a packet waits, what is waited for is
        # the decoder's answer, and what came meanwhile is taken between two looks.
        ports.wait(0 if kept is None else _LOOK_MS)
        return _IDLE_S if kept is None else 0

    def _on_decoded(self) -> None:
        self._num_decoding -= 1

    def _count_late(self) -> None:
        self._counters.add("late_packets", self._cursor.given_up - self._num_late)
        self._num_late = self._cursor.given_up

    def _tell_who_decodes(self, ports: Ports) -> None:
        tell_who_decodes(ports, self._source.name, self._counters, self._turns.news())

    def _note_connection(self, ports: Ports, facts: MediaFacts) -> None:
        _report(ports, facts)
        self._turns.on_opened()
        self._tell_who_decodes(ports)
        if self._connected:
            self._counters.add("reconnects")
            name = self._source.name
            logger.info("%s: connected again", name, extra={"camera": name})
            self._said = ""
        self._connected = True

    @property
    def _seen(self) -> bool:
        """Whether there ever was a frame."""
        return self._came_before or self._counters["decoded"] > 0

    def _is_final(self, error: SourceError) -> bool:
        """Whether a source that was never seen is given up."""
        if self._seen or self._patience_s is None:
            return False
        return time.monotonic() >= self._give_up_s or not isinstance(error, SourceLost)

    def _check_patience(self, silent_s: float) -> None:
        """Break off what FFmpeg's own limits did not, as a name that is never resolved.

        Raises:
            SourceLost: too little came for too long.
        """
        label = self._source.label
        if not self._seen and time.monotonic() >= self._give_up_s:
            raise SourceLost(self._trouble or f"{label}: no frame within {self._patience_s:g} s")
        if silent_s > OPEN_FACTOR * self._config.timeout_s + _GRACE_S:
            raise SourceLost(f"{label}: silent for {silent_s:.0f} s")

    def _pause(self, ports: Ports, pause_s: float, error: SourceError) -> None:
        """Wait before the next try, but not longer than until the supervisor says stop."""
        if isinstance(error, SourceForbidden):
            pause_s = _RETRY_REFUSED_S
        pause_s *= random.uniform(0.8, 1.0)
        self._trouble = str(error)
        self._say(pause_s)
        until_s = time.monotonic() + pause_s
        if not self._seen:
            until_s = min(until_s, self._give_up_s)
        while (left_s := until_s - time.monotonic()) > 0 and not ports.stopping:
            ports.wait(max(1, round(1000 * min(left_s, self._feed(ports)))))

    def _say(self, pause_s: float) -> None:
        """Log what is wrong: at once when it is something else, else once in a while."""
        now_s = time.monotonic()
        if self._trouble == self._said and now_s < self._silent_until_s:
            return
        self._said, self._silent_until_s = self._trouble, now_s + _SAY_AGAIN_S
        name = self._source.name
        told = (name, self._trouble, pause_s)
        logger.warning("%s: %s; trying again in %.2f s", *told, extra={"camera": name})


def _announce(ports: Ports, name: str, reader: Reader) -> None:
    _report(ports, reader.facts)
    ports.send("packets", _opened(name, reader.facts))


def _report(ports: Ports, facts: MediaFacts) -> None:
    ports.report(
        StreamFacts(
            num_frames=facts.num_frames,
            frame_rate=facts.frame_rate,
            duration_s=facts.duration_s,
        )
    )


def _opened(name: str, facts: MediaFacts) -> Opened:
    return Opened(
        stream=name, frame_index=0, parameters=facts.parameters, frame_rate=facts.frame_rate
    )


def _send(
    ports: Ports,
    name: str,
    raw: RawPacket,
    counters: Counters,
    *,
    on_acknowledged: Callable[[], None] | None = None,
) -> None:
    packet = raw.header(name, counters["packets"])
    ports.send("packets", packet, (raw.data,), on_acknowledged=on_acknowledged)
    counters.add("packets")
