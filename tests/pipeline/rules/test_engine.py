# SPDX-License-Identifier: Apache-2.0
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import new_event_id
from pipeline.rules.config import RulesConfig
from pipeline.rules.engine import Rules
from pipeline.rules.objects import MOST_OBJECTS
from tests.pipeline.rules.play import (
    CLASSES,
    PICTURE_HW,
    START_S,
    Play,
    phases,
    standing,
    tracks_of,
)

DWELL = {"kind": "dwell", "zone": "yard", "for_s": 10}
EVERY_KIND = (
    {"kind": "enter", "zone": "yard", "confirm_frames": 1},
    {"kind": "exit", "zone": "yard"},
    {"kind": "occupancy", "zone": "yard", "at_least": 2, "update_s": 0.5},
    {"kind": "dwell", "zone": "yard", "for_s": 1},
    {"kind": "loiter", "zone": "yard", "for_s": 2, "away_s": 1, "cool_down_s": 1},
    {"kind": "stationary", "for_s": 1, "forget_s": 3},
    {"kind": "line", "line": "gate", "confirm_frames": 1},
)
INSIDE = {1: standing(500, 800)}


def test_the_best_picture_is_wanted_at_once_and_told_with_the_next_update():
    play = Play(DWELL | {"for_s": 1, "update_s": 5})
    play.see_for(2, {1: standing(500, 800, 100)})
    assert len(play.pictures) == 1
    play.see({1: standing(500, 800, 105)})
    assert len(play.pictures) == 1, "a tenth better is not enough"
    play.see({1: standing(500, 800, 120)})
    play.see({1: standing(500, 800, 60)})
    start, best = play.pictures
    assert best.event_id == play.events[0].id == start.event_id
    assert play.events == play.events[:1]
    (update,) = play.see_for(5, {1: standing(500, 800, 60)})
    assert update.subject == best.subject
    assert update.reason == "person 1 has been in yard for 6 s"


def test_a_picture_that_the_edge_cuts_is_worth_less_than_a_smaller_one():
    play = Play(DWELL | {"for_s": 1})
    play.see_for(2, {1: (400, 800, 600, 1000)})
    play.see({1: (400, 800, 520, 920)})
    assert play.pictures[-1].subject.xyxy == (400, 800, 520, 920)


def test_carried_over_boxes_make_no_better_picture():
    play = Play(DWELL | {"for_s": 1})
    play.see_for(2, INSIDE)
    play.see({1: standing(500, 800, 200)}, predicted=True)
    assert len(play.pictures) == 1


def test_a_moment_wants_its_own_picture():
    play = Play({"kind": "line", "line": "gate", "confirm_frames": 1})
    for y in (600, 400):
        play.see({1: standing(500, y)})
    (event,), (picture,) = play.events, play.pictures
    assert (picture.event_id, picture.subject) == (event.id, event.subject)


def test_nothing_else_begins_while_a_rule_cools_down_and_what_is_still_so_begins_then():
    play = Play(DWELL | {"for_s": 1, "cool_down_s": 10})
    play.see_for(2, INSIDE)
    both = INSIDE | {2: standing(200, 800)}
    assert play.see_for(8, both) == []
    (second,) = play.see_for(4, both)
    assert second.subject.track_id == 2
    assert phases(play.see_for(4, {})) == ["end", "end"]
    assert play.see_for(8, {3: standing(200, 800)}) == []


def test_a_camera_that_is_lost_interrupts_its_events_and_a_stay_begins_anew():
    play = Play(DWELL)
    play.see_for(12, INSIDE)
    (end,) = play.reset()
    assert (end.phase, end.interrupted) == ("end", True)
    assert end.ended_s == pytest.approx(play.at_s)
    assert play.see_for(9, INSIDE) == []
    assert phases(play.see_for(2, INSIDE)) == ["start"]


def test_closing_ends_everything_once():
    play = Play(DWELL, {"kind": "stationary", "for_s": 5})
    play.see_for(12, INSIDE)
    assert phases(play.rules.close(play.at_s).events) == ["end", "end"]
    assert play.rules.close(play.at_s).events == ()


def test_a_long_gap_between_frames_is_a_lost_camera():
    play = Play(DWELL)
    play.see_for(12, INSIDE)
    seen_s = play.at_s
    play.at_s += 600
    play.now_s += 600
    (end,) = play.see({2: INSIDE[1]})
    assert end.interrupted
    assert end.ended_s == pytest.approx(seen_s)


def test_a_slow_camera_has_no_gaps():
    play = Play(DWELL | {"for_s": 100}, step_s=30)
    assert phases(play.see(INSIDE, frames=10)) == ["start"]
    assert play.see({}, frames=2) == []
    assert phases(play.see({}, frames=2)) == ["end"]


