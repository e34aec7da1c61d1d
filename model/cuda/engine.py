# SPDX-License-Identifier: Apache-2.0
"""The engine for GPUs: requests of many streams in one batch, from coded pictures to boxes.

    start() --> collector --> batches thread --> slot --> results thread --> on_done()
                                   ^                           |
                                   `------- idle slots <-------'

`start` only lets a request wait and wakes the first thread, which collects batches and puts them on
the device. The second sleeps until the device has ended the oldest. What a device fails at ends
every request there is, once, and the engine runs no other: such a device needs a new process. So
does one that ends no batch for a long time, which the first thread sees.

It has run on a device that the tests play on a processor, and never on a GPU. Axes: B looks at a
picture, H and W height and width of the canvas; rows as in `model/cuda/found.py`.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8

from model.card import read_card
from model.cuda.batchslot import BatchSlot
from model.cuda.coded import CodedPicture
from model.cuda.collecting import Batch, Collector
from model.cuda.device import Device
from model.cuda.fitting import CompileNetwork, Fitting
from model.cuda.hostmemory import HostMemory
from model.cuda.plan import EnginePlan
from model.cuda.requests import Desk, Request
from model.cuda.source import FOUND_ROW, MOST_BOXES
from model.engines.contract import Done, Gives, Takes, infer_by_request
from model.errors import EngineError

logger = logging.getLogger(__name__)

HANG_S: Final = 30.0
"""A device that has not ended a batch after so long is given up."""
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True, eq=False)
class Running:
    """A batch under way."""

    slot: BatchSlot
    batch: Batch[Request]
    began_ns: int


class CudaEngine:
    """A detector that runs what many streams ask for together."""

    takes: Takes = "coded"
    gives: Gives = "boxes"

    def __init__(
        self,
        plan: EnginePlan,
        device: Device,
        compile_network: CompileNetwork,
        host_memory: HostMemory | None = None,
    ) -> None:
        """Compile the network, capture every size of batch, and begin to serve.

        Args:
            plan: What is to be built.
            device: Where.
            compile_network: Makes the network for one size of batch.
            host_memory: What the device copies from by itself, other pictures being staged; that
                which all engines on this device share if not given.

        Raises:
            EngineError: it cannot be built; the message names the setting that helps.
        """
        _check(plan)
        self.classes = read_card(plan.weights).classes
        self.host_memory = host_memory or HostMemory.shared(device)
        fitted = Fitting(plan, len(self.classes), device, compile_network, self.host_memory).fit()
        self.name = f"cuda ({fitted.how})"
        self.device = device
        self.precision: str = plan.number_format
        self.input_shape = (plan.looks, *plan.canvas_hw, 3)
        self.output_shape = (plan.looks, 1 + plan.gpu.suppression.max_boxes, FOUND_ROW)
        self.num_requests = (plan.gpu.in_flight + 1) * fitted.sizes[-1] // plan.looks
        self._desk = Desk(
            input_shape=self.input_shape,
            output_shape=self.output_shape,
            device=device.index,
            arena_bytes=plan.gpu.arena_mib << 20,
        )
        self._collector: Collector[Request] = Collector(
            fitted.sizes,
            window_ns=int(plan.gpu.window_ms * _NS_PER_MS),
            fixed=_at_least(max(plan.gpu.file_batch, plan.looks), fitted.sizes),
            max_bytes=self._desk.arena_bytes,
        )
        self._changed = threading.Condition()
        """Guards the collector and the fields up to the queue."""
        self._most_bytes = 0
        self._idle = list(fitted.slots)
        self._under_way: list[Running] = []
        """Batches whose requests were not told yet, the oldest first."""
        self._failure: Exception | None = None
        self._hangs = False
        self._closed = False
        self._running: SimpleQueue[Running | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run_batches, name="cuda-batches", daemon=True),
            threading.Thread(target=self._end_batches, name="cuda-results", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def has_room(self) -> bool:
        """Whether another request would go with those that wait, of a file or of a camera."""
        looks = self.input_shape[0]
        with self._changed:
            return all(
                self._collector.has_room(looks, self._most_bytes, fixed=fixed)
                for fixed in (False, True)
            )

    @property
    def num_staged(self) -> int:
        """Pictures so far that the device could not copy from where they lay."""
        return self.host_memory.num_staged

    def infer(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows 6"]:
        return infer_by_request(self, images)

    def start(
        self,
        images: UInt8[np.ndarray, "B H W 3"] | CodedPicture,
        predictions: Float32[np.ndarray, "B rows 6"],
        on_done: Done,
    ) -> None:
        """Begin one request; canvases run in batches of one size, as frames of files do.

        A picture that the engine cannot look at ends its own request with an `EngineError`.
        """
        try:
            request = self._desk.request(images, predictions, on_done)
        except EngineError as unfit:
            on_done(unfit)
            return
        with self._changed:
            if self._closed:
                raise EngineError("this engine is closed")
            failure = self._failure
            if failure is None:
                self._put(request)
        if failure is not None:
            on_done(failure)

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        batches, results = self._threads
        batches.join()
        if not self._hangs:
            results.join()
        self._idle.clear()

    def _put(self, request: Request) -> None:
        self._most_bytes = max(self._most_bytes, request.arena_bytes)
        self._collector.put(
            request,
            looks=len(request.looks),
            num_bytes=request.arena_bytes,
            fixed=request.fixed,
            now_ns=time.monotonic_ns(),
        )
        self._changed.notify()

    def _run_batches(self) -> None:
        """Put one batch after another on the device, until it fails or the engine is closed."""
        ticket = 1
        while (running := self._take()) is not None:
            slot, batch = running.slot, running.batch
            if self._manage(partial(slot.submit, batch.items, batch.size, ticket), running):
                self._running.put(running)
            ticket += sum(len(request.looks) for request in batch.items)
        self._running.put(None)

    def _take(self) -> Running | None:
        """Wait for a batch and for a slot to run it in; None when all have ended for good."""
        with self._changed:
            while True:
                now_ns = time.monotonic_ns()
                batch = self._collector.take(
                    now_ns, num_running=self._num_to_wait_for, idle_slots=len(self._idle)
                )
                if batch is not None:
                    running = Running(self._idle.pop(), batch, now_ns)
                    self._under_way.append(running)
                    return running
                if self._under_way and now_ns >= self._hung_ns:
                    break
                if self._is_over and not self._under_way:
                    return None
                self._changed.wait(self._wait_s(now_ns))
        self._give_up()
        return None

    @property
    def _is_over(self) -> bool:
        """Whether no other batch will begin."""
        return (self._closed or self._failure is not None) and not self._collector

    @property
    def _num_to_wait_for(self) -> int:
        """Batches that others are collected beside; a closed engine waits for no other request."""
        return 0 if self._closed else len(self._under_way)

    @property
    def _hung_ns(self) -> int:
        """When the oldest batch has taken too long."""
        return self._under_way[0].began_ns + int(HANG_S * _NS_PER_S)

    def _wait_s(self, now_ns: int) -> float | None:
        """How long there is nothing to do unless something changes."""
        due_ns = self._collector.due_ns(num_running=self._num_to_wait_for)
        times = [due_ns] if due_ns is not None and self._idle else []
        times += [self._hung_ns] if self._under_way else []
        return (min(times) - now_ns) / _NS_PER_S if times else None

    def _give_up(self) -> None:
        """End every request of a device that hangs; the other thread may wait for ever."""
        failure = EngineError(
            f"{self.name}: {self.device.name} has not ended a batch for {HANG_S:.0f} s"
        )
        self._hangs = True
        self._fail(failure)
        for running in tuple(self._under_way):
            self._tell(running, failure)

    def _end_batches(self) -> None:
        """Wait for one batch after another, in the order in which they began."""
        while (running := self._running.get()) is not None:
            if self._manage(running.slot.finish, running):
                self._tell(running, None)

    def _manage(self, step: Callable[[], None], running: Running) -> bool:
        """Do what a batch needs done; if that fails, end its requests and all that wait."""
        try:
            step()
        except Exception as failure:
            if not isinstance(failure, EngineError):
                logger.exception("%s: a fault of this program ends it", self.name)
            running.slot.abandon()
            self._fail(failure)
            self._tell(running, failure)
            return False
        return True

    def _fail(self, failure: Exception) -> None:
        """Run nothing any longer, and end what waits."""
        with self._changed:
            self._failure = self._failure or failure
            waiting = self._collector.clear()
            self._changed.notify()
        for request in waiting:
            request.on_done(failure)

    def _tell(self, running: Running, failure: Exception | None) -> None:
        """End the requests of a batch, unless they were; its slot may be filled again."""
        with self._changed:
            if running not in self._under_way:
                return
            self._under_way.remove(running)
            self._idle.append(running.slot)
            self._changed.notify()
        for request in running.batch.items:
            request.on_done(failure)


def _check(plan: EnginePlan) -> None:
    """Refuse what no device could do."""
    most, settings = plan.gpu.batch_sizes[-1], plan.gpu.suppression
    if plan.looks > most:
        raise EngineError(
            f"gpu.batch_sizes: the {plan.looks} looks at a frame go into one batch, of {most} at "
            "most; add a larger batch, or choose fewer looks"
        )
    if settings.multi_label:
        raise EngineError(
            "suppression.multi_label: engine cuda gives one box for each anchor, got true; "
            "choose false, or another model.engine"
        )
    if settings.max_boxes > MOST_BOXES:
        raise EngineError(
            f"suppression.max_boxes: engine cuda keeps {MOST_BOXES} at most, got "
            f"{settings.max_boxes}; choose fewer, or another model.engine"
        )


def _at_least(wanted: int, sizes: tuple[int, ...]) -> int:
    """The next size from `wanted` on, or the largest there is."""
    return next((size for size in sizes if size >= wanted), sizes[-1])
