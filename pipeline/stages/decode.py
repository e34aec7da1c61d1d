# SPDX-License-Identifier: Apache-2.0
"""decode: packets to frames, and on a CPU straight on to the network's picture.

Every decoded frame gets the next index and goes on, or leaves a tombstone with its cause.
"""

import logging

from pipeline.config import SourceConfig
from pipeline.decoding.decoder import DecodedFrame, Decoder, Undecodable, make_decoder
from pipeline.messages import Ended, Opened, Packet, Timed
from pipeline.metrics import Counters
from pipeline.stages.preprocess import Preprocess
from pipeline.transport.control import Enough, Incomplete
from pipeline.transport.links import Delivery
from pipeline.transport.ports import Ports

logger = logging.getLogger(__name__)

_DEFAULT_RATE = 25.0


class Decode:
    """Decodes one stream."""

    def __init__(
        self,
        stream: str,
        config: SourceConfig,
        preprocess: Preprocess,
        counters: Counters,
        *,
        live: bool,
    ) -> None:
        self._stream = stream
        self._config = config
        self._preprocess = preprocess
        self._counters = counters
        self._live = live
        self._decoder: Decoder | None = None
        self._clock = StreamClock(live=live)
        self._captured_ns = 0
        self._discontinuity = False
        self._first_fault = ""

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Decode until the source has ended or the limit is reached."""
        ended: Ended | None = None
        while ended is None:
            delivery = ports.receive("packets")
            assert delivery is not None
            match delivery.message:
                case Opened() as opened:
                    self._open(ports, opened)
                case Packet() as packet if not self._enough:
                    self._decode(ports, packet, delivery)
                case Ended() as message:
                    ended = message
            delivery.acknowledge()
        if not self._enough and self._decoder is not None:
            self._emit(ports, self._decoder.flush())
        self._finish(ports, ended)
        ports.drain()
        return ()

    @property
    def _enough(self) -> bool:
        return self._config.limit is not None and self._counters["decoded"] >= self._config.limit

    def _open(self, ports: Ports, opened: Opened) -> None:
        if self._decoder is not None:
            self._emit(ports, self._decoder.flush())
            self._discontinuity = True
        self._decoder = make_decoder(opened.parameters, live=self._live)
        self._preprocess.open(opened.parameters)
        self._clock.open(opened.frame_rate or _DEFAULT_RATE)

    def _decode(self, ports: Ports, packet: Packet, delivery: Delivery) -> None:
        assert self._decoder is not None
        self._captured_ns = packet.captured_ns
        try:
            frames = self._decoder.decode(packet, delivery.buffers[0])
        except Undecodable as error:
            self._counters.add("undecodable")
            logger.info("%s: packet %d: %s", self._stream, packet.frame_index, error)
            self._first_fault = self._first_fault or f"number {packet.frame_index + 1}: {error}"
            return
        self._emit(ports, frames)

    def _emit(self, ports: Ports, frames: list[DecodedFrame]) -> None:
        for decoded in frames:
            if self._enough:
                return
            index = self._counters["decoded"]
            self._counters.add("decoded")
            timed = Timed(
                stream=self._stream,
                frame_index=index,
                pts_ns=self._clock.pts_ns(decoded.pts_ns, self._captured_ns),
                duration_ns=self._clock.duration_ns,
                captured_ns=self._captured_ns,
                discontinuity=self._discontinuity,
            )
            self._discontinuity = False
            if decoded.corrupt:
                self._preprocess.drop(ports, timed, "corrupt")
            elif index % self._config.stride:
                self._preprocess.skip(ports, timed, decoded.frame)
            else:
                self._preprocess.send(ports, timed, decoded.frame)
            if self._enough:
                ports.report(Enough())

    def _finish(self, ports: Ports, ended: Ended) -> None:
        undecodable = self._counters["undecodable"]
        reason = ended.reason
        if not reason and undecodable and not self._live:
            reason = (
                f"{undecodable} of {ended.frame_index} packets could not be decoded; "
                f"the first is {self._first_fault}"
            )
        if self._enough:
            reason = ""
        if reason:
            ports.report(Incomplete(reason=reason))
        self._preprocess.end(
            ports,
            Ended(
                stream=self._stream,
                frame_index=self._counters["decoded"],
                complete=not reason,
                reason=reason,
            ),
        )


class StreamClock:
    """Presentation times that go on across connections and where the source gives none.

    A live source's clock that stands still or jumps back is set anew by the time of arrival; a
    file's times are its own, whatever they are.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self.duration_ns = 0
        """How long one frame is shown at the declared rate."""
        self._last_pts_ns: int | None = None
        self._last_captured_ns = 0
        self._offset_ns: int | None = 0

    def open(self, frame_rate: float) -> None:
        """Begin a connection; its own times may start anywhere."""
        self.duration_ns = round(1e9 / frame_rate)
        self._offset_ns = 0 if self._last_pts_ns is None else None

    def pts_ns(self, pts_ns: int | None, captured_ns: int) -> int:
        """The time of the next frame; a new connection goes on by the time that passed."""
        if self._last_pts_ns is None:
            result = pts_ns or 0
        elif self._offset_ns is None or (self._live and self._stands(pts_ns)):
            result = self._last_pts_ns + max(captured_ns - self._last_captured_ns, self.duration_ns)
            self._offset_ns = 0 if pts_ns is None else result - pts_ns
        elif pts_ns is None:
            result = self._last_pts_ns + self.duration_ns
        else:
            result = pts_ns + self._offset_ns
        self._last_pts_ns, self._last_captured_ns = result, captured_ns
        return result

    def _stands(self, pts_ns: int | None) -> bool:
        assert self._last_pts_ns is not None
        assert self._offset_ns is not None
        return pts_ns is not None and pts_ns + self._offset_ns <= self._last_pts_ns
