# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with cameras and machine, as events with a beginning and an end.

A condition is noted again and again; it becomes an event once it has lasted, so that what mends
itself in a moment wakes nobody. Used by one thread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from pipeline.events import Event, new_event_id

IncidentKind = Literal["camera-lost", "overload", "disk-full"]


@dataclass(slots=True)
class _Condition:
    since_s: float
    """By the clock that nobody sets."""
    event: Event | None = None


class Incidents:
    """The conditions that hold at present."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._conditions: dict[tuple[IncidentKind, str], _Condition] = {}

    @property
    def num_open(self) -> int:
        """How many were told and are not over."""
        return sum(condition.event is not None for condition in tuple(self._conditions.values()))

    def note(
        self,
        kind: IncidentKind,
        camera: str,
        reason: str,
        *,
        now_s: float,
        at_s: float,
        after_s: float,
    ) -> None:
        """Note how something is.

        Args:
            kind: What it is about.
            camera: Which camera's it is; empty for the machine.
            reason: What is wrong; empty where nothing is.
            now_s: Seconds of a clock that nobody sets; how long it lasts goes by it.
            at_s: Seconds since 1970.
            after_s: How long it must be wrong to be told.
        """
        key = kind, camera
        condition = self._conditions.get(key)
        if not reason:
            if condition is not None:
                self._end(key, condition, at_s, interrupted=False)
        elif condition is None:
            self._conditions[key] = condition = _Condition(now_s)
        if reason and condition is not None and condition.event is None:
            lasted_s = now_s - condition.since_s
            if lasted_s >= after_s:
                condition.event = _start(kind, camera, reason, at_s - lasted_s)
                self._tell(condition.event)

    def forget(self, camera: str, at_s: float) -> None:
        """End what is about a camera that was removed."""
        for key, condition in tuple(self._conditions.items()):
            if key[1] == camera:
                self._end(key, condition, at_s, interrupted=True)

    def close(self, at_s: float) -> None:
        """End everything, as nobody looks any more."""
        for key, condition in tuple(self._conditions.items()):
            self._end(key, condition, at_s, interrupted=True)

    def _end(
        self,
        key: tuple[IncidentKind, str],
        condition: _Condition,
        at_s: float,
        *,
        interrupted: bool,
    ) -> None:
        del self._conditions[key]
        event = condition.event
        if event is not None:
            self._tell(
                replace(
                    event,
                    revision=1,
                    phase="end",
                    at_s=at_s,
                    ended_s=max(at_s, event.started_s),
                    interrupted=interrupted,
                )
            )


def _start(kind: IncidentKind, camera: str, reason: str, since_s: float) -> Event:
    return Event(
        id=new_event_id(),
        revision=0,
        phase="start",
        kind=kind,
        camera=camera,
        rule="",
        reason=reason,
        at_s=since_s,
        started_s=since_s,
    )
