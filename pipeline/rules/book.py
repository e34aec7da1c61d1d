# SPDX-License-Identifier: Apache-2.0
"""The events of one rule: each begins once, is told again when there is something new, and ends.

- What is held is one event from the first frame on that may begin it until it is not held any more.
  If its event ends before that, by the schedule or a reset, no other one begins for it.
- Outside its schedule and while it cools down a rule begins nothing; what is still so afterwards
  begins then, what has happened meanwhile is not told.
- An update is told when the picture got better by a fifth or the count changed, every `update_s` at
  most. Pictures are wanted at once, so there are few: each is a fifth better than the one before.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from pipeline.events import Event, Phase, Subject
from pipeline.rules.config import Rule
from pipeline.rules.findings import Happened, Held
from pipeline.rules.geometry import size
from pipeline.rules.objects import Known
from pipeline.rules.scene import Scene
from pipeline.rules.telling import PictureWanted, Told

_BETTER: Final = 1.2
"""How much better a picture has to be to be taken."""
_CUT: Final = 0.1
"""What a picture is worth whose object is cut by the edge."""
_EDGE_PX: Final = 2.0


@dataclass(slots=True, eq=False)
class _Open:
    """An event that has begun."""

    event: Event
    """What was last told."""
    told_s: float
    quality: float
    subject: Subject | None
    last_at_s: float
    has_news: bool = False


class Book:
    """The events of one rule."""

    def __init__(self, rule: Rule, camera: str, new_id: Callable[[], str]) -> None:
        self._rule = rule
        self._camera = camera
        self._new_id = new_id
        self._open: dict[int, _Open] = {}
        self._over: set[int] = set()
        """Keys that are held, but whose event has ended."""
        self._quiet_until_s = -float("inf")
        self._now_s = -float("inf")
        self._events: list[Event] = []
        self._pictures: list[PictureWanted] = []

    def knows(self, key: int) -> bool:
        """Whether there was an event about something that is held."""
        return key in self._open or key in self._over

    def mark_told(self, key: int) -> None:
        """Begin no event about something."""
        self._over.add(key)

    def settle(self, scene: Scene, found: Iterable[Held | Happened], *, in_force: bool) -> Told:
        """Make events of what a rule found in one frame."""
        self._now_s = scene.now_s
        findings = list(found)
        held = {it.key: it for it in findings if isinstance(it, Held)}
        for key in sorted(self._open.keys() - held.keys()):
            self._end(key, scene.at_s, interrupted=False)
        self._over &= held.keys()
        if not in_force:
            self._end_all(scene.at_s, interrupted=False)
            return self._told()
        for finding in findings:
            if isinstance(finding, Happened):
                self._tell_moment(finding, scene)
            elif finding.key in self._open:
                self._go_on(self._open[finding.key], finding, scene)
            elif self._may_start(finding):
                self._start(finding, scene)
        return self._told()

    def interrupt(self, at_s: float) -> Told:
        """End what is open, as nobody looks any more."""
        self._end_all(at_s, interrupted=True)
        return self._told()

    def _may_start(self, held: Held) -> bool:
        return held.may_start and held.key not in self._over and self._now_s >= self._quiet_until_s

    def _start(self, held: Held, scene: Scene) -> None:
        event = Event(
            id=self._new_id(),
            revision=0,
            phase="start",
            kind=self._rule.kind,
            camera=self._camera,
            rule=self._rule.name,
            reason=held.reason,
            at_s=scene.at_s,
            started_s=scene.at_s - (scene.now_s - held.since_s),
            subject=None if held.about is None else _subject(held.about, scene),
            count=held.count,
        )
        quality = 0.0 if held.about is None or scene.predicted else _quality(held.about)
        self._open[held.key] = _Open(event, scene.now_s, quality, event.subject, scene.at_s)
        self._events.append(event)
        self._want_picture(event.id, event.subject)
        self._be_quiet()

    def _go_on(self, opened: _Open, held: Held, scene: Scene) -> None:
        opened.last_at_s = scene.at_s - (scene.now_s - held.last_s)
        if held.better:
            self._want_picture(opened.event.id, None)
        elif held.about is not None and scene.is_seen(held.about) and not scene.predicted:
            self._look_better(opened, held.about, scene)
        opened.has_news |= held.count != opened.event.count
        if opened.has_news and scene.now_s - opened.told_s >= self._rule.update_s:
            opened.told_s, opened.has_news = scene.now_s, False
            told = replace(opened.event, reason=held.reason, count=held.count)
            opened.event = _next(told, "update", scene.at_s, opened.subject)
            self._events.append(opened.event)

    def _look_better(self, opened: _Open, known: Known, scene: Scene) -> None:
        """Want a picture of this frame if it is the best so far."""
        quality = _quality(known)
        if quality > opened.quality * _BETTER:
            opened.quality, opened.subject = quality, _subject(known, scene)
            opened.has_news = True
            self._want_picture(opened.event.id, opened.subject)

    def _end(self, key: int, at_s: float, *, interrupted: bool) -> None:
        opened = self._open.pop(key)
        ended_s = max(opened.last_at_s, opened.event.started_s)
        event = _next(opened.event, "end", at_s, opened.subject)
        self._events.append(replace(event, ended_s=ended_s, interrupted=interrupted))
        self._be_quiet()

    def _end_all(self, at_s: float, *, interrupted: bool) -> None:
        for key in sorted(self._open):
            self._over.add(key)
            self._end(key, at_s, interrupted=interrupted)

    def _tell_moment(self, happened: Happened, scene: Scene) -> None:
        if self._now_s < self._quiet_until_s:
            return
        at_s = scene.at_s - (scene.now_s - happened.about.seen_s)
        event = Event(
            id=self._new_id(),
            revision=0,
            phase="moment",
            kind=self._rule.kind,
            camera=self._camera,
            rule=self._rule.name,
            reason=happened.reason,
            at_s=at_s,
            started_s=at_s,
            ended_s=at_s,
            subject=_subject(happened.about, scene),
            direction=happened.direction,
            count=happened.count,
        )
        self._events.append(event)
        if scene.is_seen(happened.about):
            self._want_picture(event.id, event.subject)
        self._be_quiet()

    def _want_picture(self, event_id: str, subject: Subject | None) -> None:
        wanted = PictureWanted(event_id=event_id, rule=self._rule.name, subject=subject)
        self._pictures.append(wanted)

    def _be_quiet(self) -> None:
        self._quiet_until_s = self._now_s + self._rule.cool_down_s

    def _told(self) -> Told:
        told = Told(events=tuple(self._events), pictures=tuple(self._pictures))
        self._events.clear()
        self._pictures.clear()
        return told


def _next(event: Event, phase: Phase, at_s: float, subject: Subject | None) -> Event:
    """The next message of an event."""
    return replace(event, revision=event.revision + 1, phase=phase, at_s=at_s, subject=subject)


def _subject(known: Known, scene: Scene) -> Subject:
    return Subject(
        track_id=known.sight.track_id,
        class_name=scene.class_name(known.class_id),
        score=known.sight.score,
        xyxy=known.sight.xyxy,
        picture_hw=known.sight.picture_hw,
    )


def _quality(known: Known) -> float:
    """How good a picture of an object is: its score and size, less if the edge cuts it."""
    left, top, right, bottom = known.sight.xyxy
    height, width = known.sight.picture_hw
    is_cut = min(left, top, width - right, height - bottom) < _EDGE_PX
    return known.sight.score * size(known.box) * (_CUT if is_cut else 1.0)
