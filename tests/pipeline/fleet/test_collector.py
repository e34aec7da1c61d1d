# SPDX-License-Identifier: Apache-2.0
"""Boxes and their collector, over sockets of this machine."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from pipeline.telling.fleet import FleetReceiver
from pipeline.telling.letters import Letter, Refused, Unreachable, encode_event
from pipeline.transport import fleetwire as wire
from pipeline.transport.curve import make_keys, read_keys, secure
from pipeline.transport.dialling import Gone
from tests.pipeline.fleet.world import Fleet, names_of
from tests.pipeline.telling.builders import make_event, then, wait_until

REPORT = wire.Report(
    at_s=1.0,
    since_s=0.5,
    version="1.2",
    model="t",
    writable=True,
    cameras={"yard": wire.CameraHealth(state="live", decoded=7)},
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, "gate", "yard")
    yield fleet
    fleet.stop()


def letter(number: int = 0, **fields: Any) -> Letter:
    event = make_event(number, **fields)
    return Letter(key=(event.id, event.revision), body=encode_event(event))


def last_error(teller: Any) -> str:
    return teller.statistics().receivers["fleet"].last_error or ""


def test_everything_arrives_once_and_in_order_over_an_outage(fleet: Fleet) -> None:
    fleet.start()
    with fleet.teller("gate") as gate, fleet.teller("yard") as yard:
        for number in range(40):
            gate.tell(make_event(number))
        wait_until(lambda: len(fleet.told("gate")) >= 20)
        fleet.stop()
        for number in range(40, 300):
            gate.tell(make_event(number))
            yard.tell(make_event(number))
        wait_until(lambda: "nobody listens there" in last_error(gate))
        fleet.start()
        wait_until(lambda: len(fleet.told("gate")) == 300 and len(fleet.told("yard")) == 260)
        assert fleet.told("gate") == names_of(range(300))
        assert fleet.told("yard") == names_of(range(40, 300))
        wait_until(lambda: gate.statistics().receivers["fleet"].waiting == 0)


def test_what_comes_twice_is_kept_once_for_each_box(fleet: Fleet) -> None:
    fleet.start()
    start = make_event(1, phase="start")
    both = [
        Letter(key=(event.id, event.revision), body=encode_event(event))
        for event in (start, then(start, phase="end"))
    ]
    for name in ("gate", "gate", "yard"):
        receiver = FleetReceiver(fleet.fleet_config(name))
        receiver.send([*both, *both])
        receiver.close()
    assert fleet.told("gate") == fleet.told("yard") == [f"{start.id}:0", f"{start.id}:1"]
    assert (fleet.box("gate").told, fleet.box("gate").known) == (2, 6)


def test_a_key_taken_away_is_refused_on_the_connection_that_stands(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.start()
    with fleet.teller("gate") as gate, fleet.teller("yard") as yard:
        gate.tell(make_event(0))
        yard.tell(make_event(0))
        wait_until(lambda: fleet.told("gate") and fleet.told("yard"))
        fleet.revoke("gate")
        for number in range(1, 6):
            gate.tell(make_event(number))
            yard.tell(make_event(number))
        wait_until(lambda: "refused our key" in last_error(gate))
        assert "copy gate.pub into the collector's folder" in last_error(gate)
        wait_until(lambda: fleet.told("yard") == names_of(range(6)))
        assert fleet.told("gate") == names_of(range(1))
        assert fleet.box("gate").state == "revoked"
        assert "gate: its key" in caplog.text
        assert "refused the key" in caplog.text
        fleet.enrol("gate")
        wait_until(lambda: fleet.told("gate") == names_of(range(6)))


def test_a_dishonest_box_loses_its_connection_with_its_key(fleet: Fleet) -> None:
    fleet.start()
    with fleet.dialled("gate") as connection:
        fleet.revoke("gate")
        connection.send(wire.encode(wire.Told(number=1, retry=False)), letter().body)
        with pytest.raises(Gone):
            connection.receive(10.0)
    assert fleet.told("gate") == []


def test_an_unknown_key_is_refused_and_both_sides_say_so(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.start()
    make_keys("stranger", fleet.keys)
    public = read_keys(fleet.keys / "stranger.key").public.hex()
    receiver = FleetReceiver(fleet.fleet_config("stranger"))
    with pytest.raises(Unreachable, match=f"refused our key {public}; copy stranger.pub into"):
        receiver.send([letter()])
    receiver.close()
    wait_until(lambda: f"refused the key {public}" in caplog.text)
    said_by = {record.name for record in caplog.records if public in record.getMessage()}
    assert said_by >= {"pipeline.telling.fleet", "pipeline.transport.curve"}


def test_a_wrong_key_of_the_collector_is_said_by_both_sides(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.start()
    make_keys("other", fleet.keys)
    wrong = fleet.keys / "other.pub"
    receiver = FleetReceiver(fleet.fleet_config("gate", collector_key=wrong))
    with pytest.raises(
        Unreachable, match=rf"another key than {wrong} \(events.fleet.collector_key\)"
    ):
        receiver.send([letter()])
    receiver.close()
    wait_until(lambda: "a handshake failed" in caplog.text)
    assert fleet.collector is not None
    assert fleet.collector.num_handshakes_failed >= 1


def test_one_letter_that_is_no_event_is_refused_and_the_next_is_kept(fleet: Fleet) -> None:
    fleet.start()
    receiver = FleetReceiver(fleet.fleet_config("gate"))
    bad = Letter(key=("x", 0), body=b'{"id": 1}')
    with pytest.raises(Refused, match="the collector cannot read it") as refused:
        receiver.send([letter(0), letter(1), bad, bad, letter(2)])
    assert refused.value.num_done == 2
    with pytest.raises(Refused) as refused:
        receiver.send([bad, letter(2)])
    assert refused.value.num_done == 0
    receiver.send([letter(2)])
    receiver.close()
    assert fleet.told("gate") == names_of(range(3))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"id": "", "revision": 0, "camera": "", "kind": "line"}',
        b'{"id": "a", "revision": -1, "camera": "", "kind": "line"}',
        b'{"id": "a", "revision": 9999999999, "camera": "", "kind": "line"}',
        b'{"id": "\\ud800", "revision": 0, "camera": "", "kind": "line"}',
        b'{"id": "a", "revision": 0, "camera": "", "kind": "line", "x": "\xff"}',
        b'{"id": "a", "revision": 0, "camera": "", "kind": "line", "x": NaN}',
        b"[" * 100_000,
        b" " * (wire.MOST_EVENT_BYTES + 1),
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
def test_what_is_no_event_is_rejected(fleet: Fleet, body: bytes) -> None:
    fleet.start()
    receiver = FleetReceiver(fleet.fleet_config("gate"))
    with pytest.raises(Refused):
        receiver.send([Letter(key=("x", 0), body=body)])
    receiver.send([letter()])
    receiver.close()


def test_an_event_of_a_later_version_passes_through(fleet: Fleet) -> None:
    fleet.start()
    receiver = FleetReceiver(fleet.fleet_config("gate"))
    body = b'{"id":"a","revision":0,"camera":"c","kind":"flight","wings":{"left":[1,2]}}'
    receiver.send([Letter(key=("a", 0), body=body)])
    receiver.close()
    assert fleet.told("gate") == ["a:0"]


@pytest.mark.parametrize(
    "parts",
    [
        (b"",),
        (b"\xc1garbage",),
        (wire.encode(wire.Told(number=2, retry=False)), b"{}"),
        (wire.encode(wire.Told(number=1, retry=False)),),
        (wire.encode(wire.Told(number=1, retry=False)), b"{}", b"{}"),
        (b"\x91" * 5000,),
    ],
    ids=["empty", "garbage", "a gap", "no event", "two events", "deep"],
)
def test_a_box_that_misbehaves_loses_its_connection_and_nobody_else(
    fleet: Fleet, parts: tuple[bytes, ...]
) -> None:
    fleet.start()
    with fleet.dialled("gate") as connection:
        connection.send(*parts)
        ((header,),) = connection.receive(10.0)
        refused = wire.from_collector(header)
        assert isinstance(refused, wire.Refused)
        assert "no message of ours" in refused.reason
    receiver = FleetReceiver(fleet.fleet_config("yard"))
    receiver.send([letter()])
    receiver.close()


def test_a_box_that_floods_and_does_not_read_slows_nobody(fleet: Fleet) -> None:
    fleet.start(credits=4)
    done = threading.Event()
    with fleet.dialled("gate") as connection, fleet.teller("yard") as yard:

        def flood() -> None:
            number = 0
            while not done.is_set() and number < 20_000:
                number += 1
                told = wire.encode(wire.Told(number=number, retry=False))
                connection.send(told, letter(number).body)

        flooding = threading.Thread(target=flood)
        flooding.start()
        for number in range(50):
            yard.tell(make_event(number))
        wait_until(lambda: fleet.told("yard") == names_of(range(50)))
        done.set()
        flooding.join()


def test_no_more_is_sent_than_there_are_credits(fleet: Fleet) -> None:
    """A collector that grants three, and acknowledges one."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        secure(socket, read_keys(fleet.keys / "collector.key"))
        fleet.address = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
        receiver = FleetReceiver(fleet.fleet_config("gate"))
        failed: list[Unreachable] = []

        def send() -> None:
            try:
                receiver.send([letter(number) for number in range(10)])
            except Unreachable as failure:
                failed.append(failure)
            receiver.close()

        sending = threading.Thread(target=send)
        sending.start()
        peer, _ = socket.recv_multipart()
        socket.send_multipart([peer, wire.encode(wire.Welcome(box="gate", credits=3))])
        heard = [wire.from_box(socket.recv_multipart()[1]) for _ in range(3)]
        socket.send_multipart([peer, wire.encode(wire.Ack(through=1))])
        heard.append(wire.from_box(socket.recv_multipart()[1]))
        assert [one.number for one in heard if isinstance(one, wire.Told)] == [1, 2, 3, 4]
        assert not socket.poll(100)
        socket.send_multipart([peer, wire.encode(wire.Refused(reason="enough"))])
        sending.join(20)
    (failure,) = failed
    assert (str(failure), failure.num_done) == (f"{fleet.address}: enough", 1)


