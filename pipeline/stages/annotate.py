# SPDX-License-Identifier: Apache-2.0
"""annotate: tracks drawn into a copy of the full-size picture."""

from collections.abc import Callable

import numpy as np

from pipeline.columns import tracks_from_buffers
from pipeline.drawing.drawer import Drawer
from pipeline.messages import (
    WITHOUT_TRACKS,
    Drawn,
    Dropped,
    Ended,
    Picture,
    Tracked,
    timing,
)
from pipeline.metrics import Counters
from pipeline.nv12 import Matrix
from pipeline.stages.pairing import Pairs
from pipeline.tracking.tracks import Tracks
from pipeline.transport.pool import Pool
from pipeline.transport.ports import Ports

_UINT8 = np.dtype(np.uint8)
_SLOTS = 4

MakeDrawer = Callable[[tuple[int, int], Matrix, float], Drawer]
"""A drawer for pictures of this height and width and this matrix, shown at this rate."""


class Annotate:
    """Draws one stream; a frame the detector passed over shows the tracks before it."""

    def __init__(self, make_drawer: MakeDrawer, counters: Counters) -> None:
        self._make_drawer = make_drawer
        self._counters = counters
        self._drawer: Drawer | None = None
        self._drawn: Pool | None = None
        self._tracks = Tracks.empty()
        self._pairs = Pairs(counters)

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Draw until the stream has ended."""
        while True:
            pair = self._pairs.next(ports)
            tracked, pictured, pixels = pair
            match tracked.message:
                case Tracked():
                    self._tracks = tracks_from_buffers(tracked.buffers)
                case Dropped(cause=cause) if cause not in WITHOUT_TRACKS:
                    self._tracks = Tracks.empty()
            match pictured.message:
                case Picture() as picture:
                    assert pixels is not None
                    assert picture.frame_index == tracked.message.frame_index
                    self._draw(ports, picture, pixels)
                case Ended() as ended:
                    ports.send("drawn", ended)
            pair.acknowledge()
            if isinstance(pictured.message, Ended):
                ports.drain()
                return ()
            self._counters.add("pictures")

    def _draw(self, ports: Ports, picture: Picture, pixels: np.ndarray) -> None:
        if self._drawn is None or self._drawn.shape != pixels.shape:
            self._give_up_drawn(ports)
            self._drawn = ports.pools.create(
                f"{picture.stream}/drawn", pixels.shape, _UINT8, _SLOTS
            )
            rate = 1e9 / picture.duration_ns
            self._drawer = self._make_drawer(picture.picture_hw, picture.matrix, rate)
        assert self._drawer is not None
        lease = ports.lease(self._drawn)
        np.copyto(lease.array, pixels)
        self._drawer.draw(lease.array, self._tracks)
        message = Drawn(
            **timing(picture),
            picture=lease.slot,
            picture_hw=picture.picture_hw,
            matrix=picture.matrix,
        )
        ports.send("drawn", message, lease=lease)

    def _give_up_drawn(self, ports: Ports) -> None:
        """Let the pictures of the size before be read, then give their memory back."""
        if self._drawn is None:
            return
        while self._drawn.num_held:
            ports.wait()
        ports.pools.discard(self._drawn.name)
