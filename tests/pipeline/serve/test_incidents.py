# SPDX-License-Identifier: Apache-2.0
"""Conditions of cameras and machine, and the events they become."""

import pytest

from pipeline.events import Event
from pipeline.serve.incidents import Incidents


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def incidents(told: list[Event]) -> Incidents:
    return Incidents(told.append)


def lost(incidents: Incidents, now_s: float, reason: str = "no connection") -> None:
    incidents.note("camera-lost", "yard", reason, now_s=now_s, at_s=1e6 + now_s, after_s=5)


def test_what_mends_itself_soon_is_told_to_nobody(incidents: Incidents, told: list[Event]) -> None:
    lost(incidents, 100)
    lost(incidents, 104)
    lost(incidents, 104.5, "")
    lost(incidents, 105)  # begins to count anew
    lost(incidents, 109)
    assert told == []


def test_what_lasts_is_one_event_from_its_begin_to_its_end(
    incidents: Incidents, told: list[Event]
) -> None:
    for now_s in (100, 104, 105, 106):
        lost(incidents, now_s)
    assert incidents.num_open == 1
    lost(incidents, 130, "")
    lost(incidents, 131, "")
    start, end = told
    assert (start.phase, start.revision, start.at_s, start.reason) == (
        *("start", 0, 1e6 + 100, "no connection"),
    )
    assert (end.phase, end.revision, end.ended_s, end.interrupted) == ("end", 1, 1e6 + 130, False)
    assert (end.id, end.started_s, end.camera) == (start.id, 1e6 + 100, "yard")
    assert incidents.num_open == 0


def test_conditions_of_cameras_and_kinds_are_apart(incidents: Incidents, told: list[Event]) -> None:
    for camera, kind in (("yard", "camera-lost"), ("door", "camera-lost"), ("yard", "overload")):
        incidents.note(kind, camera, "so", now_s=1, at_s=1, after_s=0)  # type: ignore[arg-type]
    lost(incidents, 2, "")
    assert incidents.num_open == 2
    assert len({event.id for event in told}) == 3


def test_a_wall_clock_that_jumps_neither_delays_nor_hastens(
    incidents: Incidents, told: list[Event]
) -> None:
    def lost_at(now_s: float, at_s: float, reason: str = "no connection") -> None:
        incidents.note("camera-lost", "yard", reason, now_s=now_s, at_s=at_s, after_s=5)

    lost_at(100, 1e6)
    lost_at(102, 9e6)
    assert told == []
    lost_at(105, 9e6 + 3)
    lost_at(110, 2e6, "")
    assert [event.at_s for event in told] == [9e6 - 2, 2e6]
    assert told[1].ended_s == told[1].started_s  # none ends before it began


@pytest.mark.parametrize("how", ["forget", "close"])
def test_what_is_open_when_nobody_looks_any_more_ends_as_interrupted(
    incidents: Incidents, told: list[Event], how: str
) -> None:
    lost(incidents, 100)
    lost(incidents, 106)
    incidents.note("camera-lost", "door", "no connection", now_s=106, at_s=106, after_s=5)
    if how == "forget":
        incidents.forget("yard", 110)
    else:
        incidents.close(110)
    assert [(event.camera, event.phase) for event in told] == [("yard", "start"), ("yard", "end")]
    assert told[-1].interrupted
    lost(incidents, 120)
    assert len(told) == 2  # another time is another condition
