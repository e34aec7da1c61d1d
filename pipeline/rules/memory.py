# SPDX-License-Identifier: Apache-2.0
"""What a camera's rules must know again after a restart."""

from typing import Literal

import msgspec

Direction = Literal["in", "out"]


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """Something that stands still."""

    class_name: str
    box: tuple[float, float, float, float]
    """In shares of the picture."""
    since_s: float
    """In seconds since 1970."""
    told: bool
    """Whether there was an event about it."""


class DayCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many crossed a line on one day."""

    day: str
    """Such as 2026-03-29, by the clock of the rules' time zone."""
    num_in: int = 0
    num_out: int = 0


class RulesMemory(msgspec.Struct, frozen=True, kw_only=True):
    """By the names of the rules; what is of no rule any more is left out when it is read."""

    parked: dict[str, tuple[Parked, ...]] = {}
    crossed: dict[str, tuple[DayCount, ...]] = {}
    """The last of a rule's days is the present one."""
