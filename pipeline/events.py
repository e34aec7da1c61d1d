# SPDX-License-Identifier: Apache-2.0
"""What happened, as everyone outside is told: one message for the start, each update and the end.

All messages of one event have its `id`; (`id`, `revision`) names a message for ever, so that who
gets one twice can tell. Times are seconds since 1970 by this machine's clock.
"""

import secrets
import time
from typing import Literal

import msgspec

Phase = Literal["start", "update", "end", "moment"]
"""A moment is start and end in one: a line that was crossed."""
EventKind = Literal[
    "enter",
    "exit",
    "occupancy",
    "dwell",
    "loiter",
    "stationary",
    "line",
    "camera-lost",
    "overload",
    "disk-full",
]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The object an event is about, where it is about one."""

    track_id: int
    class_name: str
    score: float
    xyxy: tuple[float, float, float, float]
    """In pixels of the upright picture."""
    picture_hw: tuple[int, int]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One message about something that happened."""

    id: str
    revision: int
    """0 for the start, then one more for each message."""
    phase: Phase
    kind: str
    """One of `EventKind`; what a later version kept may be of another."""
    camera: str
    """Empty where it is about the whole machine."""
    rule: str
    """The rule that fired, by the name in the settings; empty where none did."""
    reason: str
    """Why it fired, as a sentence for people."""
    at_s: float
    """When what this message says happened: the time its frame was captured."""
    started_s: float
    ended_s: float | None = None
    subject: Subject | None = None
    """As it was when its picture was best."""
    direction: str | None = None
    """For lines: `in` or `out`."""
    count: int | None = None
    """For occupancy: how many there are. For lines: how many crossed this way today."""
    snapshot: str | None = None
    """File of the best picture, relative to the folder of snapshots."""
    interrupted: bool = False
    """Whether it ended because we stopped looking."""


def new_event_id() -> str:
    """Return an identity that sorts by time: milliseconds and 80 random bits, in hexadecimal."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
