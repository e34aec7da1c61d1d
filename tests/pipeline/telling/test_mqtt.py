# SPDX-License-Identifier: Apache-2.0
"""Against a real mosquitto."""

from contextlib import contextmanager

import msgspec
import pytest

from pipeline.telling.teller import Teller
from tests.pipeline.telling.broker import MOSQUITTO, Broker, Listener
from tests.pipeline.telling.builders import PERSON, make_config, make_event, then, wait_until

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt install mosquitto")
EVENTS = "sightline/events/yard/line"


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path) as broker:
        yield broker


@contextmanager
def listening(broker):
    listener = Listener(broker)
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def telling(tmp_path, broker, cameras=("yard",), **mqtt):
    fields = {"host": "127.0.0.1", "port": broker.port, "timeout_s": 3.0, **mqtt}
    teller = Teller(make_config(tmp_path, mqtt=fields), cameras)
    try:
        yield teller
    finally:
        teller.close()


def mqtt_of(teller):
    return teller.statistics().receivers["mqtt"]


def test_an_event_reaches_a_subscriber_as_every_receiver_has_it(tmp_path, broker):
    event = make_event(1)
    with listening(broker) as listener:
        with telling(tmp_path, broker) as teller:
            teller.tell(event)
            wait_until(lambda: listener.on(EVENTS))
        assert msgspec.json.decode(listener.on(EVENTS)[0]) == {
            "version": 1,
            "retry": False,
            "event": msgspec.to_builtins(event),
        }
        wait_until(lambda: listener.on("sightline/status") == [b"online", b"offline"])


def test_a_broker_that_was_away_has_missed_nothing(tmp_path):
    """It remembers who subscribed, and nothing else that would help us."""
    remembering = Broker(tmp_path, "persistence true", f"persistence_location {tmp_path}/")
    announced = "homeassistant/binary_sensor/sightline_yard/motion/config"
    with (
        remembering as broker,
        listening(broker) as listener,
        telling(tmp_path, broker) as teller,
    ):
        for number in range(50):
            teller.tell(make_event(number))
        wait_until(lambda: listener.ids(EVENTS) == list(range(50)))
        broker.stop()
        for number in range(50, 100):
            teller.tell(make_event(number))
        wait_until(lambda: mqtt_of(teller).failed)
        assert not mqtt_of(teller).connected
        assert "127.0.0.1" in mqtt_of(teller).last_error
        broker.start()
        wait_until(lambda: mqtt_of(teller).sent == 100)
        wait_until(lambda: listener.ids(EVENTS) == list(range(100)))
        wait_until(lambda: len(listener.on(announced)) >= 2)


def test_a_broker_that_hung_has_missed_nothing_and_doubles_say_so(tmp_path, broker):
    with listening(broker) as listener, telling(tmp_path, broker, timeout_s=0.5) as teller:
        wait_until(lambda: mqtt_of(teller).connected)
        broker.hang(hangs=True)
        for number in range(50):
            teller.tell(make_event(number))
        wait_until(lambda: mqtt_of(teller).failed >= 2)
        broker.hang(hangs=False)
        wait_until(lambda: mqtt_of(teller).sent == 50)
        wait_until(lambda: listener.ids(EVENTS) == list(range(50)))


def test_home_assistant_learns_what_there_is_and_how_it_is(tmp_path, broker):
    start = make_event(1, phase="start", kind="dwell", subject=PERSON)
    lost = make_event(2, phase="start", kind="camera-lost")
    with listening(broker) as listener, telling(tmp_path, broker) as teller:
        wait_until(lambda: listener.on("sightline/status"))
        for kind, place, device_class in (
            ("binary_sensor", "connection", "connectivity"),
            ("binary_sensor", "motion", "motion"),
            ("event", "event", None),
        ):
            (entity,) = listener.on(f"homeassistant/{kind}/sightline_yard/{place}/config")
            entity = msgspec.json.decode(entity)
            assert entity["unique_id"] == f"sightline_yard_{place}"
            assert entity["state_topic"] == f"sightline/cameras/yard/{place}"
            assert entity["availability_topic"] == "sightline/status"
            assert entity["device"]["identifiers"] == ["sightline_yard"]
            assert entity.get("device_class") == device_class
        assert "dwell" in entity["event_types"]
        teller.tell(start)
        teller.tell(then(start, phase="end"))
        teller.tell(lost)
        teller.tell(then(lost, phase="end"))
        occupancy = "sightline/cameras/yard/occupancy/person"
        wait_until(lambda: listener.on(occupancy) == [b"OFF", b"ON", b"OFF"])
        wait_until(
            lambda: listener.on("sightline/cameras/yard/connection") == [b"ON", b"OFF", b"ON"]
        )
        assert listener.on("sightline/cameras/yard/motion") == [b"OFF", b"ON", b"OFF"]
        wait_until(lambda: len(listener.on("sightline/cameras/yard/event")) == 4)
        told = msgspec.json.decode(listener.on("sightline/cameras/yard/event")[0])
        assert (told["event_type"], told["phase"]) == ("dwell", "start")
        announced = "homeassistant/binary_sensor/sightline_yard/occupancy_person/config"
        assert msgspec.json.decode(listener.on(announced)[0])["state_topic"] == occupancy


def test_a_camera_that_is_removed_vanishes_and_a_new_one_appears(tmp_path, broker):
    with telling(tmp_path, broker) as teller:
        wait_until(lambda: mqtt_of(teller).connected)
        teller.set_cameras(["door"])
        with listening(broker) as listener:
            there = "homeassistant/binary_sensor/sightline_door/motion/config"
            wait_until(lambda: listener.on(there))
        with listening(broker) as late:
            wait_until(lambda: late.on(there))
            assert not late.on("homeassistant/binary_sensor/sightline_yard/motion/config")


def test_a_broker_hears_of_a_program_that_died(tmp_path, broker):
    with listening(broker) as listener, telling(tmp_path, broker) as teller:
        wait_until(lambda: listener.on("sightline/status") == [b"online"])
        teller._receivers[0][0]._connection._client.socket().close()
        wait_until(lambda: listener.on("sightline/status")[:2] == [b"online", b"offline"])
        wait_until(lambda: listener.on("sightline/status")[-1] == b"online")


def test_a_topic_the_broker_does_not_allow_parks_its_events_only(tmp_path):
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite sightline/events/door/#\ntopic write sightline/status\n")
    with (
        Broker(tmp_path, f"acl_file {rules}") as broker,
        telling(tmp_path, broker, home_assistant=False) as teller,
    ):
        teller.tell(make_event(1))
        teller.tell(make_event(2, camera="door"))
        wait_until(lambda: mqtt_of(teller).sent == 1)
        assert mqtt_of(teller).parked == 1
        assert "Not authorized" in mqtt_of(teller).last_error


def test_a_wrong_password_is_said_without_it(tmp_path):
    (tmp_path / "users").touch()
    with (
        Broker(tmp_path, f"password_file {tmp_path / 'users'}") as broker,
        telling(tmp_path, broker, username="u", password="p4ss-w0rd") as teller,
    ):
        wait_until(lambda: mqtt_of(teller).last_error)
        assert "not authorized" in mqtt_of(teller).last_error
        assert "p4ss" not in mqtt_of(teller).last_error
