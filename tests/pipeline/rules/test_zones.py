# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.pipeline.rules.play import Play, phases, reasons, standing

OUTSIDE, INSIDE = standing(500, 300), standing(500, 800)
ENTER = {"kind": "enter", "zone": "yard"}
EXIT = {"kind": "exit", "zone": "yard"}
DWELL = {"kind": "dwell", "zone": "yard", "for_s": 30}
LOITER = {"kind": "loiter", "zone": "yard", "for_s": 30, "away_s": 5}


def test_who_comes_from_outside_enters_and_the_event_lasts_until_they_leave():
    play = Play(ENTER)
    assert play.see({12: OUTSIDE}, frames=5) == []
    (start,) = play.see({12: INSIDE}, frames=10)
    assert (start.phase, start.kind, start.revision) == ("start", "enter", 0)
    assert start.reason == "person 12 entered yard"
    assert start.started_s == pytest.approx(start.at_s - 0.2)  # the first of three frames
    last_inside_s = play.at_s
    (end,) = play.see({12: OUTSIDE}, frames=10)
    assert (end.phase, end.id, end.revision) == ("end", start.id, 1)
    assert end.ended_s == pytest.approx(last_inside_s)
    assert not end.interrupted


def test_who_is_inside_when_first_seen_has_not_entered():
    play = Play(ENTER)
    assert play.see({12: INSIDE}, frames=20) == []


def test_a_flicker_at_the_border_neither_enters_nor_leaves():
    play = Play(ENTER, EXIT)
    play.see({12: OUTSIDE}, frames=5)
    for _ in range(20):
        assert play.see({12: INSIDE}, frames=2) == []
        assert play.see({12: OUTSIDE}, frames=2) == []
    assert phases(play.see({12: INSIDE}, frames=5)) == ["start"]
    for _ in range(20):
        assert play.see({12: OUTSIDE}, frames=2) == []
        assert play.see({12: INSIDE}, frames=2) == []


def test_confirmation_in_seconds_waits_for_the_seconds():
    play = Play(ENTER | {"confirm_frames": 1, "confirm_s": 2})
    play.see({1: OUTSIDE}, frames=30)
    assert play.see({1: INSIDE}, frames=20) == []
    assert phases(play.see({1: INSIDE}, frames=1)) == ["start"]


def test_carried_over_frames_confirm_nothing():
    play = Play(ENTER)
    play.see({1: OUTSIDE}, frames=5)
    assert play.see({1: INSIDE}, frames=30, predicted=True) == []
    assert play.see({1: INSIDE}, frames=2) == []
    assert phases(play.see({1: INSIDE})) == ["start"]


def test_who_was_inside_and_is_outside_has_left():
    play = Play(EXIT)
    play.see({12: INSIDE}, frames=5)
    (moment,) = play.see({12: OUTSIDE}, frames=10)
    assert (moment.phase, moment.kind) == ("moment", "exit")
    assert moment.reason == "person 12 left yard"
    assert moment.started_s == moment.ended_s == moment.at_s


def test_who_leaves_the_picture_from_the_zone_has_left_it_and_who_is_hidden_has_not():
    play = Play(EXIT)
    play.see({1: (0, 700, 60, 900), 2: (500, 600, 560, 800)}, frames=5)
    last_s = play.at_s
    (moment,) = play.see_for(10, {})
    assert moment.reason == "person 1 left the picture from yard"
    assert moment.at_s == pytest.approx(last_s)
    assert len(play.pictures) == 0


def test_the_lower_edge_of_the_picture_belongs_to_a_zone_that_reaches_it():
    play = Play(DWELL | {"for_s": 1})
    assert phases(play.see_for(3, {1: (100, 800, 200, 1000)})) == ["start"]


def test_who_stays_is_told_when_the_time_is_over_and_with_how_long():
    play = Play(DWELL)
    assert play.see_for(30, {12: INSIDE}) == []
    (start,) = play.see_for(2, {12: INSIDE})
    assert start.reason == "person 12 has been in yard for 30 s"
    assert start.at_s - start.started_s == pytest.approx(30, abs=0.11)
    assert phases(play.see_for(2, {12: OUTSIDE})) == ["end"]


