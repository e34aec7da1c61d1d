# SPDX-License-Identifier: Apache-2.0
"""infer: the compiled detector, several requests in flight, one engine per picture shape.

Requests end in any order; what follows puts each stream back into its own. An engine for a new
shape is built beside the ones that run. A frame is acknowledged when its tracks are safe.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from model.engines.contract import Engine
from pipeline.errors import StageError
from pipeline.fairness import FairQueue
from pipeline.messages import Dropped, Frame, Predictions, timing
from pipeline.transport.control import EngineBuilt
from pipeline.transport.links import Delivery
from pipeline.transport.pool import Lease, Pool, SlotGone
from pipeline.transport.ports import Ports

_FLOAT32 = np.dtype(np.float32)
_MOST_LANES = 8  # engines kept ready; each holds its weights and its activations
_SPARE_SLOTS = 2  # results that may wait for the next stage while every request runs

BuildEngine = Callable[..., Engine]
"""An engine for pictures of `image_hw`, their height and width, `batch` looks at a time."""


@dataclass(slots=True)
class _Lane:
    """The frames of one shape and the engine for them."""

    engine: Future[Engine]
    begun_s: float
    waiting: FairQueue[tuple[Delivery, np.ndarray]] = field(default_factory=FairQueue)
    num_running: int = 0
    results: Pool | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits, runs, or is still being read."""
        reading = self.results is not None and self.results.num_held > 0
        return self.engine.done() and not (self.waiting or self.num_running or reading)


@dataclass(frozen=True, slots=True)
class _Job:
    lane: _Lane
    delivery: Delivery
    lease: Lease


class Infer:
    """Runs engines over the frames of all streams."""

    def __init__(self, build: BuildEngine) -> None:
        self._build = build
        self._lanes: dict[tuple[int, ...], _Lane] = {}
        self._done: deque[tuple[_Job, BaseException | None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._builder = ThreadPoolExecutor(1, "build-engine")

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Serve until the supervisor ends the run."""
        try:
            while True:
                delivery = ports.receive("frames", wake=self._wake)
                if delivery is not None:
                    self._accept(ports, delivery)
                with suppress(BlockingIOError):  # not every return is because of it
                    os.eventfd_read(self._wake)
                self._send_results(ports)
                self._start_requests(ports)
        finally:
            self._close()

    def _accept(self, ports: Ports, delivery: Delivery) -> None:
        message = delivery.message
        if not isinstance(message, Frame):
            ports.send("predictions", message, on_acknowledged=delivery.acknowledge)
            return
        try:
            images = ports.pools.view(message.image)
        except SlotGone:  # its stream ended, or its decoder died and the next one sends it again
            delivery.acknowledge()
            return
        shape = message.image.shape
        if shape not in self._lanes:
            self._make_room(ports)
            looks, height, width, _ = shape
            engine = self._builder.submit(self._build, image_hw=(height, width), batch=looks)
            engine.add_done_callback(lambda _: os.eventfd_write(self._wake, 1))
            self._lanes[shape] = _Lane(engine, time.monotonic())
        waiting = self._lanes[shape].waiting
        waiting.put(message.stream, (delivery, images), message.priority)

    def _make_room(self, ports: Ports) -> None:
        """Close engines that nobody uses, the oldest first, where there are too many."""
        idle = [shape for shape, lane in self._lanes.items() if lane.idle]
        for shape in idle[: len(self._lanes) - _MOST_LANES + 1]:
            lane = self._lanes.pop(shape)
            lane.engine.result().close()
            if lane.results is not None:
                ports.pools.discard(lane.results.name)

    def _start_requests(self, ports: Ports) -> None:
        for lane in self._lanes.values():
            if not lane.engine.done():
                continue
            engine = lane.engine.result()
            if lane.results is None:
                _report(ports, engine, time.monotonic() - lane.begun_s)
                # no stream's name holds a slash, so no stream that ends takes this pool with it
                lane.results = ports.pools.create(
                    "/predictions/" + "x".join(map(str, engine.input_shape[:3])),
                    engine.output_shape,
                    _FLOAT32,
                    engine.num_requests + _SPARE_SLOTS,
                )
            self._drop_late(ports, lane)
            while lane.waiting and lane.num_running < engine.num_requests:
                lease = lane.results.lease()
                if lease is None:
                    break
                delivery, images = lane.waiting.take()
                self._start(engine, _Job(lane, delivery, lease), images)

    def _drop_late(self, ports: Ports, lane: _Lane) -> None:
        """Leave tombstones for frames that waited too long, before they cost a request."""
        now_ns = time.monotonic_ns()

        def late(waiting: tuple[Delivery, np.ndarray]) -> bool:
            frame = waiting[0].message
            assert isinstance(frame, Frame)
            return frame.expires_ns is not None and now_ns > frame.expires_ns

        for delivery, _ in lane.waiting.remove(late):
            assert isinstance(delivery.message, Frame)
            dropped = Dropped(**timing(delivery.message), cause="late")
            ports.send("predictions", dropped, on_acknowledged=delivery.acknowledge)

    def _start(self, engine: Engine, job: _Job, images: np.ndarray) -> None:
        def on_done(error: BaseException | None) -> None:
            self._done.append((job, error))
            os.eventfd_write(self._wake, 1)

        job.lane.num_running += 1
        engine.start(images, job.lease.array, on_done)

    def _send_results(self, ports: Ports) -> None:
        while self._done:
            job, error = self._done.popleft()
            job.lane.num_running -= 1
            message = job.delivery.message
            assert isinstance(message, Frame)
            if error is not None:
                raise StageError(
                    f"{message.stream}: frame {message.frame_index}: the engine failed: {error}"
                ) from error
            _, height, width, _ = message.image.shape
            ports.send(
                "predictions",
                Predictions(
                    **timing(message),
                    rows=job.lease.slot,
                    canvas_hw=(height, width),
                    regions=message.regions,
                    part=message.part,
                ),
                lease=job.lease,
                on_acknowledged=job.delivery.acknowledge,
            )

    def _close(self) -> None:
        self._builder.shutdown(cancel_futures=True)
        for lane in self._lanes.values():
            if not lane.engine.cancelled() and lane.engine.exception() is None:
                lane.engine.result().close()
        os.close(self._wake)


def _report(ports: Ports, engine: Engine, build_s: float) -> None:
    ports.report(
        EngineBuilt(
            name=engine.name,
            precision=engine.precision,
            input_shape=engine.input_shape,
            build_s=build_s,
        )
    )
