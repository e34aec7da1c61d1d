# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.rules.schedule import Hours, Window, local
from tests.pipeline.rules.play import Play, phases, standing

BERLIN = "Europe/Berlin"


def hours(timezone=BERLIN, **window):
    return Hours((Window.model_validate(window),), timezone)


def utc_s(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def open_minutes(asked, first, last):
    """Minutes between two moments in UTC at which it is open, as times of the day in UTC."""
    minutes = range(int(utc_s(first)), int(utc_s(last)), 60)
    opened = [at for at in minutes if asked.are_open(at)]
    assert opened == list(range(opened[0], opened[-1] + 60, 60)), "open in one piece"
    ends = (opened[0], opened[-1] + 60)
    return tuple(datetime.fromtimestamp(at, UTC).strftime("%H:%M") for at in ends)


@pytest.mark.parametrize(
    ("window", "day", "opens", "closes"),
    [
        # An ordinary night, and the ones in which clocks are put forward and back.
        (("22:00", "06:00"), "2026-02-10", "21:00", "05:00"),
        (("22:00", "06:00"), "2026-03-28", "21:00", "04:00"),
        (("22:00", "06:00"), "2026-10-24", "20:00", "05:00"),
        # 02:30 is left out on 29 March: it is the change at 01:00 UTC.
        (("22:00", "02:30"), "2026-03-28", "21:00", "01:00"),
        (("02:30", "06:00"), "2026-03-28", "01:00", "04:00"),
        # 02:30 comes twice on 25 October, at 00:30 and 01:30 UTC.
        (("22:00", "02:30"), "2026-10-24", "20:00", "01:30"),
        (("02:30", "06:00"), "2026-10-24", "00:30", "05:00"),
    ],
)
def test_a_window_opens_and_closes_by_the_clock_on_the_wall(window, day, opens, closes):
    asked = hours(**dict(zip(("from", "to"), window, strict=True)))
    month_and_day = datetime.fromisoformat(day)
    first = month_and_day.replace(hour=16).isoformat()
    last = month_and_day.replace(day=month_and_day.day + 1, hour=12).isoformat()
    assert open_minutes(asked, first, last) == (opens, closes)


def test_the_day_of_a_window_is_the_one_it_begins_on():
    asked = hours("UTC", days=["fri"], **{"from": "22:00", "to": "06:00"})
    assert not asked.are_open(utc_s("2026-01-02T05:00"))  # a Friday, but Thursday's night
    assert asked.are_open(utc_s("2026-01-02T22:00"))
    assert asked.are_open(utc_s("2026-01-03T05:59"))
    assert not asked.are_open(utc_s("2026-01-03T06:00"))


def test_whole_days_are_the_default():
    asked = hours("UTC", days=["sat", "sun"])
    assert not asked.are_open(utc_s("2026-01-02T23:59"))
    assert asked.are_open(utc_s("2026-01-03T00:00"))
    assert asked.are_open(utc_s("2026-01-04T23:59"))
    assert not asked.are_open(utc_s("2026-01-05T00:00"))


def test_several_windows_add_up_and_none_is_always():
    windows = tuple(Window.model_validate({"from": it, "to": "24:00"}) for it in ("23:00", "20:00"))
    assert Hours(windows, "UTC").are_open(utc_s("2026-01-01T21:00"))
    assert Hours((), "UTC").are_open(0)


def test_without_a_time_zone_the_system_s_clock_counts(monkeypatch):
    import time

    monkeypatch.setenv("TZ", BERLIN)
    time.tzset()
    try:
        asked = hours(None, **{"from": "22:00", "to": "06:00"})
        ends = open_minutes(asked, "2026-10-24T16:00", "2026-10-25T12:00")
        assert ends == ("20:00", "05:00")
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.floats())
def test_any_number_is_a_moment(at_s):
    assert local(at_s, None).year > 0
    hours(**{"from": "22:00", "to": "06:00"}).are_open(at_s)


@pytest.mark.parametrize(
    ("window", "says"),
    [
        ({"from": 1320}, "in quotes"),
        ({"from": "25:00"}, 'from "00:00" to "24:00"'),
        ({"from": "7:5"}, "expected a time"),
        ({"from": "07:60"}, "expected a time"),
        ({"from": "08:00", "to": "08:00"}, "no time between"),
        ({"from": "24:00", "to": "08:00"}, "no time between"),
        ({"days": []}, "at least 1"),
        ({"days": ["monday"]}, "'mon'"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window, says):
    with pytest.raises(ValidationError, match=says):
        Window.model_validate(window)


NIGHT = {
    "kind": "dwell",
    "zone": "yard",
    "for_s": 2,
    "schedule": [{"from": "22:00", "to": "06:00"}],
}
INSIDE = {1: standing(500, 800)}


def test_an_event_ends_with_its_schedule_and_is_not_told_again_while_it_lasts():
    play = Play(NIGHT, at_s=utc_s("2026-01-02T05:59:50"))
    assert phases(play.see_for(15, INSIDE)) == ["start", "end"]
    end = play.events[-1]
    assert end.at_s == pytest.approx(utc_s("2026-01-02T06:00"), abs=0.11)
    assert not end.interrupted
    play.at_s = utc_s("2026-01-02T22:00")
    assert play.see_for(5, INSIDE) == []


def test_who_is_there_when_the_schedule_begins_is_told():
    play = Play(NIGHT, at_s=utc_s("2026-01-02T21:59:50"))
    (start,) = play.see_for(15, INSIDE)
    assert start.at_s == pytest.approx(utc_s("2026-01-02T22:00"), abs=0.11)


def test_who_entered_before_the_schedule_began_is_not_told_to_enter():
    enter = {"kind": "enter", "zone": "yard", "schedule": NIGHT["schedule"]}
    play = Play(enter, at_s=utc_s("2026-01-02T21:59:50"))
    play.see_for(2, {1: standing(500, 300)})
    assert play.see_for(20, INSIDE) == []


def test_a_line_counts_only_while_its_rule_is_in_force():
    line = {"kind": "line", "line": "gate", "confirm_frames": 1, "schedule": NIGHT["schedule"]}
    play = Play(line, at_s=utc_s("2026-01-02T12:00"))
    for y in (600, 400, 600):
        play.see({1: standing(500, y)})
    assert play.events == []
    assert play.rules.memory().crossed == {"0": ()}
