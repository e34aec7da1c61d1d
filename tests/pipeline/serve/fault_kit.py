# SPDX-License-Identifier: Apache-2.0
"""What can go wrong around a service, done to one that runs over small cameras.

A `Fault` is done to a `World` and undone; `inject` says how long it took until all was well again,
and what it cost.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.telling.store import Query
from tests.pipeline.serve.world import NAMES, YARD, World, make_film_named, settle
from tests.pipeline.telling.broker import Broker
from tests.pipeline.telling.http_receiver import HttpReceiver

STEADY_S = 2.0
YEAR_S = 366 * 86_400.0


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


def _set_clock(ahead_s: float) -> Callable[[World], None]:
    """Have the machine be wrong about the time, as without a battery."""
    return lambda world: setattr(world.clock, "ahead_s", ahead_s)


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


def _told(world: World, since_s: float) -> float | None:
    """When something that happened after a time, by the right clock, is kept."""
    now_s = time.time()
    passed_s = time.monotonic() - since_s
    query = Query(since_s=now_s - passed_s, until_s=now_s + 1, limit=1)
    return time.monotonic() if world.service._teller.history.page(query).events else None


def _wrong_by(seconds: float) -> Fault:
    return Fault(begin=_set_clock(seconds), end=_set_clock(0.0), well=_told, hits=())


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
    "clock ahead by a year": _wrong_by(YEAR_S),
    "clock back by a year": _wrong_by(-YEAR_S),
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
    settle(world, steady_s)
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
    kept = {}
    for name in NAMES:
        usual = world.rate(name, began_s - steady_s, began_s)  # 0 where this machine stood still
        kept[name] = world.rate(name, began_s, began_s + lasted_s) / (usual or 25.0)
    others = [name for name in NAMES if name not in fault.hits]
    return Outcome(
        recovery_s=well_s - from_s,
        since_end_s=well_s - ended_s,
        others_share=min((kept[name] for name in others), default=1.0),
        own_share=kept[YARD],
        lost=_given_up(before.get(YARD), after[YARD]),
        others_lost=sum(sum(_given_up(before[n], after[n]).values()) for n in others),
    )


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
