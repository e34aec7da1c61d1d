# SPDX-License-Identifier: Apache-2.0
"""preprocess: frames into slots, as the engine and the viewer want them.

For a CPU this runs in the decode worker, from the decoder's own YUV, so that a full-size picture
is written only where a sink wants one. An engine on a GPU is given that YUV as it is, on the GPU
if that decoded it. A file waits for a free slot; a live stream does not: its frame becomes a
tombstone, so that what is tracked is always fresh.
"""

import logging
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.engines.contract import Takes
from model.letterbox import Letterbox, rectangle
from model.slicing import Region, choose_looks, part_shown
from pipeline import nv12
from pipeline.cameras import PLAIN, CameraConfig
from pipeline.config import SlicesConfig
from pipeline.decoding.privacy import blacken
from pipeline.decoding.scaling import FrameScaler, matrix_to_keep
from pipeline.decoding.surface import AnyFrame, on_host
from pipeline.messages import (
    AnyMessage,
    CodecParameters,
    DropCause,
    Dropped,
    Ended,
    Frame,
    Part,
    Picture,
    SkipCause,
    Timed,
    timing,
)
from pipeline.metrics import Counters
from pipeline.stages.imaging import IMAGERS
from pipeline.stages.slots import ImageSlots, give_up
from pipeline.transport.pool import Pool
from pipeline.transport.ports import Ports

logger = logging.getLogger(__name__)

Canvas = Literal["rectangle", "square"]
"""The smallest rectangle that holds the pictures, or a square that suits all pictures."""

_UINT8 = np.dtype(np.uint8)
_LEAST_SCALE = 0.9  # of the network's long side, from which on a canvas suits a frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How frames lie before the network."""

    image_size: int
    """Long side of the network's picture."""
    canvas: Canvas
    slices: SlicesConfig | None = None
    """How parts of a frame are looked at beside the whole, if they are."""
    takes: Takes = "canvases"
    """What the engine is given."""
    camera: CameraConfig = PLAIN
    """How its camera hangs, what of its picture the detector is shown, and what no one may see."""
    budget_ns: int | None = None
    """How old a frame may be and still be looked at; None for any age."""


