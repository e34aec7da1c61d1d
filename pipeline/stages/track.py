# SPDX-License-Identifier: Apache-2.0
"""track: identities over time, one stream in its own order."""

from collections.abc import Callable

from pipeline.columns import detections_from_buffers, tracks_to_buffers
from pipeline.messages import Buffers, Dropped, Ended, Found, Timed, Tracked, timing
from pipeline.metrics import Counters
from pipeline.ordering import Ordered
from pipeline.tracking.tracker import Tracker
from pipeline.transport.ports import Ports

MakeTracker = Callable[[float], Tracker]
"""A tracker for frames that come at this rate."""


class Track:
    """Follows the objects of one stream."""

    def __init__(self, make_tracker: MakeTracker, counters: Counters) -> None:
        self._make_tracker = make_tracker
        self._counters = counters
        self._tracker: Tracker | None = None
        self._ordered: Ordered[tuple[Timed | Ended, Buffers]] = Ordered()

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Track until the stream has ended."""
        while True:
            delivery = ports.receive("found")
            assert delivery is not None
            message = delivery.message
            assert isinstance(message, Found | Dropped | Ended)
            self._ordered.put(message.frame_index, (message, delivery.buffers))
            for due, buffers in self._ordered.due():
                self._handle(ports, due, buffers)
                if isinstance(due, Ended):
                    delivery.acknowledge()
                    ports.drain()
                    return ()
            delivery.acknowledge()

    def _handle(self, ports: Ports, message: Timed | Ended, buffers: Buffers) -> None:
        match message:
            case Found():
                tracker = self._tracker_for(message)
                tracks = tracker.update(detections_from_buffers(buffers), message.pts_ns)
                ports.send("tracked", Tracked(**timing(message)), tracks_to_buffers(tracks))
                self._counters.add("tracked")
            case Dropped() | Ended():
                if isinstance(message, Dropped) and message.discontinuity and self._tracker:
                    self._tracker.reset()
                ports.send("tracked", message)

    def _tracker_for(self, message: Found) -> Tracker:
        if self._tracker is None:
            self._tracker = self._make_tracker(1e9 / message.duration_ns)
        elif message.discontinuity:
            self._tracker.reset()
        return self._tracker
