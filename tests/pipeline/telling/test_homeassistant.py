# SPDX-License-Identifier: Apache-2.0
from pipeline.telling.config import MqttConfig
from pipeline.telling.homeassistant import HomeAssistant, Post, segment
from tests.pipeline.telling.builders import PERSON, make_event, then

MOTION = "sightline/cameras/yard/motion"


def make_home(*cameras: str) -> HomeAssistant:
    home = HomeAssistant(MqttConfig(host="h"), "sightline/status")
    home.set_cameras(cameras)
    return home


def test_motion_stays_on_until_the_last_event_has_ended():
    home = make_home("yard")
    first = make_event(1, phase="start", kind="dwell", subject=PERSON)
    second = make_event(2, phase="start", kind="loiter", subject=PERSON)
    on, off = (Post(MOTION, state, retain=True) for state in (b"ON", b"OFF"))
    assert on in home.after(first)
    assert on not in home.after(second)
    assert off not in home.after(then(first, phase="end"))
    assert off in home.after(then(second, phase="end"))


def test_states_are_said_anew_to_a_broker_that_forgot_them():
    home = make_home("yard", "door")
    home.after(make_event(1, phase="start", kind="dwell", subject=PERSON))
    posts = home.everything()
    assert Post(MOTION, b"ON", retain=True) in posts
    assert Post("sightline/cameras/door/motion", b"OFF", retain=True) in posts
    assert all(post.retain for post in posts)


def test_an_event_of_the_whole_machine_is_no_camera_s():
    assert make_home("yard").after(make_event(1, camera="", kind="disk-full")) == []


def test_a_removed_camera_takes_the_sensors_of_its_classes_along():
    home = make_home("yard")
    home.after(make_event(1, phase="start", kind="dwell", subject=PERSON))
    gone = home.set_cameras(())
    topics = {post.topic for post in gone}
    assert "homeassistant/binary_sensor/sightline_yard/occupancy_person/config" in topics
    assert len(topics) == 4
    assert all(post == Post(post.topic, b"", retain=True) for post in gone)


def test_a_name_is_one_level_of_a_topic():
    assert [segment(name) for name in ("a/b", "+", "#", "", "back yard")] == [
        "a_b",
        "_",
        "_",
        "-",
        "back yard",
    ]