@pytest.mark.parametrize("jump_s", [-86400.0, -5.0, 86400.0, 1e12, -1e12])
def test_a_wall_clock_that_jumps_fires_nothing_and_leaves_nothing_open(jump_s):
    play = Play(DWELL, {"kind": "stationary", "for_s": 10}, {"kind": "exit", "zone": "yard"})
    play.see_for(5, INSIDE)
    play.at_s += jump_s
    assert play.see_for(4, INSIDE) == []
    assert phases(play.see_for(2, INSIDE)) == ["start", "start"]
    start = play.events[0]
    assert start.at_s - start.started_s == pytest.approx(10, abs=0.2)
    play.at_s -= jump_s
    told = play.see_for(125, {})
    assert phases(told) == ["end", "end"]
    assert all(event.ended_s >= event.started_s for event in told)


def test_a_capture_time_that_steps_back_neither_fires_nor_stops_anything():
    play = Play(DWELL)
    play.see_for(5, INSIDE)
    play.now_s -= 1e4
    assert play.see_for(4, INSIDE) == []
    (start,) = play.see_for(2, INSIDE)
    assert start.reason == "person 1 has been in yard for 10 s"
    assert phases(play.see_for(4, {})) == ["end"]


def test_what_is_remembered_is_bounded_whatever_comes():
    play = Play(*EVERY_KIND)
    for frame in range(12):
        ids = range(1 + 400 * frame, 401 + 400 * frame)
        play.see({track_id: standing(track_id % 400 * 2.5, 800, 2) for track_id in ids})
        assert len(play.rules._objects.known) <= MOST_OBJECTS
    play.see({track_id: standing(500, 800) for track_id in range(1, 1500)})
    assert len(play.rules._objects.known) <= MOST_OBJECTS
    play.reset()
    play.see_for(10, {})
    assert len(play.rules._objects.known) == 0
    for post in play.rules._posts:
        assert not post.book._open
        assert not post.book._over
    assert_each_start_has_one_end(play)


def test_of_two_boxes_with_one_number_the_better_one_counts():
    both = tracks_of({1: standing(500, 800), 2: (*standing(500, 300), 0.5, 0)})
    twice = replace(both, track_id=np.array([1, 1]))
    play = Play(DWELL | {"for_s": 1})
    told = [
        play.rules.update(twice, PICTURE_HW, at_s=START_S + at, captured_ns=at * 10**9).events
        for at in range(5)
    ]
    assert [event.phase for events in told for event in events] == ["start"]


def test_a_good_score_counts_until_the_camera_is_lost():
    play = Play(DWELL | {"for_s": 5, "min_score": 0.6})
    weak = {1: (*INSIDE[1], 0.5, 0)}
    play.see(INSIDE)
    assert phases(play.see_for(6, weak)) == ["start"]
    play.reset()
    assert play.see_for(10, weak) == []


def test_without_rules_nothing_is_told():
    rules = Rules(RulesConfig(), camera="front", classes=CLASSES)
    told = rules.update(tracks_of(INSIDE), PICTURE_HW, at_s=START_S, captured_ns=0)
    assert (told.events, told.pictures) == ((), ())


def test_identities_of_events_are_their_own_by_default():
    assert new_event_id() != new_event_id()


place = st.tuples(st.integers(1, 9), st.integers(1, 10)).map(
    lambda at: standing(100 * at[0], 100 * at[1], 150)
)
frame = st.dictionaries(st.integers(0, 5), place, max_size=6)
step = st.tuples(frame, st.integers(1, 8), st.booleans(), st.sampled_from([0, 0, 0, -30, 50, 1e6]))


def assert_each_start_has_one_end(play):
    messages = defaultdict(list)
    for event in [*play.events, *play.rules.close(play.at_s).events]:
        messages[event.id].append(event)
    for told in messages.values():
        assert [event.revision for event in told] == list(range(len(told)))
        expected = ["start", *["update"] * (len(told) - 2), "end"]
        assert phases(told) == (["moment"] if len(told) == 1 else expected)
        assert told[-1].ended_s is not None
        assert told[-1].ended_s >= told[-1].started_s


@settings(max_examples=40, deadline=None)
@given(st.lists(step, min_size=1, max_size=12), st.integers(0, 12))
def test_every_start_has_one_end_whatever_comes(steps, reset_before):
    play = Play(*EVERY_KIND, step_s=0.25)
    for number, (boxes, frames, predicted, jump_s) in enumerate(steps):
        if number == reset_before:
            play.reset()
        play.at_s += jump_s
        play.see(boxes, frames=frames, predicted=predicted)
    assert_each_start_has_one_end(play)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(frame, st.randoms()), min_size=1, max_size=12))
def test_the_order_of_tracks_within_a_frame_changes_nothing(frames):
    ordered, mixed = Play(*EVERY_KIND, step_s=0.25), Play(*EVERY_KIND, step_s=0.25)
    for boxes, random in frames:
        shuffled = list(boxes.items())
        random.shuffle(shuffled)
        ordered.see(boxes, frames=3)
        mixed.see(dict(shuffled), frames=3)
    assert mixed.events == ordered.events
    assert mixed.pictures == ordered.pictures
