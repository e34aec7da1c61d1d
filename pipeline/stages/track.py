# SPDX-License-Identifier: Apache-2.0
"""track: identities over time, one stream in its own order.

What comes early waits unacknowledged, so that the window bounds it too; what comes twice, because
a stage before this one was replaced, counts once. Here every frame is settled: as tracked, or
skipped or dropped with its cause.

A frame the detector was not asked for has its tracks carried over: between detections where the
tracker expects them, behind the gate where they were, which the tracker is told as if it were seen.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from model.detections import Detections
from pipeline.columns import detections_from_buffers, tracks_to_buffers
from pipeline.messages import (
    WITHOUT_TRACKS,
    DropCause,
    Dropped,
    Ended,
    Found,
    Tracked,
    timing,
)
from pipeline.metrics import Counter, Counters
from pipeline.ordering import Ordered
from pipeline.tracking.tracker import Tracker
from pipeline.tracking.tracks import Tracks
from pipeline.tracking.wanted import Wanted
from pipeline.transport.links import Delivery
from pipeline.transport.ports import Ports

MakeTracker = Callable[[float, int], Tracker]
"""A tracker for frames that come at this rate, after so many identities were given."""

_COUNTER_OF: dict[DropCause, Counter] = {
    "stride": "skipped_stride",
    "max-fps": "skipped_max_fps",
    "gate": "skipped_gate",
    "detect-every": "skipped_detect_every",
    "late": "dropped_late",
    "overload": "dropped_overload",
    "corrupt": "dropped_corrupt",
    "stage-died": "dropped_stage_died",
    "shutdown": "dropped_shutdown",
}


class Track:
    """Follows the objects of one stream."""

    def __init__(self, make_tracker: MakeTracker, counters: Counters, wanted: Wanted) -> None:
        self._make_tracker = make_tracker
        self._wanted = wanted
        self._counters = counters
        self._tracker: Tracker | None = None
        self._held: Detections | None = None
        """What was last detected, as long as nothing that was to be looked at was lost since."""
        self._ordered: Ordered[Delivery] = Ordered(counters.num_settled)

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Track until the stream has ended."""
        while True:
            delivery = ports.receive("found")
            assert delivery is not None
            if isinstance(delivery.message, Found):
                self._counters.reach("found", delivery.message.captured_ns)
            if not self._ordered.put(delivery.message.frame_index, delivery):
                delivery.acknowledge()
            for due in self._ordered.due():
                self._handle(ports, due)
                due.acknowledge()
                if isinstance(due.message, Ended):
                    ports.drain()
                    return ()

    def _handle(self, ports: Ports, due: Delivery) -> None:
        match due.message:
            case Found() as found:
                tracker = self._tracker_for(found)
                self._held = self._detected(found, due)
                self._send(ports, found, tracker.update(self._held, found.pts_ns))
                self._counters.add("tracked")
                self._counters.reach("tracked", found.captured_ns)
            case Dropped(cause="gate" | "detect-every") as skipped:
                tracker = self._tracker_for(skipped)
                self._send(ports, skipped, self._carried_over(tracker, skipped))
                self._counters.add(_COUNTER_OF[skipped.cause])
            case Dropped() as dropped:
                if dropped.discontinuity and self._tracker is not None:
                    self._tracker.reset()
                if dropped.discontinuity or dropped.cause not in WITHOUT_TRACKS:
                    self._held = None
                ports.send("tracked", dropped)
                self._counters.add(_COUNTER_OF[dropped.cause])
            case Ended() as ended:
                ports.send("tracked", ended)

    def _detected(self, found: Found, due: Delivery) -> Detections:
        """The boxes this stream wants, in pixels of its whole picture."""
        boxes = detections_from_buffers(due.buffers)
        left, top = found.part.origin_xy
        if (left, top) != (0, 0):
            origin = np.array((left, top) * 2, np.float32)
            boxes = replace(boxes, xyxy=boxes.xyxy + origin)
        return self._wanted.of(boxes, found.part.picture_hw)

    def _send(self, ports: Ports, message: Found | Dropped, tracks: Tracks) -> None:
        """Pass tracks on: those found in a frame, or carried over to one nobody looked at."""
        if isinstance(message, Found):
            tracked = Tracked(
                **timing(message), picture_hw=message.part.picture_hw, model=message.model
            )
        else:
            assert message.source_hw is not None
            tracked = Tracked(**timing(message), picture_hw=message.source_hw, predicted=True)
        ports.send("tracked", tracked, tracks_to_buffers(tracks))
        highest = int(tracks.track_id.max(initial=0))
        self._counters.put("identities", max(self._counters["identities"], highest))

    def _carried_over(self, tracker: Tracker, skipped: Dropped) -> Tracks:
        if skipped.cause == "gate" and self._held is not None:
            return tracker.update(self._held, skipped.pts_ns)
        assert skipped.source_hw is not None
        return tracker.predict(skipped.pts_ns, skipped.source_hw)

    def _tracker_for(self, message: Found | Dropped) -> Tracker:
        if self._tracker is None:
            self._tracker = self._make_tracker(
                1e9 / message.duration_ns, self._counters["identities"]
            )
        elif message.discontinuity:
            self._tracker.reset()
            self._held = None
        return self._tracker
