# SPDX-License-Identifier: Apache-2.0
"""A service over three small cameras, with everyone it has to do with, for tests and programs."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from pipeline.decoding.inputs import Source
from pipeline.events import Event
from pipeline.messages import Tracked
from pipeline.serve.service import Service
from pipeline.stages.observe import Observer, View
from pipeline.telling.store import Query
from pipeline.tracking.tracks import Tracks
from tests.pipeline.cameras import make_film
from tests.pipeline.scenes import build_squares, make_card_file
from tests.pipeline.small_camera import SmallCamera
from tests.pipeline.telling.broker import Broker
from tests.pipeline.telling.http_receiver import HttpReceiver

NAMES = ("yard", "door", "gate")
YARD = NAMES[0]
"""Which of them it happens to."""
LIMIT_S = 30.0
_LOOP = 564
"""Frames after which the squares of `make_film` are where they began."""


@dataclass(frozen=True)
class Seen:
    """One tracked frame at the end of its way."""

    captured_s: float
    at_s: float
    pts_ns: int
    num_tracks: int


class Noted:
    """Watches one stream for the service, and notes every frame."""

    def __init__(self, inner: Observer, seen: list[Seen]) -> None:
        self._inner = inner
        self._seen = seen

    def see(self, frame: Tracked, tracks: Tracks, view: View | None) -> None:
        self._inner.see(frame, tracks, view)
        now_s, count = time.monotonic(), len(tracks.track_id)
        self._seen.append(Seen(frame.captured_ns / 1e9, now_s, frame.pts_ns, count))

    def lost(self) -> None:
        self._inner.lost()

    def close(self) -> None:
        self._inner.close()


class Watched(Service):
    """A service all of whose frames are noted."""

    def __init__(self, path: Path) -> None:
        self.seen: defaultdict[str, list[Seen]] = defaultdict(list)
        super().__init__(path)

    def _observer(self, source: Source) -> Noted:  # type: ignore[override]
        return Noted(super()._observer(source), self.seen[source.name])


@dataclass
class WallClock:
    """What the machine takes for the time; the clock that nobody sets goes on."""

    ahead_s: float = 0.0
    """By how much it is wrong."""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Have everything in this process go by it."""
        time_s, time_ns = time.time, time.time_ns
        with (
            patch("time.time", lambda: time_s() + self.ahead_s),
            patch("time.time_ns", lambda: time_ns() + round(self.ahead_s * 1e9)),
        ):
            yield


@dataclass(frozen=True)
class Age:
    """How old one frame was by the camera's own clock: since it was sent."""

    captured_s: float
    """When we say that it was captured."""
    tracked_s: float
    """When its tracks were at the end of their way."""


@dataclass
class World:
    """A service at work, and all it has to do with."""

    folder: Path
    service: Watched
    cameras: dict[str, SmallCamera]
    broker: Broker | None
    receiver: HttpReceiver
    clock: WallClock
    told: set[tuple[str, int]] = field(default_factory=set)
    """What receivers that are gone were told."""

    def wait(self, true: Callable[[], object], what: str = "", limit_s: float = LIMIT_S) -> None:
        until_s = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < until_s, f"{what} not within {limit_s:g} s: {self.state()}"
            time.sleep(0.005)

    def state(self) -> str:
        streams = self.service._supervisor.streams
        return "; ".join(
            f"{name}: {state.camera} {state.reason}" for name, state in streams.items()
        )

    def condition(self, name: str) -> str:
        """The state of a camera."""
        return self.service._supervisor.streams[name].camera.state

    def first_after(self, name: str, since_s: float) -> Seen | None:
        """The first frame of a camera that was captured after a time."""
        recent = reversed(self.service.seen[name])
        found = None
        for one in recent:
            if one.captured_s <= since_s:
                break
            found = one
        return found

    def rate(self, name: str, since_s: float, until_s: float) -> float:
        """Frames a second of a camera, seen between two times."""
        count = sum(since_s <= one.at_s < until_s for one in self.service.seen[name])
        return count / (until_s - since_s)

    def ages(self, name: str) -> list[Age]:
        """Of all frames so far of a camera that was never connected to again."""
        sent = list(self.cameras[name].sent)
        assert {one.client for one in sent} == {1}
        at_s = {round((one.ticks - sent[0].ticks) / 90): one.at_s for one in sent}  # by millisecond
        ages = []
        for one in list(self.service.seen[name]):
            sent_s = at_s[round(one.pts_ns / 1e6)]
            ages.append(Age(one.captured_s - sent_s, one.at_s - sent_s))
        return ages

    def process(self, group: str) -> int:
        """The process a group of stages of the camera has, or all of them."""
        processes = self.service._supervisor._crew._processes
        branch = self.service._supervisor.streams[YARD].branch.stream
        return next(p.pid for p in processes if p.group == group and p.stream in ("", branch))

    def statistics(self) -> Any:
        return self.service._teller.statistics()

    def put(self, credentials: str) -> None:
        """Change the settings of the camera, over what the web server calls."""
        source = self.cameras[YARD].address(credentials)
        self.service.put_camera(YARD, {**crossing(), "source": source})

    def events(self) -> list[Event]:
        """All that the database has, the latest first."""
        history, query, kept = self.service._teller.history, Query(limit=1000), []
        while (page := history.page(query)).next is not None:
            kept += page.events
            query = replace(query, after=page.next)
        return [*kept, *page.events]

    def missing(self) -> list[tuple[str, int]]:
        """Events of the database that the webhook was never told."""
        return sorted({(event.id, event.revision) for event in self.events()} - self.heard)

    @property
    def heard(self) -> set[tuple[str, int]]:
        return self.told | set(self.receiver.keys)


