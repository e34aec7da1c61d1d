# SPDX-License-Identifier: Apache-2.0
"""Rules of one camera: its tracks in, frame by frame and in order; events out.

    rules = Rules(config, camera="yard", classes=model_classes)
    told = rules.update(tracks, picture_hw, at_s=..., captured_ns=...)

Nothing here reads a clock. Durations go by `captured_ns`, which nobody sets, so that a wall clock
that jumps changes stamps and schedules and nothing else. What is kept is bounded: objects, places
and days all have their number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from msgspec.structs import replace

from pipeline.events import new_event_id
from pipeline.rules.book import Book
from pipeline.rules.config import (
    DwellRule,
    EnterRule,
    ExitRule,
    LineRule,
    LoiterRule,
    OccupancyRule,
    Rule,
    RulesConfig,
    StationaryRule,
)
from pipeline.rules.findings import Watch
from pipeline.rules.lines import LineCounts, LineWatch
from pipeline.rules.memory import DayCount, RulesMemory
from pipeline.rules.objects import Objects, sights_of
from pipeline.rules.occupancy import OccupancyWatch
from pipeline.rules.scene import GONE_S, Places, Scene
from pipeline.rules.schedule import Hours
from pipeline.rules.stationary import StationaryWatch
from pipeline.rules.telling import Told
from pipeline.rules.zones import EnterWatch, ExitWatch, StayWatch
from pipeline.tracking.tracks import Tracks

_LONGEST_GAP_S: Final = 10.0
_LONGEST_GAP_FRAMES: Final = 10.0
"""A gap longer than both, by the usual distance of frames, is as if the camera had been lost."""
_PACE_SHARE: Final = 0.1
"""What a new distance counts in the usual one."""
_LONGER_S: Final = 1.0
"""How much longer an object is remembered than any rule waits for it."""


@dataclass(frozen=True, slots=True)
class _Post:
    """One rule at work."""

    rule: Rule
    watch: Watch
    book: Book
    hours: Hours


class Rules:
    """Turns tracks of one camera into events."""

    def __init__(
        self,
        config: RulesConfig,
        *,
        camera: str,
        classes: Sequence[str],
        memory: RulesMemory | None = None,
        new_id: Callable[[], str] = new_event_id,
    ) -> None:
        """Begin to look.

        Args:
            config: Zones, lines and rules.
            camera: What its events call it.
            classes: The model's names of its classes, by class id.
            memory: What `memory()` gave before a restart or a change of settings.
            new_id: Gives each event its identity.
        """
        self._classes = tuple(classes)
        self._places = Places(config)
        memory = memory or RulesMemory()
        self._posts = tuple(
            _post(rule, Book(rule, camera, new_id), self._places, config.timezone, memory)
            for rule in config.rules
        )
        away_s = [rule.away_s for rule in config.rules if isinstance(rule, LoiterRule)]
        self._objects = Objects(max(GONE_S, *away_s, 0.0) + _LONGER_S)
        self._pace = _Pace()
        self._at_s = 0.0
        self._now_s = 0.0
        """A clock of our own that follows `captured_ns` and stands where that steps back."""
        self._captured_s: float | None = None

    def update(
        self,
        tracks: Tracks,
        picture_hw: tuple[int, int],
        *,
        at_s: float,
        captured_ns: int,
        predicted: bool = False,
    ) -> Told:
        """Take in the next frame.

        Args:
            tracks: Its objects; those with track id 0 have no identity and count in zones only.
            picture_hw: Height and width of the upright picture the boxes are in.
            at_s: When it was captured, in seconds since 1970.
            captured_ns: The same by the monotonic clock.
            predicted: Whether its objects were carried over, not detected.
        """
        captured_s = captured_ns / 1e9
        told = Told()
        if self._pace.is_gap(captured_s):
            told = self.reset(self._at_s)
        elapsed_s = self._pace.go_on(captured_s)
        if self._captured_s is not None:
            self._now_s += max(0.0, captured_s - self._captured_s)
        self._at_s, self._captured_s = at_s, captured_s
        named, nameless = sights_of(tracks, picture_hw)
        scene = Scene(
            at_s=at_s,
            now_s=self._now_s,
            elapsed_s=elapsed_s,
            predicted=predicted,
            picture_hw=picture_hw,
            classes=self._classes,
            places=self._places,
            known=self._objects.known,
            seen=self._objects.see(named, self._now_s, predicted=predicted),
            nameless=nameless,
        )
        parts = [told]
        for post in self._posts:
            found = post.watch.look(scene)
            parts.append(post.book.settle(scene, found, in_force=post.hours.are_open(at_s)))
        self._objects.forget(self._now_s)
        return _joined(parts)

    def reset(self, at_s: float) -> Told:
        """Note that the tracker begins anew: the camera was lost, or its picture changed.

        Open events end as interrupted. What stood still is not told again if it is still there.
        """
        told = self.close(at_s)
        for post in self._posts:
            post.watch.reset()
        self._objects.clear()
        self._pace = _Pace()
        return told

    def close(self, at_s: float) -> Told:
        """End what is open, as nobody looks any more."""
        return _joined([post.book.interrupt(at_s) for post in self._posts])

    def memory(self) -> RulesMemory:
        """What has to be known again after a restart."""
        parked = {}
        for post in self._posts:
            if isinstance(post.watch, StationaryWatch):
                parked[post.rule.name] = tuple(
                    replace(it, told=it.told or post.book.knows(key))
                    for key, it in post.watch.parked(self._at_s, self._now_s)
                )
        crossed = {
            post.rule.name: post.watch.counts.days
            for post in self._posts
            if isinstance(post.watch, LineWatch)
        }
        return RulesMemory(parked=parked, crossed=crossed)

    def crossed(self, at_s: float) -> dict[str, DayCount]:
        """How many have crossed each line rule's line on the day of a moment, by rule."""
        return {
            post.rule.name: post.watch.counts.of(post.hours.day(at_s))
            for post in self._posts
            if isinstance(post.watch, LineWatch)
        }


