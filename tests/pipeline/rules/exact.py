# SPDX-License-Identifier: Apache-2.0
"""Crossings by exact arithmetic, to hold others against."""

from collections.abc import Sequence
from fractions import Fraction

Place = tuple[int, int]


def crossings(places: Sequence[Place], start: Place, end: Place) -> list[str]:
    """Directions in which a walk crosses a line.

    A place on the endless line belongs to no side until another one is taken. A crossing counts
    when the way between two sides went through the line itself.
    """
    found, settled, passed = [], 0, 0
    for index, place in enumerate(places):
        side = turn(start, end, place)
        if index and (turn(start, end, places[index - 1]) > 0) != (side > 0):
            passed += meets(places[index - 1], place, start, end) * (1 if side > 0 else -1)
        if side == 0:
            continue
        sign = 1 if side > 0 else -1
        if settled == -sign and passed * sign > 0:
            found.append("in" if sign > 0 else "out")
        settled, passed = sign, 0
    return found


def turn(start: Place, end: Place, place: Place) -> int:
    """More than 0 to the left of who walks from start to end, as the picture is seen."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    return along_y * (place[0] - start[0]) - along_x * (place[1] - start[1])


def meets(before: Place, after: Place, start: Place, end: Place) -> bool:
    """Whether a step that changes sides goes through the line, not past its ends."""
    first, second = turn(start, end, before), turn(start, end, after)
    share = Fraction(first, first - second)
    met = [b + share * (a - b) for b, a in zip(before, after, strict=True)]
    along = [e - s for s, e in zip(start, end, strict=True)]
    dot = sum((m - s) * a for m, s, a in zip(met, start, along, strict=True))
    return 0 <= dot <= sum(a * a for a in along)


def is_inside(corners: Sequence[Place], place: Place) -> bool:
    """Whether a place lies inside a polygon or on its edge."""
    inside = False
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        side = turn(start, end, place)
        along = (place[0] - start[0]) * (place[0] - end[0])
        if side == 0 and along + (place[1] - start[1]) * (place[1] - end[1]) <= 0:
            return True
        if (start[1] > place[1]) != (end[1] > place[1]):
            inside ^= (side < 0) == (end[1] > start[1])
    return inside
