# SPDX-License-Identifier: Apache-2.0
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rules.memory import RulesMemory
from tests.pipeline.rules.exact import crossings
from tests.pipeline.rules.play import PICTURE_HW, START_S, Play, standing

LINE = {"kind": "line", "line": "gate", "confirm_frames": 1, "margin": 0}
SHORT = {"gate": [[0.3, 0.5], [0.7, 0.5]]}


def walk(play, *places, track_id=1, picture_hw=PICTURE_HW):
    for x, y in places:
        play.see({track_id: standing(x, y, 40)}, picture_hw=picture_hw)


def directions(play):
    return [event.direction for event in play.events]


def test_up_over_a_line_from_left_to_right_is_in_and_down_is_out():
    play = Play(LINE)
    walk(play, (500, 600), (500, 400), (500, 600))
    assert directions(play) == ["in", "out"]
    assert [event.phase for event in play.events] == ["moment", "moment"]
    assert play.events[0].reason == "person 1 crossed gate (in), number 1 today"


def test_the_other_way_round_the_line_turns_the_directions():
    play = Play(LINE, lines={"gate": [[1.0, 0.5], [0.0, 0.5]]})
    walk(play, (500, 600), (500, 400))
    assert directions(play) == ["out"]


def test_only_the_line_counts_not_what_lies_beyond_its_ends():
    play = Play(LINE, lines=SHORT)
    walk(play, (200, 600), (200, 400), (500, 400), (500, 600), (800, 600), (800, 400))
    assert directions(play) == ["out"]


def test_a_fast_step_far_over_the_line_counts_where_it_met_it():
    play = Play(LINE, lines=SHORT)
    walk(play, (100, 900), (900, 100))
    walk(play, (100, 600), (900, 100), track_id=2)
    assert [event.subject.track_id for event in play.events] == [1]


def test_standing_on_the_line_and_shaking_counts_nothing():
    play = Play(LINE | {"margin": 0.02})
    walk(play, (500, 600), *[(500, 490 + 20 * (step % 2)) for step in range(50)])
    assert directions(play) == []
    walk(play, (500, 400), *[(500, 490 + 20 * (step % 2)) for step in range(50)], (500, 420))
    assert directions(play) == ["in"]


def test_a_side_has_to_be_confirmed():
    play = Play(LINE | {"confirm_frames": 3})
    for _ in range(10):
        walk(play, (500, 600), (500, 600), (500, 400), (500, 400))
    assert directions(play) == []
    walk(play, (500, 400))
    assert directions(play) == ["in"]


def test_a_way_around_the_end_and_back_over_the_line_counts_once():
    play = Play(LINE, lines=SHORT)
    for _ in range(3):
        walk(play, (500, 600), (500, 400), (800, 400), (800, 600))
    assert directions(play) == ["in"] * 3


def test_a_track_that_was_carried_over_the_line_counts_when_it_is_seen_beyond():
    play = Play(LINE)
    play.see({1: standing(500, 600)})
    play.see({1: standing(500, 480)}, predicted=True)
    assert directions(play) == []
    play.see({1: standing(500, 440)})
    assert directions(play) == ["in"]


def test_all_are_counted_and_one_direction_is_told():
    play = Play(LINE | {"direction": "out"})
    walk(play, *[(500, 600), (500, 400)] * 3)
    assert directions(play) == ["out"] * 2
    assert [event.count for event in play.events] == [1, 2]
    assert play.rules.crossed(play.at_s)["0"].num_in == 3


def test_what_crosses_while_the_rule_cools_down_is_counted_and_not_told():
    play = Play(LINE | {"cool_down_s": 10})
    walk(play, *[(500, 600), (500, 400)] * 10)
    assert [event.count for event in play.events] == [1]
    play.see_for(10, {})
    walk(play, (500, 600), (500, 400), track_id=2)
    assert [event.count for event in play.events] == [1, 11]


def test_counts_begin_anew_at_midnight_of_the_place():
    midnight_s = START_S + 11 * 3600  # in Berlin
    play = Play(LINE, at_s=midnight_s - 1, timezone="Europe/Berlin")
    walk(play, *[(500, 600), (500, 400)] * 10)
    assert [event.count for event in play.events if event.direction == "in"] == [
        *range(1, 6),
        *range(1, 6),
    ]


def test_counts_of_today_survive_a_restart_and_a_clock_that_was_wrong_for_a_while():
    play = Play(LINE)
    walk(play, (500, 600), (500, 400))
    play.at_s += 40 * 86400
    walk(play, (500, 600), (500, 400))
    play.at_s -= 40 * 86400
    walk(play, (500, 600))
    packed = msgspec.msgpack.encode(play.rules.memory())
    later = Play(LINE, at_s=play.at_s, memory=msgspec.msgpack.decode(packed, type=RulesMemory))
    walk(later, (500, 600), (500, 400))
    assert [event.count for event in later.events] == [2]


coordinates = st.integers(0, 16)  # sixteenths of a picture of 1024 pixels are exact in floats
walks = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=30)


@settings(max_examples=50, deadline=None)
@given(walks, st.tuples(coordinates, coordinates), st.tuples(coordinates, coordinates))
def test_counts_of_any_walk_are_those_of_exact_arithmetic(places, start, end):
    if start == end:
        return
    play = Play(LINE, lines={"gate": [[x / 16, y / 16] for x, y in (start, end)]})
    walk(play, *[(64 * x, 64 * y) for x, y in places], picture_hw=(1024, 1024))
    assert directions(play) == crossings(places, start, end)
