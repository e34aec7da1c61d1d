# SPDX-License-Identifier: Apache-2.0
"""What can go wrong around a service, done to one that runs over small cameras.

A `World` is the service, its cameras and receivers. A `Fault` is done to it and undone; `inject`
says how long it took until all was well again, and what it cost.
"""

import os
import random
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.decoding.inputs import Source
from pipeline.messages import Tracked
from pipeline.serve import service as serving
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
STEADY_S = 2.0
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
        self.service.put_camera(YARD, {**_rules(), "source": source})

    def missing(self) -> list[tuple[str, int]]:
        """Events of the database that the webhook was never told."""
        history, query, kept = self.service._teller.history, Query(limit=1000), set()
        while (page := history.page(query)).next is not None:
            kept |= {(event.id, event.revision) for event in page.events}
            query = replace(query, after=page.next)
        kept |= {(event.id, event.revision) for event in page.events}
        return sorted(kept - self.heard)

    @property
    def heard(self) -> set[tuple[str, int]]:
        return self.told | set(self.receiver.keys)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong and is mended again."""

    begin: Callable[[World], object]
    end: Callable[[World], object] = lambda _: None
    hold_s: tuple[float, float] = (0.5, 3.0)
    """Between what times it lasts."""
    well: Callable[[World, float], float | None] | None = None
    """When all was well again after a time; None is when the camera's frames come again."""
    hits: tuple[str, ...] = (YARD,)
    """Cameras that it concerns."""


def _switch(name: str, value: object) -> Callable[[World], None]:
    return lambda world: setattr(world.cameras[YARD], name, value)


def _off(world: World) -> None:
    world.cameras[YARD].off()


def _on(world: World) -> None:
    world.cameras[YARD].on()


def _half_open(world: World) -> None:
    world.cameras[YARD].off()
    world.cameras[YARD].silent = True
    world.cameras[YARD].on()


def _refuse(world: World) -> None:
    world.cameras[YARD].off()
    world.cameras[YARD].busy = True
    world.cameras[YARD].on()


def _wrong_password(world: World) -> None:
    world.put("bob:wrong")
    world.wait(lambda: world.condition(YARD) == "wrong-credentials", "refusal")


def _show_next(*films: str) -> Callable[[World], None]:
    """Have it come back with the next of these films."""
    turn = iter(films * 1000)

    def show(world: World) -> None:
        world.cameras[YARD].show(make_film_named(next(turn), world.folder))
        world.cameras[YARD].on()

    return show


def _back_in_time(world: World) -> None:
    world.cameras[YARD].ahead_s -= 10


def _kill(group: str) -> Callable[[World], None]:
    return lambda world: os.kill(world.process(group), signal.SIGKILL)


def _broker(world: World) -> Broker:
    assert world.broker is not None
    return world.broker


def _close_receiver(world: World) -> None:
    world.receiver.close()


def _open_receiver(world: World) -> None:
    world.told |= set(world.receiver.keys)
    world.receiver = HttpReceiver(port=world.receiver.port)


def _take_database(world: World) -> None:
    folder = world.folder / "kept"
    shutil.rmtree(folder)
    folder.touch()
    world.wait(lambda: not world.statistics().writable, "the fault of the database")


def _give_database(world: World) -> None:
    (world.folder / "kept").unlink()


def _delivered(receiver: str) -> Callable[[World, float], float | None]:
    def when(world: World, since_s: float) -> float | None:
        del since_s
        state = world.statistics().receivers[receiver]
        return time.monotonic() if state.connected and not state.waiting else None

    return when


def _kept(world: World, since_s: float) -> float | None:
    del since_s
    statistics = world.statistics()
    return time.monotonic() if statistics.writable and not statistics.waiting else None


FAULTS: dict[str, Fault] = {
    "camera killed": Fault(begin=_off, end=_on),
    "camera frozen": Fault(
        begin=_switch("frozen", True), end=_switch("frozen", False), hold_s=(5.5, 8)
    ),
    "camera refuses": Fault(begin=_refuse, end=_switch("busy", False)),
    "camera half-open": Fault(begin=_half_open, end=_switch("silent", False), hold_s=(1, 6)),
    "wrong password": Fault(begin=_wrong_password, end=lambda world: world.put("bob:se%25cret")),
    "garbage": Fault(begin=_switch("garbled", True), end=_switch("garbled", False)),
    "30 % packet loss": Fault(begin=_switch("loss", 0.3), end=_switch("loss", 0.0), hold_s=(3, 5)),
    "another size": Fault(begin=_off, end=_show_next("large", "usual")),
    "another codec": Fault(begin=_off, end=_show_next("mpeg4", "usual")),
    "times step back": Fault(begin=_back_in_time, hold_s=(0, 0)),
    "reader killed": Fault(begin=_kill("read"), hold_s=(0, 0)),
    "tracker killed": Fault(begin=_kill("track"), hold_s=(0, 0)),
    "trunk killed": Fault(begin=_kill("trunk"), hold_s=(0, 0), hits=NAMES),
    "broker gone": Fault(
        begin=lambda world: _broker(world).stop(),
        end=lambda world: _broker(world).start(),
        well=_delivered("mqtt"),
        hits=(),
    ),
    "webhook gone": Fault(
        begin=_close_receiver, end=_open_receiver, well=_delivered("webhook hook"), hits=()
    ),
    "database gone": Fault(begin=_take_database, end=_give_database, well=_kept, hits=()),
}


