# SPDX-License-Identifier: Apache-2.0
"""Rules about one object and a zone: it enters, leaves, stays, or comes back again and again."""

from collections.abc import Iterator

from pipeline.rules.config import DwellRule, EnterRule, ExitRule, LoiterRule
from pipeline.rules.findings import Happened, Held
from pipeline.rules.geometry import Box
from pipeline.rules.objects import Known
from pipeline.rules.scene import GONE_S, Scene
from pipeline.rules.settling import Patience, Settled

_AT_EDGE = 0.01
"""Share of the picture's sides within which a box touches its edge."""


class _Inside:
    """Whether each object a rule is about is in its zone."""

    def __init__(
        self, rule: EnterRule | ExitRule | DwellRule | LoiterRule, away_s: float = 0.0
    ) -> None:
        self._rule = rule
        self._coming = Patience(rule.confirm_frames, rule.confirm_s)
        self._leaving = Patience(rule.confirm_frames, max(rule.confirm_s, away_s))
        self._gone_s = max(GONE_S, away_s)
        self._states: dict[int, Settled] = {}

    def look(self, scene: Scene) -> Iterator[tuple[Known, Settled, bool]]:
        """Yield everybody, where they are, and whether they have just gone in or out."""
        changed = set()
        inside = scene.inside(self._rule.zone, self._rule.anchor)
        for known, shown in zip(scene.seen, inside, strict=False):
            if not scene.is_wanted(self._rule, known):
                continue
            state = self._states.setdefault(known.key, Settled())
            was = state.value
            patience = self._leaving if was else self._coming
            if state.show(shown, scene, patience) and was is not None:
                changed.add(known.key)
        for key, state in self._states.items():
            yield scene.known[key], state, key in changed

    def leave_out(self, scene: Scene) -> list[tuple[Known, Settled]]:
        """Drop who has gone or does not count any more; return those who were inside and went."""
        gone = []
        for key in list(self._states):
            known = scene.known.get(key)
            if known is not None and not scene.is_gone(known, self._gone_s):
                if scene.is_wanted(self._rule, known):
                    continue
            elif known is not None and self._states[key].value:
                gone.append((known, self._states[key]))
            del self._states[key]
        return gone

    def clear(self) -> None:
        self._states.clear()


class EnterWatch:
    """Who came in from outside, for as long as they are in."""

    def __init__(self, rule: EnterRule) -> None:
        self._rule = rule
        self._inside = _Inside(rule)
        self._came: set[int] = set()

    def look(self, scene: Scene) -> Iterator[Held]:
        self._inside.leave_out(scene)
        came = set()
        for known, state, changed in self._inside.look(scene):
            if state.value and (changed or known.key in self._came):
                came.add(known.key)
                yield Held(
                    key=known.key,
                    reason=f"{scene.name(known)} entered {self._rule.zone}",
                    since_s=state.since_s,
                    last_s=state.last_s,
                    may_start=changed,
                    about=known,
                )
        self._came = came

    def reset(self) -> None:
        self._inside.clear()
        self._came.clear()


class ExitWatch:
    """Who was in and is out, or left the picture from inside."""

    def __init__(self, rule: ExitRule) -> None:
        self._rule = rule
        self._inside = _Inside(rule)

    def look(self, scene: Scene) -> Iterator[Happened]:
        for known, _ in self._inside.leave_out(scene):
            if _touches_edge(known.box):
                reason = f"{scene.name(known)} left the picture from {self._rule.zone}"
                yield Happened(reason=reason, about=known)
        for known, state, changed in self._inside.look(scene):
            if changed and not state.value:
                yield Happened(reason=f"{scene.name(known)} left {self._rule.zone}", about=known)

    def reset(self) -> None:
        self._inside.clear()


class StayWatch:
    """Who has been in for so long; with `loiter`, short absences do not end a stay."""

    def __init__(self, rule: DwellRule | LoiterRule) -> None:
        self._rule = rule
        self._inside = _Inside(rule, rule.away_s if isinstance(rule, LoiterRule) else 0.0)
        self._where = "about" if isinstance(rule, LoiterRule) else "in"

    def look(self, scene: Scene) -> Iterator[Held]:
        self._inside.leave_out(scene)
        for known, state, _ in self._inside.look(scene):
            stayed_s = scene.now_s - state.since_s
            if state.value and stayed_s >= self._rule.for_s:
                place = f"{self._where} {self._rule.zone}"
                yield Held(
                    key=known.key,
                    reason=f"{scene.name(known)} has been {place} for {stayed_s:.0f} s",
                    since_s=state.since_s,
                    last_s=state.last_s,
                    may_start=scene.is_seen(known) and state.last_s == scene.now_s,
                    about=known,
                )

    def reset(self) -> None:
        self._inside.clear()


def _touches_edge(box: Box) -> bool:
    left, top, right, bottom = box
    return min(left, top) <= _AT_EDGE or max(right, bottom) >= 1 - _AT_EDGE
