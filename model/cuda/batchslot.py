# SPDX-License-Identifier: Apache-2.0
"""Memory, streams and graphs of one batch in flight.

    host    looks (pinned)      pictures (registered, or staged)              found (pinned)
               |                   | upload stream                               ^
    device  looks                arena                                           |
               `-> letterbox_batch -> canvases -> network -> sort -> suppress_ranked -> found

Pictures that lie on the device already are read where they lie, once their writers are done.
All but the upload is one captured graph on the compute stream, one for each size of batch. The
graphs share a pool of memory, because a slot runs one at a time; two slots share none. A slot is
filled again only when the host has seen its batch end: until then the device reads what lies in it.

Every look has a ticket, which comes back with its result: what is read too early, or belongs to
another batch, is an error and no wrong box. Axes: C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from model.config import Suppression
from model.cuda.coded import DeviceArray
from model.cuda.device import Captured, Device
from model.cuda.draft import DTYPES
from model.cuda.found import parse_found, words_of
from model.cuda.hostmemory import HostMemory, Span
from model.cuda.looks import EMPTY, LOOK
from model.cuda.plan import Network, NumberFormat
from model.cuda.requests import Request
from model.cuda.source import OUT, letterbox_launch, suppress_launch
from model.suppression import MAX_CANDIDATES

_NUM_TICKETS: Final = 1 << 31
_TICKET_AT: Final = LOOK.fields["ticket"][1] if LOOK.fields else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPlan:
    """How large a slot is, and what is looked for."""

    canvas_hw: tuple[int, int]
    most_looks: int
    arena_bytes: int
    number_format: NumberFormat
    num_classes: int
    suppression: Suppression


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """What makes an anchor a candidate; on the device, shared by all slots."""

    min_score: Float32[Tensor, ""]
    wanted: Bool[Tensor, " C"]


class BatchSlot:
    """What one batch needs, from its pictures to its boxes."""

    def __init__(
        self, device: Device, plan: SlotPlan, limits: Limits, host_memory: HostMemory
    ) -> None:
        """Take the memory.

        Raises:
            OutOfDeviceMemory: there is not enough.
        """
        looks, words = plan.most_looks, words_of(plan.suppression.max_boxes)
        self._device, self._plan, self._limits = device, plan, limits
        self._host_memory = host_memory
        self._upload, self._compute = device.stream(), device.stream()
        self._uploaded, self._done = device.event(), device.event()
        self._looks_host = device.pinned((looks,), LOOK)
        self._looks_host[:] = EMPTY
        self._looks = device.empty((looks * LOOK.itemsize,), torch.uint8)
        self._arena = device.empty((plan.arena_bytes,), torch.uint8)
        self._staging: np.ndarray | None = None
        dtype = DTYPES[plan.number_format]
        self._canvases = device.empty((looks, 3, *plan.canvas_hw), dtype, channels_last=True)
        self._found = device.empty((looks, words), torch.int32)
        self._found_host = device.pinned((looks, words), np.dtype(np.int32))
        self._pool = device.new_pool()
        self._graphs: dict[int, Captured] = {}
        self._state: Literal["idle", "filling", "running"] = "idle"
        self._requests: Sequence[Request] = ()
        self._tickets = np.zeros(0, np.int32)
        self._borrowed: list[Span] = []

    def capture(self, size: int, network: Network) -> None:
        """Record the work of a batch of one size; the largest first, which makes the pool.

        Raises:
            EngineError: the device cannot do it, or lacks the memory (`OutOfDeviceMemory`).
        """
        assert self._state == "idle"
        record = partial(self._record, size, network)
        self._graphs[size] = self._device.capture(self._compute, record, pool=self._pool)

    def submit(self, requests: Sequence[Request], size: int, first_ticket: int) -> None:
        """Begin a batch of a captured size, which `finish` or `abandon` ends.

        Raises:
            EngineError: the device refuses.
        """
        assert self._state == "idle"
        self._state, self._requests = "filling", requests
        self._fill(size, first_ticket)
        self._uploaded.record(self._upload)
        self._compute.wait(self._uploaded)
        self._graphs[size].replay(self._compute)
        self._tell_lenders()
        self._done.record(self._compute)
        self._state = "running"

    def finish(self) -> None:
        """Sleep until the batch has ended, write each request's result, and let go of it.

        Raises:
            EngineError: the device failed.
        """
        assert self._state == "running"
        self._done.synchronize()
        first = 0
        for request in self._requests:
            looks = slice(first, first + len(request.looks))
            parse_found(self._found_host[looks], self._tickets[looks], request.predictions)
            first = looks.stop
        self.abandon()

    def abandon(self) -> None:
        """Let go of the batch and of its pictures' memory."""
        for span in self._borrowed:
            self._host_memory.give_back(span)
        self._borrowed.clear()
        self._state, self._requests = "idle", ()

    def _fill(self, size: int, first_ticket: int) -> None:
        """Bring the pictures, and say what is to be seen of each."""
        entries = self._looks_host
        num_looks = offset = 0
        for request in self._requests:
            moved = self._bring(request.pixels, offset)
            offset += request.arena_bytes
            looks = slice(num_looks, num_looks + len(request.looks))
            entries[looks] = request.looks
            entries["origin"][looks] += np.uint64(moved)
            num_looks = looks.stop
        entries[num_looks:size] = EMPTY
        tickets = (first_ticket + np.arange(num_looks)) % _NUM_TICKETS
        self._tickets = tickets.astype(np.int32)
        entries["ticket"][:num_looks] = self._tickets

    def _bring(self, pixels: np.ndarray | DeviceArray, offset: int) -> int:
        """Have pixels where the device can read them; returns how far their addresses move."""
        if isinstance(pixels, DeviceArray):
            if pixels.ready is not None:
                self._upload.wait(pixels.ready)
            return 0
        span = self._host_memory.borrow(pixels)
        if span is None:
            pixels = self._staged(pixels, offset)
        else:
            self._borrowed.append(span)
        address = self._arena.data_ptr() + offset
        self._device.copy_in(address, pixels.ctypes.data, pixels.nbytes, self._upload)
        return address

    def _tell_lenders(self) -> None:
        """Have pixels that lie on the device stay there until this batch has read them."""
        arrays = [each.pixels for each in self._requests if isinstance(each.pixels, DeviceArray)]
        lenders = [array.lender for array in arrays if array.lender is not None]
        if not lenders:
            return
        read = self._device.event()
        read.record(self._compute)
        for lender in lenders:
            lender.read_until(read)

    def _staged(self, pixels: np.ndarray, offset: int) -> np.ndarray:
        """Copy pixels to memory that the device can copy from."""
        if self._staging is None:
            self._staging = self._device.pinned((self._plan.arena_bytes,), np.dtype(np.uint8))
        staged = self._staging[offset : offset + pixels.nbytes]
        staged[:] = pixels.reshape(-1)
        return staged

    def _record(self, size: int, network: Network) -> None:
        """Put the work of a whole batch on the compute stream."""
        device, stream = self._device, self._compute
        host = self._looks_host.ctypes.data
        device.copy_in(self._looks.data_ptr(), host, size * LOOK.itemsize, stream)
        self._letterbox(size)
        with torch.no_grad():
            canvases = self._canvases[:size]
            boxes, keys = network(canvases, self._limits.min_score, self._limits.wanted)
            ranked = keys.sort(dim=1).values[:, :MAX_CANDIDATES].contiguous()
        self._suppress(boxes, ranked)
        found = self._found[:size]
        device.copy_out(self._found_host.ctypes.data, found.data_ptr(), found.nbytes, stream)

    def _letterbox(self, size: int) -> None:
        height, width = self._plan.canvas_hw
        launch = letterbox_launch(size, (height, width))
        strides = self._canvases.stride()
        args = (self._looks.data_ptr(), self._canvases.data_ptr(), width, height, *strides)
        out = OUT[self._plan.number_format]
        self._device.launch(
            "letterbox_batch", launch.grid, launch.block, args, self._compute, OUT=out
        )

    def _suppress(self, boxes: Tensor, ranked: Tensor) -> None:
        settings = self._plan.suppression
        num_images, num_anchors, _ = boxes.shape
        assert boxes.is_contiguous(), "the network promises contiguous boxes"
        args = (
            ranked.data_ptr(),
            boxes.data_ptr(),
            self._looks.data_ptr() + _TICKET_AT,
            LOOK.itemsize // 4,
            ranked.shape[1],
            num_anchors,
            self._plan.num_classes,
            settings.max_boxes,
            settings.max_iou,
            int(settings.class_aware),
            self._found.data_ptr(),
        )
        launch = suppress_launch(num_images)
        self._device.launch(
            "suppress_ranked",
            launch.grid,
            launch.block,
            args,
            self._compute,
            MAX_BOXES=settings.max_boxes,
        )