class _Pace:
    """How far apart frames usually are."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._usual_s: float | None = None

    def is_gap(self, now_s: float) -> bool:
        """Whether much more time has passed than usually does."""
        if self._last_s is None or self._usual_s is None:
            return False
        longest_s = max(_LONGEST_GAP_S, _LONGEST_GAP_FRAMES * self._usual_s)
        return now_s - self._last_s > longest_s

    def go_on(self, now_s: float) -> float:
        """Note the next frame; return how long ago the one before was."""
        elapsed_s = 0.0 if self._last_s is None else max(0.0, now_s - self._last_s)
        if self._last_s is not None:
            usual_s = elapsed_s if self._usual_s is None else self._usual_s
            self._usual_s = usual_s + _PACE_SHARE * (elapsed_s - usual_s)
        self._last_s = now_s
        return elapsed_s


def _post(
    rule: Rule, book: Book, places: Places, timezone: str | None, memory: RulesMemory
) -> _Post:
    """Set a rule to work."""
    hours = Hours(rule.schedule, timezone)
    watch = _watch(rule, places, hours, memory)
    if isinstance(watch, StationaryWatch):
        for key, parked in watch.restored():
            if parked.told:
                book.mark_told(key)
    return _Post(rule, watch, book, hours)


def _watch(rule: Rule, places: Places, hours: Hours, memory: RulesMemory) -> Watch:
    match rule:
        case EnterRule():
            return EnterWatch(rule)
        case ExitRule():
            return ExitWatch(rule)
        case OccupancyRule():
            return OccupancyWatch(rule)
        case DwellRule() | LoiterRule():
            return StayWatch(rule)
        case StationaryRule():
            return StationaryWatch(rule, memory.parked.get(rule.name, ()))
        case LineRule():
            counts = LineCounts(memory.crossed.get(rule.name, ()))
            return LineWatch(rule, places.borders[rule.line], hours, counts)
        case _:
            assert_never(rule)


def _joined(parts: Sequence[Told]) -> Told:
    return Told(
        events=tuple(event for part in parts for event in part.events),
        pictures=tuple(picture for part in parts for picture in part.pictures),
    )