def settle(world: World, steady_s: float) -> None:
    """Wait until all cameras have come for a while."""
    for name in NAMES:
        goal = len(world.service.seen[name]) + round(steady_s * 25)
        world.wait(lambda name=name, goal=goal: len(world.service.seen[name]) >= goal, name)


def make_film_named(name: str, folder: Path) -> Path:
    """One of the films that cameras show, made when it is first asked for."""
    path = folder / f"{name}.mp4"
    if path.exists():
        return path
    match name:
        case "large":
            return make_film(path, num_frames=100, width=480, height=288, keyframe_each=25)
        case "mpeg4":
            return make_film(path, "mpeg4", num_frames=100, keyframe_each=25)
    return make_film(path, num_frames=_LOOP, keyframe_each=25)


@contextmanager
def world(folder: Path, *, with_broker: bool, **settings: Any) -> Iterator[World]:
    """Run a service over three cameras, with a webhook, a database and perhaps a broker."""
    film = make_film_named("usual", folder)
    cameras = {name: SmallCamera(film) for name in NAMES}
    broker = Broker(folder) if with_broker else None
    receiver = HttpReceiver()
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({**_settings(folder, cameras, broker, receiver), **settings}))
    clock = WallClock()
    with patch("pipeline.serve.service.build_engine", build_squares), clock.shown():
        service = Watched(path)
        built = World(folder, service, cameras, broker, receiver, clock)
        thread = threading.Thread(target=service.run, name="service")
        for camera in cameras.values():
            camera.ahead_s = 10_000.0
            camera.on()
        thread.start()
        try:
            settle(built, 0.4)
            yield built
        finally:
            service.stop()
            thread.join(30)
            for camera in cameras.values():
                camera.off()
            built.receiver.close()
            if broker is not None:
                broker.stop()
            assert not thread.is_alive()


def crossing() -> dict[str, Any]:
    """Somebody crosses the middle of the picture."""
    return {
        "lines": {"middle": [[0.5, 0.0], [0.5, 1.0]]},
        "rules": [{"name": "crossed", "kind": "line", "line": "middle"}],
    }


def _settings(
    folder: Path, cameras: dict[str, SmallCamera], broker: Broker | None, receiver: HttpReceiver
) -> dict[str, Any]:
    events: dict[str, Any] = {
        "database": {"path": str(folder / "kept" / "events.db")},
        "snapshots": {"directory": str(folder / "snapshots")},
        "webhooks": [{"name": "hook", "url": receiver.url}],
    }
    if broker is not None:
        events["mqtt"] = {"host": "127.0.0.1", "port": broker.port}
    return {
        "model": {"weights": str(make_card_file(folder / "card.safetensors")), "image_size": 160},
        "cameras": {
            name: {"source": camera.address(), **crossing()} for name, camera in cameras.items()
        },
        "events": events,
        "http": None,
        "state": str(folder / "state"),
    }
