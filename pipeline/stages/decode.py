# SPDX-License-Identifier: Apache-2.0
"""decode: packets to frames, and on a CPU straight on to the network's picture.

Every decoded frame gets the next index and goes on, or leaves a tombstone with its cause. A decoder
that takes the place of one that died gives the frames again that have not arrived, and no others.
"""

import logging
import os
import threading
import time

from pipeline.config import SourceConfig
from pipeline.decoding.clock import StreamClock
from pipeline.decoding.damage import DamageWatch
from pipeline.decoding.decoder import DecodedFrame, Decoder, Undecodable, make_decoder
from pipeline.decoding.freezing import FreezeWatch
from pipeline.decoding.hardware import Hardware
from pipeline.decoding.inputs import Source
from pipeline.decoding.motion import MotionGate
from pipeline.decoding.pace import Pace
from pipeline.decoding.surface import AnyFrame, SurfaceReader
from pipeline.messages import Ended, Opened, Packet, SkipCause, Timed
from pipeline.metrics import Counters
from pipeline.stages.checkpoints import Checkpoints
from pipeline.stages.decoded_by import tell_who_decodes
from pipeline.stages.preprocess import Preprocess
from pipeline.transport.control import CameraState, Enough, Incomplete
from pipeline.transport.links import Delivery
from pipeline.transport.ports import Ports

logger = logging.getLogger(__name__)

_DEFAULT_RATE = 25.0
_NICE = 15  # a thread's share is a thirtieth of one that is not nice


