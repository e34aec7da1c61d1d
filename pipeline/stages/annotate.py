# SPDX-License-Identifier: Apache-2.0
"""annotate: tracks drawn into a copy of the full-size picture."""

from collections.abc import Callable

import numpy as np

from pipeline.columns import tracks_from_buffers
from pipeline.drawing.drawer import Drawer
from pipeline.messages import Drawn, Dropped, Ended, Picture, Tracked, timing
from pipeline.tracking.tracks import Tracks
from pipeline.transport.pool import Pool
from pipeline.transport.ports import Ports

_UINT8 = np.dtype(np.uint8)
_SLOTS = 4

MakeDrawer = Callable[[tuple[int, int], float], Drawer]
"""A drawer for pictures of this height and width, shown at this rate."""


class Annotate:
    """Draws one stream; a frame the detector passed over shows the tracks before it."""

    def __init__(self, make_drawer: MakeDrawer) -> None:
        self._make_drawer = make_drawer
        self._drawer: Drawer | None = None
        self._drawn: Pool | None = None
        self._tracks = Tracks.empty()

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Draw until the stream has ended."""
        while True:
            pictured, tracked = ports.receive("pictures"), ports.receive("tracked")
            assert tracked is not None
            assert pictured is not None
            match tracked.message:
                case Tracked():
                    self._tracks = tracks_from_buffers(tracked.buffers)
                case Dropped(cause=cause) if cause != "stride":
                    self._tracks = Tracks.empty()
            match pictured.message:
                case Picture() as picture:
                    assert picture.frame_index == tracked.message.frame_index
                    self._draw(ports, picture)
                case Ended() as ended:
                    ports.send("drawn", ended)
            for delivery in (tracked, pictured):
                delivery.acknowledge()
            if isinstance(pictured.message, Ended):
                ports.drain()
                return ()

    def _draw(self, ports: Ports, picture: Picture) -> None:
        pixels = ports.pools.view(picture.picture)
        height, width, _ = pixels.shape
        if self._drawn is None or self._drawn.shape != pixels.shape:
            self._drawn = ports.pools.create(
                f"{picture.stream}/drawn", pixels.shape, _UINT8, _SLOTS
            )
            self._drawer = self._make_drawer((height, width), 1e9 / picture.duration_ns)
        assert self._drawer is not None
        lease = ports.lease(self._drawn)
        np.copyto(lease.array, pixels)
        self._drawer.draw(lease.array, self._tracks)
        ports.send("drawn", Drawn(**timing(picture), picture=lease.slot), lease=lease)
