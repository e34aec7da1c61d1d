# SPDX-License-Identifier: Apache-2.0
"""What stands still, told once for as long as it stays.

The place is remembered, not the object: whatever of the same class is found at a place with much
the same box is what stood there before, under whichever number. A place is given up when what stood
there is seen elsewhere, or when nothing was seen there for `forget_s` of looking.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from pipeline.rules.config import StationaryRule
from pipeline.rules.findings import Held
from pipeline.rules.geometry import Box, overlap, pairs
from pipeline.rules.memory import Parked
from pipeline.rules.objects import Known
from pipeline.rules.scene import Scene

MOST_PLACES: Final = 500

_AT_HOME_S: Final = 2.0
"""Who has stood at a place for so long is who it belongs to: it is given up when they leave."""


@dataclass(slots=True, eq=False)
class _Still:
    """Where an object has been standing, and since when."""

    box: Box
    since_s: float
    off: int = 0
    """Frames in a row that show it elsewhere."""


@dataclass(slots=True, eq=False)
class _Place:
    """Where something stands, or stood a moment ago."""

    key: int
    class_name: str
    box: Box
    since_s: float
    last_s: float
    owner: int | None = None
    """Key of the object that stands there."""
    here: Known | None = None
    """What is there in this frame."""
    missing_s: float = 0.0
    owner_elsewhere: int = 0
    """Frames in a row that show its owner elsewhere and nothing here."""


class StationaryWatch:
    """Which places are taken."""

    def __init__(self, rule: StationaryRule, parked: Sequence[Parked] = ()) -> None:
        self._rule = rule
        self._stills: dict[int, _Still] = {}
        self._keys = count(1)
        self._places: list[_Place] = []
        self._restored = tuple((next(self._keys), it) for it in parked[:MOST_PLACES])
        """What was there before a restart, until the first frame says what time it is."""

    def look(self, scene: Scene) -> Iterator[Held]:
        self._restore(scene)
        wanted = [known for known in scene.seen if scene.is_wanted(self._rule, known)]
        self._stand(scene, wanted)
        self._match(scene, wanted)
        self._places = [place for place in self._places if self._stays(place, scene)]
        self._add(scene)
        for place in self._places:
            yield self._held(place, scene)

    def reset(self) -> None:
        self._stills.clear()
        for place in self._places:
            place.owner, place.here, place.owner_elsewhere = None, None, 0

    def restored(self) -> tuple[tuple[int, Parked], ...]:
        """What is known from before a restart and waits for the first frame, by key."""
        return self._restored

    def parked(self, at_s: float, now_s: float) -> Iterator[tuple[int, Parked]]:
        """What stands where, by key; whether it was told is for the book to say."""
        yield from self._restored
        for place in self._places:
            yield (
                place.key,
                Parked(
                    class_name=place.class_name,
                    box=place.box,
                    since_s=at_s - (now_s - place.since_s),
                    told=False,
                ),
            )

    def _restore(self, scene: Scene) -> None:
        for key, parked in self._restored:
            since_s = scene.now_s - max(0.0, scene.at_s - parked.since_s)
            self._places.append(_Place(key, parked.class_name, parked.box, since_s, scene.now_s))
        self._restored = ()

    def _stand(self, scene: Scene, wanted: Sequence[Known]) -> None:
        """Note who has moved."""
        for key in list(self._stills):
            if key not in scene.known or scene.is_gone(scene.known[key]):
                del self._stills[key]
        for known in wanted:
            still = self._stills.get(known.key)
            if still is None:
                self._stills[known.key] = _Still(known.box, scene.now_s)
            elif overlap(known.box, still.box) >= self._rule.min_iou:
                still.off = 0
            else:
                still.off += not scene.predicted
                if still.off >= self._rule.confirm_frames:
                    self._stills[known.key] = _Still(known.box, scene.now_s)

    def _match(self, scene: Scene, wanted: Sequence[Known]) -> None:
        """Say of each place what is there now."""
        for place in self._places:
            place.here = None
        for class_name in {place.class_name for place in self._places}:
            old = [place for place in self._places if place.class_name == class_name]
            new = [known for known in wanted if scene.class_name(known.class_id) == class_name]
            boxes = [place.box for place in old], [known.box for known in new]
            for row, column in pairs(*boxes, self._rule.min_iou):
                self._take(old[row], new[column], scene)

    def _take(self, place: _Place, known: Known, scene: Scene) -> None:
        place.here, place.last_s = known, scene.now_s
        place.missing_s, place.owner_elsewhere = 0.0, 0
        if scene.now_s - self._stills[known.key].since_s >= min(_AT_HOME_S, self._rule.for_s):
            place.owner = known.key

    def _stays(self, place: _Place, scene: Scene) -> bool:
        """Whether a place is still to be remembered."""
        if place.here is not None:
            return True
        place.missing_s += scene.elapsed_s
        owner = None if place.owner is None else scene.known.get(place.owner)
        if owner is not None and scene.is_seen(owner):
            place.owner_elsewhere += not scene.predicted
        return (
            place.missing_s <= self._rule.forget_s
            and place.owner_elsewhere < self._rule.confirm_frames
        )

    def _add(self, scene: Scene) -> None:
        """Remember the places of who has now stood still for long enough."""
        taken = {place.here.key for place in self._places if place.here is not None}
        for known, inside in zip(scene.seen, self._in_zone(scene), strict=False):
            still = self._stills.get(known.key)
            if not inside or still is None or still.off or known.key in taken:
                continue
            if scene.now_s - still.since_s < self._rule.for_s:
                continue
            place = _Place(
                next(self._keys),
                scene.class_name(known.class_id),
                still.box,
                still.since_s,
                scene.now_s,
                owner=known.key,
                here=known,
            )
            self._places.append(place)
        if len(self._places) > MOST_PLACES:
            self._places.sort(key=lambda it: (it.missing_s, it.key))
            del self._places[MOST_PLACES:]

    def _in_zone(self, scene: Scene) -> list[bool]:
        if self._rule.zone is None:
            return [True] * len(scene.seen)
        return scene.inside(self._rule.zone, self._rule.anchor)

    def _held(self, place: _Place, scene: Scene) -> Held:
        where = "" if self._rule.zone is None else f" in {self._rule.zone}"
        stands_s = place.last_s - place.since_s
        who = place.class_name if place.here is None else scene.name(place.here)
        return Held(
            key=place.key,
            reason=f"{who} has stood still{where} for {stands_s:.0f} s",
            since_s=place.since_s,
            last_s=place.last_s,
            may_start=place.here is not None,
            about=place.here,
        )
