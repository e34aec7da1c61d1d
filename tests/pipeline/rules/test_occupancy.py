# SPDX-License-Identifier: Apache-2.0
import pytest
from pydantic import ValidationError

from tests.pipeline.rules.play import Play, phases, standing

CROWD = {"kind": "occupancy", "zone": "yard", "at_least": 2, "update_s": 1}


def group(number, y=800):
    return {track_id: standing(100 * track_id, y, 60) for track_id in range(1, number + 1)}


def test_enough_objects_start_an_event_their_number_updates_it_and_too_few_end_it():
    play = Play(CROWD)
    assert play.see(group(1), frames=10) == []
    (start,) = play.see(group(2), frames=20)
    assert (start.count, start.subject) == (2, None)
    assert start.reason == "there are 2 in yard (any class), which is at least 2"
    (update,) = play.see(group(4), frames=20)
    assert (update.phase, update.count, update.id) == ("update", 4, start.id)
    (end,) = play.see(group(4, y=300), frames=20)
    assert (end.phase, end.count) == ("end", 4)


def test_a_number_that_flickers_starts_and_ends_nothing():
    play = Play(CROWD)
    for _ in range(10):
        play.see(group(1), frames=2)
        play.see({1: standing(100, 800, 60), 2: standing(200, 300, 60)}, frames=2)
    assert play.events == []


def test_who_is_missing_for_a_moment_still_counts():
    play = Play(CROWD)
    play.see(group(2), frames=10)
    assert play.see(group(1), frames=15) == []
    assert phases(play.see(group(1), frames=20)) == ["end"]


def test_too_few_are_told_after_the_time_asked_for():
    play = Play({"kind": "occupancy", "zone": "yard", "at_most": 0, "confirm_s": 10})
    play.see(group(1), frames=10)
    assert play.see({}, frames=110) == []
    (start,) = play.see({}, frames=20)
    assert (start.count, start.phase) == (0, "start")
    assert phases(play.see(group(1), frames=105)) == ["end"]


def test_boxes_without_identity_count_too():
    play = Play(CROWD | {"at_least": 1, "classes": ["person"], "min_score": 0.5})
    assert play.see({0: (*standing(500, 800), 0.4, 0)}, frames=10) == []
    assert play.see({0: (*standing(500, 800), 0.9, 1)}, frames=10) == []
    assert phases(play.see({0: standing(500, 800)}, frames=10)) == ["start"]


def test_a_picture_is_wanted_when_there_are_more_than_ever():
    play = Play(CROWD)
    for number in (2, 3, 2, 3, 4):
        play.see(group(number), frames=40)
    assert [picture.subject for picture in play.pictures] == [None] * 3


def test_an_event_after_a_reset_is_another_one():
    play = Play(CROWD | {"confirm_frames": 1})
    play.see(group(2), frames=5)
    (end,) = play.reset()
    assert end.interrupted
    (start,) = play.see(group(2), frames=5)
    assert start.id != end.id


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1, "at_most": 2}])
def test_there_is_one_bound(bounds):
    with pytest.raises(ValidationError, match="either at_least or at_most"):
        Play({"kind": "occupancy", "zone": "yard"} | bounds)