def test_nothing_is_acknowledged_while_the_database_cannot_be_written(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector = fleet.start()
    keep, full = collector.database.keep, threading.Event()
    full.set()

    def keep_if_there_is_room(*arguments: Any) -> Any:
        if full.is_set():
            raise sqlite3.OperationalError("database or disk is full")
        return keep(*arguments)

    monkeypatch.setattr(collector.database, "keep", keep_if_there_is_room)
    with fleet.teller("gate") as gate:
        gate.tell(make_event(0))
        wait_until(lambda: "cannot write its database now" in last_error(gate))
        assert collector.faults() == ["the database cannot be written"]
        assert gate.statistics().receivers["fleet"].waiting == 1
        full.clear()
        wait_until(lambda: fleet.told("gate") == names_of(range(1)))
        assert collector.faults() == []
    assert caplog.text.count("database or disk is full") == 1


def test_how_a_box_does_is_known_also_after_a_restart(fleet: Fleet) -> None:
    fleet.start()
    with fleet.teller("gate", health_s=1.0) as gate:
        assert fleet.box("gate").state == "never-seen"
        gate.report_with(lambda: REPORT)
        wait_until(lambda: fleet.box("gate").report == REPORT)
        wait_until(lambda: fleet.box("gate").state == "connected")
    fleet.stop()
    fleet.start()
    box = fleet.box("gate")
    assert (box.report, box.heard_s is not None) == (REPORT, True)
    wait_until(lambda: fleet.box("gate").state == "away")


def test_a_second_connection_of_a_key_takes_the_place_of_the_first(fleet: Fleet) -> None:
    fleet.start()
    with fleet.dialled("gate") as first, fleet.dialled("gate") as second:
        first.send(wire.encode(wire.Told(number=1, retry=False)), letter(1).body)
        second.send(wire.encode(wire.Told(number=1, retry=False)), letter(2).body)
        ((header,),) = second.receive(10.0)
        assert wire.from_collector(header) == wire.Ack(through=1)
        assert fleet.told("gate") == names_of(range(2, 3))