class Preprocess:
    """Fills slots for one stream and sends what they hold."""

    def __init__(
        self,
        counters: Counters,
        framing: Framing,
        *,
        window: int,
        live: bool,
        pictures: bool,
    ) -> None:
        self._counters = counters
        # Who takes the place of a decoder that died sends only what has not arrived.
        self._first = {"frames": counters.num_settled, "pictures": counters["pictures"]}
        self._framing = framing
        self._window = window
        self._live = live
        self._links = ("frames", "pictures") if pictures else ("frames",)
        self._imager = IMAGERS[framing.takes]
        self._scaler = FrameScaler(0)
        self._images = ImageSlots(window)
        self.canvas_hw: tuple[int, int] | None = None
        """Height and width of the network's picture; None before the first."""
        self._source_hw: tuple[int, int] | None = None
        self._regions: tuple[Region, ...] = ()
        self._regions_for: tuple[tuple[int, int], tuple[int, int]] | None = None
        """The sizes of frame and canvas that the regions were chosen for."""
        self._told = False
        self._pictures: Pool | None = None
        self._matrix: nv12.Matrix | None = None
        """Of the stream's pictures, as the first one decided; a video file has one for all."""
        self._owed: deque[tuple[str, AnyMessage]] = deque()

    @property
    def num_safe(self) -> int:
        """Frames that have arrived on every link: none before this index need come again."""
        safe = self._counters.num_settled
        return min(safe, self._counters["pictures"]) if "pictures" in self._links else safe

    def open(self, parameters: CodecParameters) -> None:
        """Begin a connection."""
        turn_deg = parameters.rotation_deg - self._framing.camera.rotate_deg
        self._scaler = FrameScaler(turn_deg, parameters.pixel_aspect)

    def send(self, ports: Ports, timed: Timed, frame: AnyFrame) -> None:
        """Send a frame to the network, and to the viewer where one is there."""
        # The first frame waits for the network to say that it is there.
        if self._live and self._images.begun and not self._room(ports, timed.stream):
            self.drop(ports, timed, "overload")
            return
        picture_hw = self._scaler.upright_hw(frame)
        part = part_shown(self._framing.camera.region, picture_hw)
        self._choose_canvas((part.height, part.width))
        if timed.frame_index >= self._first["frames"]:
            self._send_frame(ports, timed, frame, part)
        self._send_picture(ports, timed, frame)

    def skip(self, ports: Ports, timed: Timed, frame: AnyFrame, cause: SkipCause) -> None:
        """Pass over a frame as the settings ask; the viewer still sees it."""
        source_hw = self._scaler.upright_hw(frame)
        tombstone = Dropped(**timing(timed), cause=cause, source_hw=source_hw)
        if self._live and not self._room(ports, timed.stream):
            self._leave(ports, tombstone)
            return
        if timed.frame_index >= self._first["frames"]:
            ports.send("frames", tombstone)
        self._send_picture(ports, timed, frame)

    def drop(self, ports: Ports, timed: Timed, cause: DropCause) -> None:
        """Leave a tombstone on every link."""
        self._leave(ports, Dropped(**timing(timed), cause=cause))

    def end(self, ports: Ports, ended: Ended) -> None:
        """Say on every link that nothing follows."""
        self._owed.extend((link, ended) for link in self._links)
        self._pay(ports, wait=True)

    def _room(self, ports: Ports, stream: str) -> bool:
        """Whether a live frame can go now on every link; looks at what has come free."""
        self._pay(ports, wait=False)
        if self._owed or not all(ports.can_send(link, stream) for link in self._links):
            return False
        pictures = self._pictures
        room = pictures is None or pictures.num_held < pictures.num_slots
        return room and self._images.has_room

    def _leave(self, ports: Ports, tombstone: Dropped) -> None:
        for link in self._links:
            if tombstone.frame_index >= self._first[link]:
                self._owed.append((link, tombstone))
        self._pay(ports, wait=not self._live)

    def _pay(self, ports: Ports, *, wait: bool) -> None:
        """Send the tombstones that are owed, in order; a live stream keeps what finds no room."""
        while self._owed:
            link, message = self._owed[0]
            if not wait and not ports.can_send(link, message.stream):
                return
            ports.send(link, message)
            self._owed.popleft()

    def _send_frame(self, ports: Ports, timed: Timed, frame: AnyFrame, shown: Region) -> None:
        source_hw = (shown.height, shown.width)
        regions = self._looks(timed.stream, source_hw)
        assert self.canvas_hw is not None
        inside = [_within(region, shown) for region in regions]
        image = self._imager.image(self._scaler, frame, inside, self.canvas_hw)
        lease = self._images.put(ports, timed.stream, image)
        budget_ns = self._framing.budget_ns
        message = Frame(
            **timing(timed),
            image=lease.slot,
            canvas_hw=self.canvas_hw,
            coded=image.coded,
            source_hw=source_hw,
            regions=regions,
            part=Part(picture_hw=self._scaler.upright_hw(frame), origin_xy=(shown.left, shown.top)),
            priority=self._framing.camera.priority,
            expires_ns=None if budget_ns is None else timed.captured_ns + budget_ns,
        )
        ports.send("frames", message, lease=lease)
        self._counters.reach("scaled", timed.captured_ns)

    def _send_picture(self, ports: Ports, timed: Timed, frame: AnyFrame) -> None:
        if "pictures" not in self._links or timed.frame_index < self._first["pictures"]:
            return
        picture_hw = self._scaler.upright_hw(frame)
        shape = nv12.shape(picture_hw)
        if self._pictures is None or self._pictures.shape != shape:
            give_up(ports, self._pictures)
            self._pictures = ports.pools.create(
                f"{timed.stream}/pictures", shape, _UINT8, self._window + 2
            )
        lease = ports.lease(self._pictures)
        there = on_host(frame)
        self._matrix = matrix = self._matrix or matrix_to_keep(there)
        self._scaler.full_size(there, lease.array, matrix)
        blacken(lease.array, self._framing.camera.privacy, picture_hw)
        message = Picture(**timing(timed), picture=lease.slot, picture_hw=picture_hw, matrix=matrix)
        ports.send("pictures", message, lease=lease)

    def _looks(self, stream: str, source_hw: tuple[int, int]) -> tuple[Region, ...]:
        """What is looked at in what is shown: the whole of it, and tiles if asked for."""
        assert self.canvas_hw is not None
        slices = self._framing.slices
        if slices is None:
            return (Region.whole(source_hw),)
        asked = (source_hw, self.canvas_hw)
        if asked != self._regions_for:
            budget = slices.budget
            regions = choose_looks(source_hw, self.canvas_hw, budget, slices.overlap)
            self._regions, self._regions_for = regions, asked
            if len(regions) < budget and not self._told:
                self._told = True
                _tell_of_fewer_looks(stream, source_hw, len(regions), budget)
        return self._regions

    def _choose_canvas(self, source_hw: tuple[int, int]) -> None:
        """Settle the canvas that suits this frame and the ones before.

        The first frame decides its shape. Where one of another size would come out much smaller on
        it than on a canvas of its own, the stream goes over to the square, which suits all frames:
        two engines serve any number of sizes.
        """
        size = self._framing.image_size
        if self.canvas_hw is None:
            square = self._framing.canvas == "square"
            self.canvas_hw = (size, size) if square else rectangle(source_hw, size)
        elif source_hw != self._source_hw and not self._suits(source_hw, self.canvas_hw):
            self.canvas_hw = (size, size)
        self._source_hw = source_hw

    def _suits(self, source_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> bool:
        long_side = max(Letterbox.fit(source_hw, canvas_hw).resized_hw)
        return long_side >= _LEAST_SCALE * self._framing.image_size


def _within(region: Region, shown: Region) -> Region:
    """Where a region of what is shown lies in the whole picture."""
    return region._replace(left=region.left + shown.left, top=region.top + shown.top)


def _tell_of_fewer_looks(
    stream: str, source_hw: tuple[int, int], num_looks: int, budget: int
) -> None:
    height, width = source_hw
    logger.warning(
        "%s: pictures of %dx%d get %d of %d looks (slices.budget): more tiles would show no more",
        *(stream, width, height, num_looks, budget),
    )
