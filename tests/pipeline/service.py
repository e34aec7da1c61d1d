"""A service in a thread, with replayed scenes for cameras, for tests that change it as it runs."""

import itertools
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.engines.contract import Takes
from pipeline.config import OutputConfig, PipelineConfig, ServiceConfig
from pipeline.decoding.inputs import Source
from pipeline.graph import Plan, tracker_floor
from pipeline.messages import Tracked
from pipeline.metrics import CounterTable
from pipeline.outputs import Outputs
from pipeline.runner import Supervisor
from pipeline.tracking.tracks import Tracks
from tests.pipeline.scenes import CLASSES, build_squares

_SOON_NS = 150_000_000


def early_names() -> Iterator[str]:
    """Names of replays that begin to play soon; the name decides when one does."""
    for number in itertools.count():
        if zlib.crc32(f"camera{number}".encode()) % 2_000_000_000 < _SOON_NS:
            yield f"camera{number}"


YARD, DOOR, GATE = itertools.islice(early_names(), 3)


def replay(name: str, clip: Path) -> Source:
    return Source(name=name, kind="replay", location=str(clip))


@dataclass
class Running:
    """A service at work and every frame it gave."""

    supervisor: Supervisor
    frames: defaultdict[str, list[tuple[Tracked, Tracks]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    latency_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, frame: Tracked, tracks: Tracks) -> None:
        self.latency_ms[frame.stream].append((time.monotonic_ns() - frame.captured_ns) / 1e6)
        self.frames[frame.stream].append((frame, tracks))

    def wait(self, true: Callable[[], bool], timeout_s: float = 20.0) -> None:
        until = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until, f"not in time: {self.told()}"
            time.sleep(0.01)

    def wait_for_frames(self, name: str, count: int, timeout_s: float = 20.0) -> None:
        """Wait until so many more frames of a camera have come."""
        goal = len(self.frames[name]) + count
        self.wait(lambda: len(self.frames[name]) >= goal, timeout_s)

    def told(self) -> str:
        streams = self.supervisor.streams.items()
        states = [
            f"{name}: {state.camera}, {state.reason} {state.trace}" for name, state in streams
        ]
        return "; ".join([*states, self.supervisor.fault])

    def is_gone(self, name: str) -> bool:
        return name not in self.supervisor.streams


@contextmanager
def running(
    weights: Path,
    *sources: Source,
    service: ServiceConfig | None = None,
    build: Callable[..., Any] = build_squares,
    classes: tuple[str, ...] = CLASSES,
    takes: Takes = "canvases",
    devices: tuple[int, ...] = (0,),
    **nodes: Any,
) -> Iterator[Running]:
    """Run a service until the block is left."""
    service = service or ServiceConfig(most_cameras=4)
    config = PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160), output=OutputConfig(), **nodes
    )
    hands: list[Running] = []
    plan = Plan(
        config=config,
        classes=classes,
        class_ids=None,
        floor=tracker_floor(config),
        build_engine=build,
        takes=takes,
        devices=devices,
        outputs=Outputs(config.output),
        take=lambda frame, tracks: hands[0].take(frame, tracks),
        service=service,
    )
    supervisor = Supervisor(plan, CounterTable(room=service.most_cameras), sources)
    hands.append(Running(supervisor))
    thread = threading.Thread(target=supervisor.run, name="service")
    thread.start()
    try:
        yield hands[0]
    finally:
        supervisor.stop()
        thread.join(20)
        supervisor.stop()
        thread.join(20)
        assert not thread.is_alive()