def test_a_stay_goes_on_when_its_track_gets_another_number_at_the_same_place():
    play = Play(DWELL)
    play.see_for(20, {12: INSIDE})
    play.see_for(1, {})
    assert reasons(play.see_for(12, {13: INSIDE})) == ["person 13 has been in yard for 30 s"]


def test_a_stay_does_not_go_on_in_another_place_or_as_another_class():
    play = Play(DWELL)
    play.see_for(20, {1: INSIDE, 2: standing(200, 800)})
    play.see_for(1, {})
    assert play.see_for(25, {3: (*INSIDE, 0.9, 1), 4: standing(350, 800)}) == []


def test_who_is_gone_for_long_ends_the_event_at_the_last_sight():
    play = Play(DWELL)
    play.see_for(31, {1: INSIDE})
    last_s = play.at_s
    (end,) = play.see_for(5, {})
    assert end.ended_s == pytest.approx(last_s)
    assert end.at_s == pytest.approx(last_s + 2.1, abs=0.11)


def test_dwelling_begins_anew_after_leaving_and_loitering_does_not():
    play = Play(DWELL, LOITER)
    for _ in range(4):
        play.see_for(6, {1: INSIDE})
        play.see_for(4, {1: OUTSIDE})
    assert reasons(play.events) == ["person 1 has been about yard for 30 s"]
    assert phases(play.see_for(8, {1: OUTSIDE})) == ["end"]


def test_a_loiterer_may_be_out_of_sight_for_a_while_and_come_back_elsewhere_by_the_same_track():
    play = Play(LOITER)
    play.see_for(20, {1: INSIDE})
    play.see_for(4, {})
    assert phases(play.see_for(10, {1: standing(200, 800)})) == ["start"]


def test_a_loiterer_is_told_of_when_back_inside():
    play = Play(LOITER)
    play.see_for(28, {1: INSIDE})
    assert play.see_for(4, {1: OUTSIDE}) == []
    assert phases(play.see_for(1, {1: INSIDE})) == ["start"]


def test_only_the_classes_and_scores_of_a_rule_count():
    play = Play(DWELL | {"for_s": 1, "classes": ["car"], "min_score": 0.6})
    boxes = {
        1: (*INSIDE, 0.9, 0),
        2: (*standing(200, 800), 0.9, 1),
        3: (*standing(800, 800), 0.5, 1),
    }
    (start,) = play.see_for(3, boxes)
    assert start.subject is not None
    assert (start.subject.track_id, start.subject.class_name) == (2, "car")
    (late,) = play.see({**boxes, 3: (*standing(800, 800), 0.7, 1)}, frames=30)
    assert late.reason.startswith("car 3 ")


def test_a_class_that_flickers_does_not_end_a_stay():
    play = Play(DWELL | {"for_s": 1, "classes": ["car"]})
    play.see_for(3, {1: (*INSIDE, 0.9, 1)})
    for _ in range(20):
        play.see({1: (*INSIDE, 0.5, 0)}, frames=2)
        play.see({1: (*INSIDE, 0.9, 1)}, frames=3)
    assert phases(play.events) == ["start"]


def test_the_anchor_is_the_foot_or_the_middle():
    boxes = {1: (400, 300, 600, 520)}  # feet inside, middle outside
    assert phases(Play(DWELL | {"for_s": 1}).see_for(3, boxes)) == ["start"]
    assert Play(DWELL | {"for_s": 1, "anchor": "centre"}).see_for(3, boxes) == []


def test_boxes_without_identity_fire_nothing_that_is_about_somebody():
    play = Play(DWELL | {"for_s": 1}, ENTER, EXIT, LOITER | {"for_s": 1})
    play.see({0: OUTSIDE}, frames=20)
    assert play.see({0: INSIDE}, frames=40) == []
