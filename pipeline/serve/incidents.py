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
        self, kind: IncidentKind, camera: str, reason: str, *, now_s: float, after_s: float
    ) -> None:
        """Note how something is.

        Args:
            kind: What it is about.
            camera: Which camera's it is; empty for the machine.
            reason: What is wrong; empty where nothing is.
            now_s: Seconds since 1970.
            after_s: How long it must be wrong to be told.
        """
        key = kind, camera
        condition = self._conditions.get(key)
        if not reason:
            if condition is not None:
                self._end(key, condition, now_s, interrupted=False)
        elif condition is None:
            self._conditions[key] = condition = _Condition(now_s)
        if reason and condition is not None and condition.event is None:
            # A clock that was set back must not make a condition wait for the old time.
            condition.since_s = min(condition.since_s, now_s)
            if now_s - condition.since_s >= after_s:
                condition.event = _start(kind, camera, reason, condition.since_s)
                self._tell(condition.event)

    def forget(self, camera: str, now_s: float) -> None:
        """End what is about a camera that was removed."""
        for key, condition in tuple(self._conditions.items()):
            if key[1] == camera:
                self._end(key, condition, now_s, interrupted=True)

    def close(self, now_s: float) -> None:
        """End everything, as nobody looks any more."""
        for key, condition in tuple(self._conditions.items()):
            self._end(key, condition, now_s, interrupted=True)

    def _end(
        self,
        key: tuple[IncidentKind, str],
        condition: _Condition,
        now_s: float,
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
                    at_s=now_s,
                    ended_s=now_s,
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