class Decode:
    """Decodes one stream."""

    def __init__(
        self,
        source: Source,
        config: SourceConfig,
        preprocess: Preprocess,
        counters: Counters,
        *,
        gate: MotionGate | None = None,
        hardware: Hardware | None = None,
    ) -> None:
        self._stream = source.name
        self._config = config
        self._preprocess = preprocess
        self._counters = counters
        self._live = source.live
        self._gate = gate
        self._hardware = hardware
        max_fps = source.camera.max_fps
        self._pace = None if max_fps is None else Pace(max_fps)
        self._num_lost = counters.num_dropped
        self._decoder: Decoder | None = None
        self._clock = StreamClock(live=source.live)
        self._checkpoints = Checkpoints()
        self._next_packet = self._next_index = 0
        self._begin_at_ns: int | None = None
        """Time of the picture from which on frames count, where a file is taken up again."""
        self._captured_ns = 0
        self._discontinuity = False
        self._size: tuple[int, int] | None = None
        self._first_fault = ""
        self._damage = DamageWatch()
        self._freeze = FreezeWatch(config.frozen_s)
        self._is_frozen = False
        """What was last told of a camera's pictures."""

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Decode until the source has ended or the limit is reached."""
        try:
            self._run(ports)
        finally:
            if self._hardware is not None and self._hardware.reader is not None:
                self._hardware.reader.close()
        return ()

    def _run(self, ports: Ports) -> None:
        if self._live:
            _yield_to_the_detector()
        self._take_over(ports)
        ended: Ended | None = None
        while ended is None:
            delivery = ports.receive("packets")
            assert delivery is not None
            match delivery.message:
                case Opened() as opened:
                    self._open(ports, opened)
                case Packet() as packet if not self._enough and self._is_new(packet):
                    self._meet_gpu(ports)
                    self._decode(ports, packet, delivery)
                    self._tell_who_decodes(ports)
                case Ended() as message:
                    ended = message
            delivery.acknowledge()
        if not self._enough and self._decoder is not None:
            self._emit(ports, self._decoder.flush())
        self._finish(ports, ended)
        ports.drain()

    @property
    def _enough(self) -> bool:
        return self._config.limit is not None and self._next_index >= self._config.limit

    def _take_over(self, ports: Ports) -> None:
        """Begin where a decoder that died has left the stream, if there was one.

        A file is decoded again from the last checkpoint, or from its start; what has arrived is
        not sent again. A live stream goes on with the next frame: those on their way are lost.
        """
        if self._live:
            if self._counters["decoded"]:
                self._discontinuity = True
                self._clock.go_on(self._counters["last_pts_ns"], self._counters["last_captured_ns"])
            self._bury(ports)
            return
        checkpoint = ports.checkpoint
        self._counters.put("undecodable", checkpoint.undecodable if checkpoint else 0)
        if checkpoint is not None:
            self._next_index = checkpoint.frame_index
            self._begin_at_ns = checkpoint.pts_ns
            self._first_fault = checkpoint.first_fault
            self._preprocess.canvas_hw = checkpoint.canvas_hw

    def _bury(self, ports: Ports) -> None:
        """Leave a tombstone for every frame that a decoder before this one had decoded."""
        first = max(self._next_index, self._preprocess.num_safe)
        for index in range(first, self._counters["decoded"]):
            timed = Timed(
                stream=self._stream,
                frame_index=index,
                pts_ns=self._counters["last_pts_ns"],
                duration_ns=1,
                captured_ns=self._counters["last_captured_ns"],
            )
            self._preprocess.drop(ports, timed, "stage-died")
        self._next_index = max(self._next_index, self._counters["decoded"])

    def _is_new(self, packet: Packet) -> bool:
        """Whether a packet was not had before, from a source of a file that was replaced since."""
        new = self._live or packet.frame_index >= self._next_packet
        self._next_packet = max(self._next_packet, packet.frame_index + 1)
        return new

    def _open(self, ports: Ports, opened: Opened) -> None:
        if self._decoder is not None and not self._live:
            if self._enough:  # the source that heard it is gone
                ports.report(Enough())
            return
        if self._decoder is not None:
            self._emit(ports, self._decoder.flush())
            self._discontinuity = True
        self._decoder = make_decoder(opened.parameters, live=self._live, hardware=self._hardware)
        self._is_frozen = False
        self._freeze.forget()
        self._preprocess.open(opened.parameters)
        self._clock.open(opened.frame_rate or _DEFAULT_RATE)
        if ports.checkpoint is not None and not self._live:
            self._clock.go_back(ports.checkpoint.last_pts_ns)

    def _decode(self, ports: Ports, packet: Packet, delivery: Delivery) -> None:
        assert self._decoder is not None
        self._captured_ns = packet.captured_ns
        if not self._live:
            self._checkpoints.on_packet(packet, self._counters["undecodable"], self._first_fault)
        try:
            frames = self._decoder.decode(packet, delivery.buffers[0])
        except Undecodable as error:
            self._counters.add("undecodable")
            self._damage.on_fault()
            logger.info("%s: packet %d: %s", self._stream, packet.frame_index, error)
            self._first_fault = self._first_fault or f"number {packet.frame_index + 1}: {error}"
            return
        self._emit(ports, frames)

    def _meet_gpu(self, ports: Ports) -> None:
        """Leave pictures on the GPU that decodes them as soon as an engine reads them there."""
        hardware = self._hardware
        if hardware is None or hardware.reader is not None:
            return
        device = ports.pools.gpu.device(hardware.device)
        if device is not None:
            hardware.reader = SurfaceReader(device)

    def _tell_who_decodes(self, ports: Ports) -> None:
        if self._hardware is not None:
            news = self._hardware.watch.news()
            tell_who_decodes(ports, self._stream, self._counters, news)

    def _emit(self, ports: Ports, frames: list[DecodedFrame]) -> None:
        for decoded in frames:
            if self._enough:
                return
            if self._begin_at_ns is not None:
                if decoded.pts_ns != self._begin_at_ns:
                    continue  # needs pictures from before the place where decoding began
                self._begin_at_ns = None
            self._emit_one(ports, decoded)
            if self._enough:
                ports.report(Enough())

    def _emit_one(self, ports: Ports, decoded: DecodedFrame) -> None:
        self._note_size(decoded)
        index, last_pts_ns = self._next_index, self._clock.last_pts_ns
        pts_ns = self._clock.pts_ns(decoded.pts_ns, self._captured_ns)
        timed = Timed(
            stream=self._stream,
            frame_index=index,
            pts_ns=pts_ns,
            duration_ns=self._clock.duration_ns,
            captured_ns=self._captured_ns,
            discontinuity=self._discontinuity or self._clock.jumped,
        )
        self._next_index = index + 1
        self._discontinuity = False
        if self._counters["decoded"] <= index:
            self._counters.put("last_pts_ns", pts_ns)
            self._counters.put("last_captured_ns", self._captured_ns)
            self._counters.put("decoded", index + 1)
        begins = not self._live and self._begins_at(decoded, pts_ns)
        self._pass_on(ports, timed, decoded)
        if begins:
            self._checkpoints.on_frame(
                decoded.pts_ns, index, last_pts_ns, self._preprocess.canvas_hw
            )
        if not self._live:
            place = self._checkpoints.due(self._preprocess.num_safe, time.monotonic())
            if place is not None:
                ports.report(place)

    def _begins_at(self, decoded: DecodedFrame, pts_ns: int) -> bool:
        """Whether decoding could begin anew at this frame of a file and give the same."""
        if not self._checkpoints.is_key(decoded.pts_ns):
            return False
        if self._gate is None or self._gate.begin_at(pts_ns):
            return True
        self._checkpoints.pass_over(decoded.pts_ns)
        return False

    def _pass_on(self, ports: Ports, timed: Timed, decoded: DecodedFrame) -> None:
        if decoded.corrupt:
            self._damage.on_fault()
        if decoded.corrupt or (self._live and self._is_unfit(ports, timed, decoded.frame)):
            if self._gate is not None:
                self._gate.forget()
            self._preprocess.drop(ports, timed, "corrupt")
        elif (cause := self._skips(timed, decoded.frame)) is not None:
            self._preprocess.skip(ports, timed, decoded.frame, cause)
        else:
            self._preprocess.send(ports, timed, decoded.frame)

    def _is_unfit(self, ports: Ports, timed: Timed, frame: AnyFrame) -> bool:
        """Whether a camera's picture shows nothing of what is there now; tells of its state."""
        if self._damage.shows_in(frame):
            return True
        frozen = self._freeze.is_frozen(frame, timed.captured_ns)
        if frozen != self._is_frozen:
            self._is_frozen = frozen
            reason = f"the same picture for {self._config.frozen_s:g} s" if frozen else ""
            ports.report(CameraState(state="frozen" if frozen else "live", reason=reason))
        return frozen

    def _skips(self, timed: Timed, frame: AnyFrame) -> SkipCause | None:
        """Why the detector need not look at a frame; None where it must."""
        if timed.frame_index % self._config.stride:
            return "stride"
        if timed.frame_index % self._config.detect_every and not timed.discontinuity:
            return "detect-every"
        if self._pace and not self._pace.lets_by(timed.pts_ns, anew=timed.discontinuity):
            return "max-fps"
        if self._gate is None:
            return None
        if timed.discontinuity or self._has_lost():
            self._gate.forget()
        return None if self._gate.opens(frame, timed.pts_ns) else "gate"

    def _has_lost(self) -> bool:
        """Whether a frame that a live stream's detector was to look at may not have come there."""
        before, self._num_lost = self._num_lost, self._counters.num_dropped
        return self._live and self._num_lost > before

    def _note_size(self, decoded: DecodedFrame) -> None:
        """In pictures of another size nothing is where it was."""
        size = (decoded.frame.width, decoded.frame.height)
        if self._size not in (None, size):
            self._discontinuity = True
        self._size = size

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
        self._bury(ports)
        self._preprocess.end(
            ports,
            Ended(
                stream=self._stream,
                frame_index=self._next_index,
                complete=not reason,
                reason=reason,
            ),
        )


def _yield_to_the_detector() -> None:
    """Lower this thread's priority.

    Where there is less processor than work, decoding would take it all and leave frames too old to
    be looked at. With the detector first, what is too much stays undecoded at the source.
    """
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
