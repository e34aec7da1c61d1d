# SPDX-License-Identifier: Apache-2.0
"""How many objects are in a zone."""

from collections.abc import Iterator

from pipeline.rules.config import OccupancyRule
from pipeline.rules.findings import Held
from pipeline.rules.scene import Scene
from pipeline.rules.settling import Patience, Settled


class OccupancyWatch:
    """Whether there are as many as there should, or should not, be."""

    def __init__(self, rule: OccupancyRule) -> None:
        self._rule = rule
        self._patience = Patience(rule.confirm_frames, rule.confirm_s)
        self._state = Settled()
        self._inside: set[int] = set()
        """Who was last seen inside and is not known to have gone."""
        self._key = 0
        """Another one each time that it becomes so."""
        self._count = 0
        self._most = 0
        """The most there were since it is so."""

    def look(self, scene: Scene) -> Iterator[Held]:
        count = self._counted(scene)
        shown = self._fits(count)
        changed = self._state.show(shown, scene, self._patience)
        if not self._state.value:
            return
        if shown:
            self._count = count
        self._key += changed
        better = self._rule.at_least is not None and self._count > self._most and not changed
        self._most = self._count if changed else max(self._most, self._count)
        yield Held(
            key=self._key,
            reason=self._reason(self._count),
            since_s=self._state.since_s,
            last_s=self._state.last_s,
            may_start=shown,
            count=self._count,
            better=better,
        )

    def reset(self) -> None:
        self._state = Settled()
        self._inside.clear()

    def _counted(self, scene: Scene) -> int:
        rule = self._rule
        inside = scene.inside(rule.zone, rule.anchor)
        for known, here in zip(scene.seen, inside, strict=False):
            if here and scene.is_wanted(rule, known):
                self._inside.add(known.key)
            else:
                self._inside.discard(known.key)
        self._inside = {
            key
            for key in self._inside
            if key in scene.known and not scene.is_gone(scene.known[key])
        }
        nameless = zip(scene.nameless, inside[len(scene.seen) :], strict=True)
        return len(self._inside) + sum(
            here
            and sight.score >= rule.min_score
            and (not rule.classes or scene.class_name(sight.class_id) in rule.classes)
            for sight, here in nameless
        )

    def _fits(self, count: int) -> bool:
        if self._rule.at_least is not None:
            return count >= self._rule.at_least
        assert self._rule.at_most is not None
        return count <= self._rule.at_most

    def _reason(self, count: int) -> str:
        what = " or ".join(self._rule.classes) or "any class"
        if self._rule.at_least is not None:
            bound = f"at least {self._rule.at_least}"
        else:
            bound = f"at most {self._rule.at_most}"
        return f"there are {count} in {self._rule.zone} ({what}), which is {bound}"
