# SPDX-License-Identifier: Apache-2.0
"""Who crosses a line, in which direction, and how many they were today.

An object counts once it has gone through the line, not past its ends, and has settled on the other
side: `margin` beyond the line, for as long as a change has to be confirmed. Whoever moves to and
fro upon the line stays on the side where they last settled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pipeline.rules.config import LineRule
from pipeline.rules.findings import Happened
from pipeline.rules.geometry import Border, Point
from pipeline.rules.memory import DayCount, Direction
from pipeline.rules.scene import Scene
from pipeline.rules.schedule import Hours
from pipeline.rules.settling import Patience, Settled

_DAYS: Final = 2
"""Days whose counts are kept, so that a clock that is set wrong for a while loses none."""


class LineCounts:
    """Crossings by direction, day by day."""

    def __init__(self, days: Sequence[DayCount] = ()) -> None:
        self._days = {count.day: count for count in days[-_DAYS:]}

    @property
    def days(self) -> tuple[DayCount, ...]:
        """The present day last."""
        return tuple(self._days.values())

    def of(self, day: str) -> DayCount:
        """The counts of one day."""
        return self._days.get(day, DayCount(day=day))

    def add(self, day: str, direction: Direction) -> int:
        """Count a crossing; return how many that day had in this direction."""
        count = self._days.pop(day, DayCount(day=day))
        if direction == "in":
            count = msgspec.structs.replace(count, num_in=count.num_in + 1)
        else:
            count = msgspec.structs.replace(count, num_out=count.num_out + 1)
        self._days[day] = count
        while len(self._days) > _DAYS:
            del self._days[next(iter(self._days))]
        return count.num_in if direction == "in" else count.num_out


@dataclass(slots=True)
class _Walk:
    """One object's way since it last settled on a side; the left one is the value True."""

    left: Settled = field(default_factory=Settled)
    before: tuple[Point, float] | None = None
    """Where it stood, and on which side."""
    passed: int = 0
    """Times it went through the line to the left, less those to the right."""


class LineWatch:
    """Who crosses a line while the rule is in force."""

    def __init__(self, rule: LineRule, border: Border, hours: Hours, counts: LineCounts) -> None:
        self.counts = counts
        self._rule = rule
        self._border = border
        self._hours = hours
        self._patience = Patience(rule.confirm_frames, rule.confirm_s)
        self._walks: dict[int, _Walk] = {}

    def look(self, scene: Scene) -> Iterator[Happened]:
        points = scene.points(self._rule.anchor)
        sides = self._border.sides(points, scene.picture_hw).tolist()
        for key in list(self._walks):
            if key not in scene.known or scene.is_gone(scene.known[key]):
                del self._walks[key]
        for known, point, side in zip(scene.seen, points.tolist(), sides, strict=False):
            if not scene.is_wanted(self._rule, known):
                continue
            walk = self._walks.setdefault(known.key, _Walk())
            direction = self._step(walk, tuple(point), side, scene)
            if direction is None or not self._hours.are_open(scene.at_s):
                continue
            count = self.counts.add(self._hours.day(scene.at_s), direction)
            if self._rule.direction in (direction, "both"):
                crossed = f"crossed {self._rule.line} ({direction})"
                yield Happened(
                    reason=f"{scene.name(known)} {crossed}, number {count} today",
                    about=known,
                    direction=direction,
                    count=count,
                )

    def reset(self) -> None:
        self._walks.clear()

    def _step(self, walk: _Walk, point: Point, side: float, scene: Scene) -> Direction | None:
        """Go on to a point; return the direction in which that settles a crossing."""
        if walk.before is not None and self._passes(*walk.before, point, side):
            walk.passed += 1 if side > 0 else -1
        walk.before = point, side
        if abs(side) <= self._rule.margin:
            return None
        left = side > 0
        if walk.left.value is None:
            walk.left.settle(left, scene.now_s, scene.now_s)
            walk.passed = 0
            return None
        changed = walk.left.show(left, scene, self._patience)
        if walk.left.value != left:
            return None
        went_through = changed and walk.passed * (1 if left else -1) > 0
        walk.passed = 0
        if not went_through:
            return None
        return "in" if left else "out"

    def _passes(self, before: Point, side_before: float, after: Point, side: float) -> bool:
        if (side_before > 0) == (side > 0):
            return False
        return self._border.is_met(before, after, side_before / (side_before - side))