@dataclass(frozen=True)
class Outcome:
    """How it went, once."""

    recovery_s: float
    """From the first keyframe the camera sent after the fault, or from its end where it was no
    camera's, until all was well."""
    since_end_s: float
    """The same from the end of the fault: with the time that we looked away."""
    others_share: float
    """The least share of its frame rate that a camera kept which the fault did not concern."""
    own_share: float
    """What the camera kept of its own, from the fault's begin until all was well."""
    lost: dict[str, int]
    """Frames and packets of the camera given up or not decoded meanwhile, by cause."""
    others_lost: int
    """Frames and packets of the others that were given up."""


def inject(
    world: World, fault: Fault, chance: random.Random, *, steady_s: float = STEADY_S
) -> Outcome:
    """Do it, undo it, and wait until all is well.

    Args:
        world: To which it is done.
        fault: What is done.
        chance: Says how long it lasts.
        steady_s: How long all cameras have to come before.
    """
    _settle(world, steady_s)
    before = world.service._supervisor.counted()
    began_s = time.monotonic()
    try:
        fault.begin(world)
        time.sleep(chance.uniform(*fault.hold_s))
    finally:
        ended_s = began_s if fault.hold_s == (0, 0) else time.monotonic()
        fault.end(world)
    well_s, from_s = _await_health(world, fault, ended_s)
    lasted_s = max(time.monotonic() - began_s, 1.0)
    time.sleep(max(0.0, began_s + lasted_s - time.monotonic()))
    after = world.service._supervisor.counted()
    kept = {
        name: world.rate(name, began_s, began_s + lasted_s)
        / world.rate(name, began_s - steady_s, began_s)
        for name in NAMES
    }
    others = [name for name in NAMES if name not in fault.hits]
    return Outcome(
        recovery_s=well_s - from_s,
        since_end_s=well_s - ended_s,
        others_share=min((kept[name] for name in others), default=1.0),
        own_share=kept[YARD],
        lost=_given_up(before.get(YARD), after[YARD]),
        others_lost=sum(sum(_given_up(before[n], after[n]).values()) for n in others),
    )


def _settle(world: World, steady_s: float) -> None:
    """Wait until all cameras have come for a while."""
    for name in NAMES:
        goal = len(world.service.seen[name]) + round(steady_s * 25)
        world.wait(lambda name=name, goal=goal: len(world.service.seen[name]) >= goal, name)


def _await_health(world: World, fault: Fault, ended_s: float) -> tuple[float, float]:
    """When all was well, and from when that counts."""
    if fault.well is not None:
        found: list[float] = []
        well = fault.well
        world.wait(lambda: (at_s := well(world, ended_s)) and (found.append(at_s) or True))
        return found[0], ended_s
    firsts = []
    for name in fault.hits:
        world.wait(lambda name=name: world.first_after(name, ended_s), name)
        first = world.first_after(name, ended_s)
        assert first is not None
        firsts.append(first)
    well_s = max(first.at_s for first in firsts)
    if fault.hold_s == (0, 0):
        return well_s, ended_s
    # Where a frame came before any keyframe, the connection had outlived the fault.
    sent = [one.at_s for one in world.cameras[YARD].sent if one.keyframe and one.at_s >= ended_s]
    return well_s, next((at_s for at_s in sent if at_s < well_s), ended_s)


def _given_up(before: Any, after: Any) -> dict[str, int]:
    names = ("late_packets", "undecodable", *(name for name in after if name.startswith("dropped")))
    counts = {name: after[name] - (before[name] if before else 0) for name in names}
    return {name: count for name, count in counts.items() if count}


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
    with _patched():
        service = Watched(path)
        built = World(folder, service, cameras, broker, receiver)
        thread = threading.Thread(target=service.run, name="service")
        for camera in cameras.values():
            camera.ahead_s = 10_000.0
            camera.on()
        thread.start()
        try:
            _settle(built, 0.4)
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


@contextmanager
def _patched() -> Iterator[None]:
    before = serving.build_engine
    serving.build_engine = build_squares
    try:
        yield
    finally:
        serving.build_engine = before


def _rules() -> dict[str, Any]:
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
            name: {"source": camera.address(), **_rules()} for name, camera in cameras.items()
        },
        "events": events,
        "http": None,
        "state": str(folder / "state"),
    }
