# SPDX-License-Identifier: Apache-2.0
import msgspec
import pytest

from pipeline.rules.memory import RulesMemory
from pipeline.rules.stationary import MOST_PLACES
from tests.pipeline.rules.play import CLASSES, Play, phases, standing

PARKED = {"kind": "stationary", "for_s": 10, "classes": ["car"], "forget_s": 30}


def car(x, y=800, size=100.0):
    return (*standing(x, y, size), 0.9, CLASSES.index("car"))


def test_what_stands_still_is_told_once_and_ends_when_it_leaves():
    play = Play(PARKED)
    play.see_for(10, {7: car(500)})
    (start,) = play.see_for(100, {7: car(500)})
    assert start.reason == "car 7 has stood still for 10 s"
    last_s = play.at_s
    (end,) = play.see_for(2, {7: car(800)})
    assert (end.phase, end.id) == ("end", start.id)
    assert end.ended_s == pytest.approx(last_s)


def test_what_moves_slowly_does_not_stand_still():
    play = Play(PARKED)
    for step in range(600):
        play.see({7: car(100 + step)})
    assert play.events == []


def test_a_box_that_jumps_for_a_moment_has_not_moved():
    play = Play(PARKED)
    for _ in range(40):
        play.see({7: car(500)}, frames=8)
        play.see({7: car(560)}, frames=2)
    assert phases(play.events) == ["start"]


def test_another_number_at_the_same_place_is_the_same_thing():
    play = Play(PARKED)
    for track_id in range(1, 9):
        play.see_for(15, {track_id: car(500 + track_id)})
        play.see_for(10, {})
    assert phases(play.events) == ["start"]


def test_what_is_hidden_for_longer_than_it_is_remembered_is_told_again():
    play = Play(PARKED)
    play.see_for(15, {1: car(500)})
    last_s = play.at_s
    (end,) = play.see_for(40, {})[-1:]
    assert (end.phase, end.ended_s) == ("end", pytest.approx(last_s))
    assert phases(play.see_for(15, {2: car(500)})) == ["start"]


def test_another_one_that_takes_a_place_just_left_is_told():
    play = Play(PARKED)
    play.see_for(15, {1: car(500)})
    assert phases(play.see_for(3, {1: car(800)})) == ["end"]
    assert phases(play.see_for(15, {2: car(500)})) == ["start"]


def test_another_class_at_the_place_is_something_else():
    play = Play(PARKED | {"classes": []})
    play.see_for(15, {1: car(500)})
    assert phases(play.see_for(15, {1: car(500), 2: standing(500, 800)})) == ["start"]


def test_two_that_overlap_are_two():
    play = Play(PARKED)
    play.see_for(15, {1: car(500)})
    assert phases(play.see_for(15, {1: car(500), 2: car(520)})) == ["start"]


def test_a_passer_by_does_not_take_a_hidden_ones_place_with_it():
    play = Play(PARKED)
    play.see_for(15, {1: car(500)})
    play.see_for(5, {})
    play.see({2: car(500)}, frames=5)
    play.see({2: car(900)}, frames=10)
    play.see_for(15, {3: car(500)})
    assert phases(play.events) == ["start"]


def test_only_the_zone_counts():
    play = Play(PARKED | {"zone": "yard"})
    assert play.see_for(20, {1: car(500, 300)}) == []
    (start,) = play.see_for(20, {2: car(200)})
    assert start.reason.startswith("car 2 has stood still in yard for ")


def test_a_parked_car_is_not_told_again_after_the_camera_was_lost_for_long():
    play = Play(PARKED)
    play.see_for(15, {1: car(500)})
    (end,) = play.reset()
    assert end.interrupted
    play.at_s += 7200
    play.now_s += 7200
    play.see_for(3, {})
    assert play.see_for(60, {20: car(500)}) == []
    assert phases(play.see_for(5, {20: car(900)})) == []
    assert phases(play.see_for(15, {21: car(500)})) == ["start"]


def test_nor_after_a_restart_and_the_memory_goes_through_msgpack():
    play = Play(PARKED, {"kind": "line", "line": "gate"})
    play.see_for(15, {1: car(500)})
    play.rules.close(play.at_s)
    packed = msgspec.msgpack.encode(play.rules.memory())
    memory = msgspec.msgpack.decode(packed, type=RulesMemory)
    assert memory.parked["0"][0].told
    assert memory.parked["0"][0].since_s == pytest.approx(play.at_s - 15, abs=0.11)

    later = Play(PARKED, at_s=play.at_s + 3600, memory=memory)
    assert later.rules.memory().parked == memory.parked
    assert later.see_for(20, {1: car(500)}) == []
    assert later.rules.memory().parked["0"][0].told
    assert phases(later.see_for(15, {1: car(500), 2: car(200)})) == ["start"]


def test_what_was_not_told_before_a_restart_is_told_after_it():
    night = PARKED | {"schedule": [{"from": "22:00", "to": "06:00"}]}
    play = Play(night)
    play.see_for(15, {1: car(500)})
    memory = play.rules.memory()
    assert not memory.parked["0"][0].told
    later = Play(night, at_s=play.at_s + 11 * 3600, memory=memory)
    (start,) = later.see_for(1, {1: car(500)})
    assert start.reason == "car 1 has stood still for 39615 s"


def test_a_picture_of_another_size_shows_the_same_place():
    play = Play(PARKED)
    play.see_for(15, {1: car(500)})
    play.reset()
    half = tuple(side / 2 for side in car(500)[:4])
    assert play.see({2: (*half, 0.9, 1)}, frames=200, picture_hw=(500, 500)) == []


def test_there_are_never_more_places_than_may_be():
    play = Play(PARKED | {"for_s": 0.2, "forget_s": 1e5}, step_s=0.5)
    for part in range(7):
        boxes = {
            1 + 100 * part + place: car(
                10 + 100 * (place % 10) + 14 * part, 20 + 90 * (place // 10), 12.0
            )
            for place in range(100)
        }
        play.see(boxes, frames=3)
        play.see({}, frames=10)
    assert len(play.rules.memory().parked["0"]) == MOST_PLACES
