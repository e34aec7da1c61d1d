# SPDX-License-Identifier: Apache-2.0
"""What a collector answers over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.fleet.web import make_app
from pipeline.serve.access import HttpConfig
from pipeline.serve.answering import HttpServer
from pipeline.telling.fleet import FleetReceiver
from pipeline.telling.letters import Letter, encode_event
from pipeline.transport import fleetwire as wire
from tests.pipeline.fleet.test_collector import REPORT
from tests.pipeline.fleet.world import Fleet
from tests.pipeline.telling.builders import make_event, wait_until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, "gate", "yard")
    fleet.start()
    yield fleet
    fleet.stop()


@pytest.fixture
def client(fleet: Fleet) -> Iterator[httpx.Client]:
    config = HttpConfig(listen="127.0.0.1:0")
    assert fleet.collector is not None
    server = HttpServer(make_app(fleet.collector, config), config)
    server.start()
    with httpx.Client(base_url=server.address, timeout=10) as client:
        yield client
    server.close()


def tell(fleet: Fleet, name: str, *numbers: int) -> None:
    receiver = FleetReceiver(fleet.fleet_config(name))
    receiver.report = lambda: REPORT
    for number in numbers:
        event = make_event(number, camera="odd" if number % 2 else "even")
        receiver.send([Letter(key=(event.id, event.revision), body=encode_event(event))])
    receiver.ready()
    receiver.close()


def test_boxes_are_shown_with_their_state_and_report(fleet: Fleet, client: httpx.Client) -> None:
    tell(fleet, "gate", 1)
    wait_until(lambda: fleet.box("gate").report is not None and fleet.box("gate").state == "away")
    gate, yard = client.get("/api/boxes").json()["boxes"]
    assert (gate["name"], gate["state"], gate["told"]) == ("gate", "away", 1)
    assert gate["report"]["cameras"]["yard"] == {
        "state": "live", "reason": None, "decoded_fps": 0.0, "tracked_fps": 0.0,
        "decoded": 7, "tracked": 0, "dropped": 0,
    }  # fmt: skip
    assert (yard["name"], yard["state"], yard["heard_s"]) == ("yard", "never-seen", None)
    assert client.get("/healthz").json() == {"ok": True, "faults": []}
    assert client.get("/readyz").status_code == 200


def test_events_are_asked_for_by_box_camera_and_number(fleet: Fleet, client: httpx.Client) -> None:
    tell(fleet, "gate", 1, 2, 3)
    tell(fleet, "yard", 4)

    def asked(**query: str) -> list[int]:
        page = client.get("/api/events", params=query).json()["events"]
        return [int(one["event"]["id"], 16) for one in page]

    assert asked() == [4, 3, 2, 1]
    assert asked(box="gate") == [3, 2, 1]
    assert asked(box="gate", camera="odd") == [3, 1]
    assert asked(kind="enter") == []
    assert asked(before="3", limit="1") == [2]
    assert asked(after="1") == [2, 3, 4]
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"boxes": "a"}, {"after": "9" * 30}):
        assert client.get("/api/events", params=wrong).status_code == 400


def test_an_event_is_shown_as_it_came_however_odd(fleet: Fleet, client: httpx.Client) -> None:
    receiver = FleetReceiver(fleet.fleet_config("gate"))
    start = b'{"id":"a","revision":0,"camera":"","kind":"line","x":'
    body = start + b"[" * 900 + b"]" * 900 + b"}"
    receiver.send([Letter(key=("a", 0), body=body)])
    receiver.close()
    assert body in client.get("/api/events").content


def test_metrics_tell_boxes_cameras_and_messages(fleet: Fleet, client: httpx.Client) -> None:
    tell(fleet, "gate", 1, 1)
    wait_until(lambda: fleet.box("gate").report is not None)
    text = client.get("/metrics").text
    for line in (
        'sightline_fleet_messages_kept_total{box="gate"} 1.0',
        'sightline_fleet_messages_known_total{box="gate"} 1.0',
        'sightline_fleet_box_lost{box="yard"} 0.0',
        'sightline_fleet_camera_live{box="gate",camera="yard"} 1.0',
        "sightline_fleet_writable 1.0",
    ):
        assert line in text.splitlines()


def test_nothing_can_be_changed_over_http(client: httpx.Client) -> None:
    for path in ("/api/boxes", "/api/events", "/metrics"):
        assert client.post(path).status_code == 405


def test_a_protocol_of_another_version_is_said(fleet: Fleet) -> None:
    with fleet.dialled("gate") as connection:
        connection.send(wire.encode(wire.Hello(protocol=99, version="9")))
        ((header,),) = connection.receive(10.0)
        refused = wire.from_collector(header)
        assert isinstance(refused, wire.Refused)
        assert "the collector speaks protocol 1, the box 99" in refused.reason
