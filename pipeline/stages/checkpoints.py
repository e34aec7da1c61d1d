# SPDX-License-Identifier: Apache-2.0
"""Places of a file from which decoding can begin anew and give the same frames.

A keyframe's picture and all that are shown after it can be decoded without what came before it in
the file. The place reported is one keyframe further back than needed, for streams whose keyframes
need some pictures to recover (open groups of pictures, intra refresh).
"""

from collections import deque

import msgspec

from pipeline.messages import Packet
from pipeline.transport.control import Checkpoint

_PERIOD_S = 0.25
_MOST_PACKETS = 64  # keyframes whose pictures have not come out of the decoder


class Checkpoints:
    """Follows one decoder."""

    def __init__(self) -> None:
        self._packets: dict[int, Checkpoint] = {}
        """What is known of a keyframe when its packet comes, by its time."""
        self._places: deque[Checkpoint] = deque()
        self._reported_s = 0.0

    def on_packet(self, packet: Packet, undecodable: int, first_fault: str) -> None:
        """Note a packet that is about to be decoded."""
        if not packet.keyframe or packet.pts_ns is None or packet.pts_ns in self._packets:
            return
        self._packets[packet.pts_ns] = Checkpoint(
            packet=packet.frame_index,
            pts_ns=packet.pts_ns,
            frame_index=-1,
            last_pts_ns=None,
            canvas_hw=None,
            undecodable=undecodable,
            first_fault=first_fault,
        )
        if len(self._packets) > _MOST_PACKETS:
            del self._packets[next(iter(self._packets))]

    def is_key(self, pts_ns: int | None) -> bool:
        """Whether the frame of this time came from a keyframe's packet."""
        return pts_ns in self._packets

    def pass_over(self, pts_ns: int | None) -> None:
        """Make no place of the key picture of this time."""
        assert pts_ns is not None
        del self._packets[pts_ns]

    def on_frame(
        self,
        pts_ns: int | None,
        frame_index: int,
        last_pts_ns: int | None,
        canvas_hw: tuple[int, int] | None,
    ) -> None:
        """Note a key picture; `last_pts_ns` is the time given to the frame before it."""
        assert pts_ns is not None
        place = self._packets.pop(pts_ns)
        self._places.append(
            msgspec.structs.replace(
                place, frame_index=frame_index, last_pts_ns=last_pts_ns, canvas_hw=canvas_hw
            )
        )

    def due(self, num_safe: int, now_s: float) -> Checkpoint | None:
        """The place to begin at if every frame before `num_safe` need not come again."""
        if now_s < self._reported_s + _PERIOD_S:
            return None
        place = None
        while len(self._places) > 1 and self._places[1].frame_index <= num_safe:
            place = self._places.popleft()
        if place is not None:
            self._reported_s = now_s
        return place
