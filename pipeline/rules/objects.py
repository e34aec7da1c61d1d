# SPDX-License-Identifier: Apache-2.0
"""The objects of one camera as rules know them: tracks that survive a change of their number.

A new track that appears where an object of its class has just gone missing is that object. What is
not seen for `remember_s`, and in three frames at least, is forgotten; there are never more than
`MOST_OBJECTS`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import numpy as np

from pipeline.rules.geometry import Box, pairs
from pipeline.tracking.tracks import Tracks

MOST_OBJECTS: Final = 1000
LEAST_MISSES: Final = 3
"""Frames in which an object is missing before it may be called gone, however slow the camera."""

_SAME_PLACE_IOU: Final = 0.5
_KEPT_VOTE: Final = 0.9
_LEAST_VOTE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Sight:
    """One box of one frame."""

    track_id: int
    class_id: int
    score: float
    xyxy: Box
    """In pixels."""
    picture_hw: tuple[int, int]

    @property
    def box(self) -> Box:
        """The box in shares of the picture."""
        height, width = self.picture_hw
        left, top, right, bottom = self.xyxy
        return left / width, top / height, right / width, bottom / height


@dataclass(slots=True, eq=False)
class Known:
    """An object, as it was last seen."""

    key: int
    """Its own number, which it keeps when its track's changes."""
    sight: Sight
    box: Box
    """In shares of the picture."""
    seen_s: float
    """By the steady clock."""
    class_id: int
    """The class that most of the last sights had."""
    best_score: float
    misses: int = 0
    """Frames since it was seen."""
    _votes: dict[int, float] = field(default_factory=dict)

    def see(self, sight: Sight, now_s: float, *, predicted: bool) -> None:
        """Note where it is; a box that was carried over says nothing about what it is."""
        self.sight, self.box, self.seen_s, self.misses = sight, sight.box, now_s, 0
        if predicted:
            return
        self.best_score = max(self.best_score, sight.score)
        votes = {key: vote * _KEPT_VOTE for key, vote in self._votes.items()}
        votes[sight.class_id] = votes.get(sight.class_id, 0.0) + sight.score
        self._votes = {key: vote for key, vote in votes.items() if vote >= _LEAST_VOTE}
        if self._votes:
            self.class_id = max(self._votes, key=lambda key: (self._votes[key], -key))

    def is_gone(self, now_s: float, after_s: float) -> bool:
        """Whether it has been missing for so long."""
        return self.misses >= LEAST_MISSES and now_s - self.seen_s > after_s


class Objects:
    """All objects that are remembered."""

    def __init__(self, remember_s: float) -> None:
        self._remember_s = remember_s
        self._known: dict[int, Known] = {}
        self._keys = count(1)

    @property
    def known(self) -> Mapping[int, Known]:
        """By key, those that are out of sight included."""
        return self._known

    def see(self, sights: Iterable[Sight], now_s: float, *, predicted: bool) -> list[Known]:
        """Take in the objects of one frame and return them."""
        by_track = {known.sight.track_id: known for known in self._known.values()}
        seen: list[Known] = []
        newcomers: list[Sight] = []
        for sight in sights:
            if sight.track_id in by_track:
                seen.append(by_track.pop(sight.track_id))
                seen[-1].see(sight, now_s, predicted=predicted)
            else:
                newcomers.append(sight)
        for known, sight in self._recognised(list(by_track.values()), newcomers):
            known.see(sight, now_s, predicted=predicted)
            seen.append(known)
        there = {known.key for known in seen}
        for known in self._known.values():
            known.misses += known.key not in there
        return seen

    def forget(self, now_s: float) -> None:
        """Drop who has been away for too long, and the longest away where there are too many."""
        gone = [key for key, it in self._known.items() if it.is_gone(now_s, self._remember_s)]
        for key in gone:
            del self._known[key]
        excess = len(self._known) - MOST_OBJECTS
        if excess > 0:
            for known in sorted(self._known.values(), key=lambda it: (-it.misses, it.key))[:excess]:
                del self._known[known.key]

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def _recognised(
        self, missing: list[Known], newcomers: list[Sight]
    ) -> list[tuple[Known, Sight]]:
        """Each newcomer with the object that it is, one that was missing or a new one."""
        found: dict[int, Known] = {}
        for class_id in {sight.class_id for sight in newcomers}:
            old = [known for known in missing if known.class_id == class_id]
            new = [place for place, it in enumerate(newcomers) if it.class_id == class_id]
            boxes = [newcomers[place].box for place in new]
            for row, column in pairs([it.box for it in old], boxes, _SAME_PLACE_IOU):
                found[new[column]] = old[row]
        return [
            (found[place] if place in found else self._add(sight), sight)
            for place, sight in enumerate(newcomers)
        ]

    def _add(self, sight: Sight) -> Known:
        known = Known(
            key=next(self._keys),
            sight=sight,
            box=sight.box,
            seen_s=0.0,
            class_id=sight.class_id,
            best_score=0.0,
        )
        self._known[known.key] = known
        return known


def sights_of(tracks: Tracks, picture_hw: tuple[int, int]) -> tuple[list[Sight], list[Sight]]:
    """The boxes of one frame, those with an identity and those without, in an order of their own.

    Their order among the tracks does not matter; of too many the best are taken.
    """
    columns = (tracks.track_id, -tracks.score, tracks.class_id, *tracks.xyxy.T)
    order = np.lexsort(columns[::-1])
    if len(order) > MOST_OBJECTS:
        order = order[np.sort(np.argsort(-tracks.score[order], kind="stable")[:MOST_OBJECTS])]
    rows = zip(
        tracks.track_id[order].tolist(),
        tracks.class_id[order].tolist(),
        tracks.score[order].tolist(),
        tracks.xyxy[order].tolist(),
        strict=True,
    )
    named: dict[int, Sight] = {}
    nameless: list[Sight] = []
    for track_id, class_id, score, xyxy in rows:
        sight = Sight(track_id, class_id, score, tuple(xyxy), picture_hw)
        if track_id > 0:
            named.setdefault(track_id, sight)
        else:
            nameless.append(sight)
    return list(named.values()), nameless
