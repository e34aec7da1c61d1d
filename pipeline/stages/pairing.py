# SPDX-License-Identifier: Apache-2.0
"""Each picture of a stream beside its tracks, in order and once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from pipeline.messages import Picture
from pipeline.metrics import Counters
from pipeline.ordering import Ordered
from pipeline.transport.links import Delivery
from pipeline.transport.pool import SlotGone
from pipeline.transport.ports import Ports

Pixels = UInt8[np.ndarray, "rows W"]
"""NV12."""


class Pair(NamedTuple):
    """Two messages about one frame, or the end of both; acknowledge both when done with them."""

    tracked: Delivery
    pictured: Delivery
    pixels: Pixels | None
    """Where the frame has a picture."""

    def acknowledge(self) -> None:
        """Say that what was made of it is safe."""
        self.tracked.acknowledge()
        self.pictured.acknowledge()


class Pairs:
    """Reads the links `pictures` and `tracked` of one stream side by side."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._pictures: Ordered[tuple[Delivery, Pixels | None]] = Ordered(counters["pictures"])

    def next(self, ports: Ports) -> Pair:
        """Wait for the next frame; whoever takes it counts it in `pictures`."""
        pictured, pixels = self._next_picture(ports)
        return Pair(self._next_tracks(ports), pictured, pixels)

    def _next_picture(self, ports: Ports) -> tuple[Delivery, Pixels | None]:
        """The picture whose turn it is, or its tombstone; what a decoder sent again comes once."""
        while (due := next(self._pictures.due(), None)) is None:
            delivery = ports.receive("pictures")
            assert delivery is not None
            message, pixels = delivery.message, None
            try:
                if isinstance(message, Picture):
                    pixels = ports.pools.view(message.picture)
            except SlotGone:  # its decoder died; the next one sends it again
                delivery.acknowledge()
            else:
                if not self._pictures.put(message.frame_index, (delivery, pixels)):
                    delivery.acknowledge()
        return due

    def _next_tracks(self, ports: Ports) -> Delivery:
        """The tracks of that picture; what a tracker sent again comes once."""
        while True:
            delivery = ports.receive("tracked")
            assert delivery is not None
            if delivery.message.frame_index >= self._counters["pictures"]:
                return delivery
            delivery.acknowledge()
