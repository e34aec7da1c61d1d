# SPDX-License-Identifier: Apache-2.0
"""For infer: the frames of one shape, and the engine that looks at them."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from model.cuda.coded import CodedPicture, DeviceArray
from model.engines.contract import Done, Engine, start_request, takes_coded
from pipeline.fairness import FairQueue
from pipeline.messages import Frame
from pipeline.models import ModelInUse
from pipeline.topology import numbered
from pipeline.transport.links import Delivery
from pipeline.transport.memory import Pools
from pipeline.transport.pool import Lease

Shape = tuple[int, ...]
"""Looks, height, width, 3."""
Images = np.ndarray | CodedPicture
"""What an engine is given of a frame: its canvases, or the picture as its decoder made it."""

_FLOAT32 = np.dtype(np.float32)
_SPARE_SLOTS = 2  # results that may wait for the next stage while every request runs


def shape_of(frame: Frame) -> Shape:
    """The shape that an engine for this frame has."""
    return (len(frame.regions), *frame.canvas_hw, 3)


def images_of(frame: Frame, pixels: np.ndarray | DeviceArray) -> Images:
    """What an engine is given of a frame whose slot holds these pixels."""
    if frame.coded is None:
        assert isinstance(pixels, np.ndarray), "no canvas lies on a GPU"
        return pixels
    x, y = frame.part.origin_xy
    return CodedPicture(
        pixels=pixels,
        coded=frame.coded,
        regions=tuple(r._replace(left=r.left + x, top=r.top + y) for r in frame.regions),
        fixed=frame.expires_ns is None,
    )


class Runner:
    """An engine at work, with slots for its results."""

    def __init__(self, engine: Engine, model: ModelInUse, pools: Pools, *, trunk: int = 0) -> None:
        """Have the slots made.

        Raises:
            PipelineError: there is no room for them.
        """
        self.engine = engine
        self.model = model
        self.num_running = 0
        # no stream's name holds a slash, so no stream that ends takes this pool with it
        self.results = pools.create(
            f"/{numbered('predictions', trunk)}/" + "x".join(map(str, engine.input_shape[:3])),
            engine.output_shape,
            _FLOAT32,
            engine.num_requests + _SPARE_SLOTS,
        )
        if takes_coded(engine):
            pools.watch("images", engine.host_memory)
            pools.gpu.offer(engine.device)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or is still being read."""
        return self.num_running == 0 and self.results.num_held == 0

    def lease(self) -> Lease | None:
        """A slot for another request; None where there are enough under way."""
        if self.num_running >= self.engine.num_requests or not self.engine.has_room:
            return None
        return self.results.lease()

    def start(self, images: Images, lease: Lease, on_done: Done) -> None:
        """Begin a request whose result goes into the slot."""
        self.num_running += 1
        start_request(self.engine, images, lease.array, on_done)


@dataclass(slots=True)
class Lane:
    """The frames of one shape and the engine for them, which may be on its way."""

    building: Future[Engine]
    begun_s: float = field(default_factory=time.monotonic)
    waiting: FairQueue[tuple[Delivery, Images]] = field(default_factory=FairQueue)
    runner: Runner | None = None
    before: Runner | None = None
    """Of the model before, while another is on trial."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits, runs, or is still being read."""
        runners = [runner for runner in (self.runner, self.before) if runner is not None]
        return self.building.done() and not self.waiting and all(r.idle for r in runners)


@dataclass(frozen=True, slots=True)
class Job:
    """A frame that an engine looks at."""

    runner: Runner
    delivery: Delivery
    images: Images
    lease: Lease
