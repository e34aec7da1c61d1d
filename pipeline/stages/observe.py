# SPDX-License-Identifier: Apache-2.0
"""observe: a stream's tracks, and its pictures where they are wanted, to whoever watches it.

The observer is in this thread's hands from the stream's begin to its end. It gets frames in their
order, those without tracks only as the word that what was known does not hold any more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.columns import tracks_from_buffers
from pipeline.messages import Dropped, Ended, Picture, Tracked
from pipeline.metrics import Counters
from pipeline.nv12 import Matrix
from pipeline.sinks.image import jpeg
from pipeline.stages.pairing import Pairs, Pixels
from pipeline.tracking.tracks import Tracks
from pipeline.transport.links import Delivery
from pipeline.transport.ports import Ports


@dataclass(frozen=True, slots=True)
class View:
    """The picture of a frame, lent while the observer looks at the frame."""

    pixels: Pixels
    picture_hw: tuple[int, int]
    matrix: Matrix

    def jpeg(self) -> bytes:
        """Encode it."""
        return jpeg(self.pixels, self.picture_hw, self.matrix)


class Observer(Protocol):
    """Watches one stream."""

    def see(self, frame: Tracked, tracks: Tracks, view: View | None) -> None: ...

    def lost(self) -> None:
        """Note that the stream begins anew."""
        ...

    def close(self) -> None:
        """Note that nothing follows."""
        ...


class Observe:
    """Shows one stream to its observer, with pictures."""

    def __init__(self, open_observer: Callable[[], Observer], counters: Counters) -> None:
        self._open_observer = open_observer
        self._counters = counters

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Show frames until the stream has ended."""
        observer, pairs = self._open_observer(), Pairs(self._counters)
        try:
            while True:
                pair = pairs.next(ports)
                picture, view = pair.pictured.message, None
                if isinstance(picture, Picture) and pair.pixels is not None:
                    view = View(pair.pixels, picture.picture_hw, picture.matrix)
                _show(observer, pair.tracked, view)
                pair.acknowledge()
                if isinstance(picture, Ended):
                    return ()
                self._counters.add("pictures")
        finally:
            observer.close()


class ObserveTracks:
    """Shows one stream to its observer, without pictures."""

    def __init__(self, open_observer: Callable[[], Observer]) -> None:
        self._open_observer = open_observer

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Show frames until the stream has ended."""
        observer, wanted = self._open_observer(), 0
        try:
            while True:
                delivery = ports.receive("tracked")
                assert delivery is not None
                if delivery.message.frame_index >= wanted:  # what a tracker sent again comes once
                    wanted = delivery.message.frame_index + 1
                    _show(observer, delivery, None)
                delivery.acknowledge()
                if isinstance(delivery.message, Ended):
                    return ()
        finally:
            observer.close()


def _show(observer: Observer, delivery: Delivery, view: View | None) -> None:
    match delivery.message:
        case Tracked() as frame:
            observer.see(frame, tracks_from_buffers(delivery.buffers), view)
        case Dropped(discontinuity=True):
            observer.lost()
