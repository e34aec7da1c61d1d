"""Both ends of links at work, over threads' and over processes' addresses."""

import os
import time
from functools import partial

import pytest
import zmq

from pipeline.errors import StageError
from pipeline.messages import Ended, Found, Picture
from pipeline.topology import Link
from pipeline.transport.control import Close, Forget, Reconnect, Stop
from pipeline.transport.ports import ClosedDown, Ports
from tests.pipeline.transport.rig import (
    TIMEOUT_S,
    UINT8,
    Rig,
    ended,
    found,
    leased,
    picture,
    settle,
    wait_until,
)

DEEP = Link("found", Found, depth=3)
NARROW = Link("found", Found, depth=8, window=2)
RESENT = Link("pictures", Picture, depth=4, window=4, resend=True)
PICTURES = Link("pictures", Picture, depth=4)


def pair(rig: Rig, link: Link) -> tuple[Ports, Ports]:
    reader = rig.ports("reader", reads=[link], stream="yard")
    return rig.ports("writer", writes={link: ["reader"]}), reader


def test_nothing_is_sent_without_a_credit(rig: Rig) -> None:
    writer, reader = pair(rig, DEEP)
    held = [rig.deliver(writer, "found", reader, found(index)) for index in range(3)]
    assert not writer.can_send("found", "yard")
    sending = rig.begin(writer.send, "found", found(3))
    held.pop(0).release()
    delivery = reader.receive("found")
    sending.result(TIMEOUT_S)
    assert delivery is not None
    assert delivery.message == found(3)
    assert not writer.can_send("found", "yard")


def test_before_the_reader_is_there_nothing_can_be_sent(rig: Rig) -> None:
    writer = rig.ports("writer", writes={DEEP: ["reader"]})
    assert not writer.can_send("found", "yard")
    reader = rig.ports("reader", reads=[DEEP], stream="yard")
    assert rig.deliver(writer, "found", reader, found()).message == found()


def test_the_window_bounds_what_is_unacknowledged_even_when_credits_are_back(rig: Rig) -> None:
    writer, reader = pair(rig, NARROW)
    held = [rig.deliver(writer, "found", reader, found(index)) for index in range(2)]
    for delivery in held:
        delivery.release()
    settle(writer)
    assert not writer.can_send("found", "yard")
    held[0].acknowledge()
    wait_until(writer, lambda: writer.can_send("found", "yard"))


def test_an_answer_given_twice_counts_once(rig: Rig) -> None:
    writer, reader = pair(rig, DEEP)
    deliveries = [rig.deliver(writer, "found", reader, found(index)) for index in range(3)]
    for _ in range(5):
        deliveries[0].release()
        deliveries[0].acknowledge()
    wait_until(writer, lambda: writer.can_send("found", "yard"))
    settle(writer)
    rig.deliver(writer, "found", reader, found(3))
    assert not writer.can_send("found", "yard")


@pytest.mark.parametrize("answer", ["release", "acknowledge"])
def test_either_answer_returns_the_credit_and_frees_the_slot(rig: Rig, answer: str) -> None:
    writer, reader = pair(rig, PICTURES)
    pool = rig.pools.create("yard/pictures", (4,), UINT8, 2)
    lease = leased(pool, 5)
    delivery = rig.deliver(writer, "pictures", reader, picture(lease), lease=lease)
    assert isinstance(delivery.message, Picture)
    assert rig.pools.view(delivery.message.picture).tolist() == [5] * 4
    settle(writer)
    assert pool.num_held == 1
    getattr(delivery, answer)()
    wait_until(writer, lambda: pool.num_held == 0)


def test_a_link_that_resends_keeps_the_slot_until_it_is_acknowledged(rig: Rig) -> None:
    writer, reader = pair(rig, RESENT)
    pool = rig.pools.create("yard/pictures", (4,), UINT8, 2)
    lease = leased(pool)
    delivery = rig.deliver(writer, "pictures", reader, picture(lease), lease=lease)
    delivery.release()
    settle(writer)
    assert pool.num_held == 1
    delivery.acknowledge()
    wait_until(writer, lambda: pool.num_held == 0)


def test_two_readers_both_get_every_message_and_the_slot_is_free_when_both_let_go(
    rig: Rig,
) -> None:
    readers = [rig.ports(name, reads=[PICTURES], stream="yard") for name in ("one", "two")]
    writer = rig.ports("writer", writes={PICTURES: ["one", "two"]})
    pool = rig.pools.create("yard/pictures", (4,), UINT8, 2)
    lease = leased(pool, 9)
    acknowledged: list[int] = []
    sending = rig.begin(
        writer.send,
        "pictures",
        picture(lease),
        lease=lease,
        on_acknowledged=partial(acknowledged.append, 1),
    )
    # Each reader grants its own credits; the message leaves when both have.
    receiving = [rig.begin(reader.receive, "pictures") for reader in readers]
    sending.result(TIMEOUT_S)
    first, second = (future.result(TIMEOUT_S) for future in receiving)
    assert first is not None
    assert second is not None
    assert first.message == second.message == picture(lease)
    first.acknowledge()
    settle(writer)
    assert (pool.num_held, acknowledged) == (1, [])
    second.release()
    wait_until(writer, lambda: pool.num_held == 0)
    assert acknowledged == []
    second.acknowledge()
    wait_until(writer, lambda: acknowledged == [1])


def test_every_writer_of_many_keeps_its_order(rig: Rig) -> None:
    reader = rig.ports("trunk", reads=[DEEP])
    writers = [rig.ports(f"writer{n}", writes={DEEP: ["trunk"]}) for n in range(3)]

    def send_all(writer: Ports) -> None:
        for index in range(40):
            writer.send("found", found(index, stream=writer.name))
        writer.drain()

    sending = [rig.begin(send_all, writer) for writer in writers]
    arrived: dict[str, list[int]] = {writer.name: [] for writer in writers}
    for _ in range(3 * 40):
        delivery = reader.receive("found")
        assert delivery is not None
        arrived[delivery.message.stream].append(delivery.message.frame_index)
        delivery.acknowledge()
    for future in sending:
        future.result(TIMEOUT_S)
    assert list(arrived.values()) == [list(range(40))] * 3


def test_a_stream_that_is_forgotten_swallows_what_is_sent_to_it(rig: Rig) -> None:
    writer, reader = pair(rig, PICTURES)
    pool = rig.pools.create("yard/pictures", (4,), UINT8, 4)
    acknowledged: list[str] = []
    before, after = leased(pool), leased(pool)
    rig.deliver(
        writer,
        "pictures",
        reader,
        picture(before),
        lease=before,
        on_acknowledged=partial(acknowledged.append, "before"),
    )
    rig.tell(writer, Forget(stream="yard"))
    wait_until(writer, lambda: acknowledged == ["before"])
    writer.send(
        "pictures",
        picture(after),
        lease=after,
        on_acknowledged=partial(acknowledged.append, "after"),
    )
    assert acknowledged == ["before", "after"]
    assert pool.num_held == 0
    writer.drain()


def test_forgetting_the_stream_ends_a_blocked_send(rig: Rig) -> None:
    writer, reader = pair(rig, Link("found", Found, depth=1))
    rig.deliver(writer, "found", reader, found(0))
    acknowledged: list[int] = []
    sending = rig.begin(
        writer.send, "found", found(1), on_acknowledged=partial(acknowledged.append, 1)
    )
    rig.tell(writer, Forget(stream="yard"))
    sending.result(TIMEOUT_S)
    assert acknowledged == [1]


def test_forgetting_one_stream_leaves_the_others(rig: Rig) -> None:
    yard = rig.ports("reader", reads=[DEEP], stream="yard")
    gate = rig.ports("other", reads=[DEEP], stream="gate")
    writer = rig.ports("writer", writes={DEEP: ["reader"]})
    rig.deliver(writer, "found", yard, found())
    writer.forget("gate")
    writer.send("found", found(0, stream="gate"))
    assert rig.deliver(writer, "found", yard, found(1)).message == found(1)
    wake = _readable()
    assert gate.receive("found", wake=wake) is None
    os.close(wake)


def test_forgetting_a_stream_takes_no_slot_from_a_reader_that_is_still_there(rig: Rig) -> None:
    reader = rig.ports("trunk", reads=[PICTURES])
    writer = rig.ports("writer", writes={PICTURES: ["trunk"]})
    pool = rig.pools.create("predictions", (4,), UINT8, 2)
    acknowledged: list[int] = []
    lease = leased(pool, 3)
    delivery = rig.deliver(
        writer,
        "pictures",
        reader,
        picture(lease),
        lease=lease,
        on_acknowledged=partial(acknowledged.append, 1),
    )
    rig.tell(writer, Forget(stream="yard"))
    writer.wait(TIMEOUT_S * 1000)
    assert (pool.num_held, acknowledged) == (1, [])
    assert rig.pools.view(lease.slot).tolist() == [3] * 4
    delivery.acknowledge()
    wait_until(writer, lambda: acknowledged == [1])
    assert pool.num_held == 0
    gone, other = leased(pool), leased(pool)
    writer.send("pictures", picture(gone), lease=gone)
    assert pool.num_held == 1
    rig.deliver(writer, "pictures", reader, picture(other, stream="gate"), lease=other)


def test_what_is_acknowledged_may_acknowledge_what_it_came_from(rig: Rig) -> None:
    first = rig.ports("source", writes={DEEP: ["trunk"]})
    middle = rig.ports("trunk", reads=[DEEP], writes={PICTURES: ["sink"]})
    last = rig.ports("sink", reads=[PICTURES], stream="yard")
    done: list[int] = []
    sending = rig.begin(first.send, "found", found(), on_acknowledged=partial(done.append, 1))
    arrived = middle.receive("found")
    sending.result(TIMEOUT_S)
    assert arrived is not None
    arrived.release()
    out = rig.deliver(middle, "pictures", last, ended(), on_acknowledged=arrived.acknowledge)
    settle(first)
    assert done == []
    out.acknowledge()
    middle.drain()
    wait_until(first, lambda: done == [1])


@pytest.mark.parametrize("waiting", ["receive", "send", "wait", "drain", "lease"])
def test_close_ends_whatever_a_stage_waits_for(rig: Rig, waiting: str) -> None:
    single = Link("found", Found, depth=1)
    writer, reader = pair(rig, single)
    rig.deliver(writer, "found", reader, found())
    pool = rig.pools.create("yard/pictures", (1,), UINT8, 1)
    pool.lease()
    waits = {
        "receive": (reader, partial(reader.receive, "found")),
        "send": (writer, partial(writer.send, "found", found(1))),
        "wait": (writer, writer.wait),
        "drain": (writer, writer.drain),
        "lease": (writer, partial(writer.lease, pool)),
    }
    ports, call = waits[waiting]
    blocked = rig.begin(call)
    rig.tell(ports, Close())
    with pytest.raises(ClosedDown):
        blocked.result(TIMEOUT_S)
    if waiting != "send":  # which may hear the order before it has to wait
        assert ports.usage.waiting_for_input_ns + ports.usage.waiting_for_credit_ns > 0


def test_stop_is_seen_and_ends_nothing(rig: Rig) -> None:
    writer, reader = pair(rig, DEEP)
    assert not writer.stopping
    rig.tell(writer, Stop())
    wait_until(writer, lambda: writer.stopping)
    assert rig.deliver(writer, "found", reader, found()).message == found()
    assert writer.stopping


def _readable() -> int:
    return os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def test_a_wake_descriptor_ends_the_wait_for_input(rig: Rig) -> None:
    _, reader = pair(rig, DEEP)
    wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    blocked = rig.begin(reader.receive, "found", wake=wake)
    os.eventfd_write(wake, 1)
    assert blocked.result(TIMEOUT_S) is None
    assert os.eventfd_read(wake) == 1
    os.close(wake)


def test_a_message_is_taken_before_the_wake(rig: Rig) -> None:
    writer, reader = pair(rig, DEEP)
    rig.deliver(writer, "found", reader, found(0))
    writer.send("found", found(1))
    wake = _readable()
    zmq.zmq_poll([(reader._inlets["found"].socket, zmq.POLLIN)], TIMEOUT_S * 1000)
    delivery = reader.receive("found", wake=wake)
    assert delivery is not None
    assert delivery.message == found(1)
    assert reader.receive("found", wake=wake) is None
    os.close(wake)


def test_waiting_is_counted_where_it_was(rig: Rig) -> None:
    writer, reader = pair(rig, Link("found", Found, depth=1))
    started = time.monotonic_ns()
    delivery = rig.deliver(writer, "found", reader, found())
    receiving = reader.usage.waiting_for_input_ns
    assert 0 < receiving <= time.monotonic_ns() - started
    writer.wait(30)
    assert writer.usage.waiting_for_credit_ns >= 30_000_000
    delivery.acknowledge()
    assert (reader.usage.messages, writer.usage.messages) == (1, 0)
    assert reader.usage.waiting_for_input_ns == receiving
    assert reader.usage.waiting_for_credit_ns == 0


def test_a_stage_hears_commands_while_its_reader_is_gone(rig: Rig) -> None:
    """A reader that closed with credits given out must not silence its writer for ever."""
    writer, reader = pair(rig, DEEP)
    rig.deliver(writer, "found", reader, found())
    rig.close(reader)
    settle(writer)
    sending = rig.begin(lambda: [writer.send("found", found(n)) for n in range(9)])
    rig.tell(writer, Close())
    with pytest.raises(ClosedDown):
        sending.result(TIMEOUT_S)


def test_who_waits_at_one_link_welcomes_the_writers_of_another(rig: Rig) -> None:
    """Who takes the place of a decoder sends pictures before the tracks that are waited for."""
    pictures = Link("pictures", Picture, depth=2)
    reader = rig.ports("reader", reads=[DEEP, pictures], stream="yard")
    writer = rig.ports("writer", writes={DEEP: ["reader"], pictures: ["reader"]})
    waiting = rig.begin(reader.receive, "found")
    pool = rig.pools.create("yard/pictures", (3, 2), UINT8, 2)
    for index in range(2):
        lease = leased(pool)
        rig.begin(writer.send, "pictures", picture(lease, index), lease=lease).result(TIMEOUT_S)
    assert not writer.can_send("pictures", "yard")
    rig.begin(writer.send, "found", found()).result(TIMEOUT_S)
    assert waiting.result(TIMEOUT_S).message == found()
    early = [reader.receive("pictures") for _ in range(2)]
    assert [delivery and delivery.message.frame_index for delivery in early] == [0, 1]


def move(rig: Rig, writer: Ports, link: Link, before: str, after: str) -> None:
    places = [rig.address(link, reader, "yard") for reader in (before, after)]
    rig.tell(writer, Reconnect(address=places[0], to=places[1]))
    wait_until(writer, lambda: writer._moved.get(places[0]) == places[1])


def test_what_a_reader_did_not_acknowledge_goes_to_the_one_elsewhere_that_takes_its_place(
    rig: Rig,
) -> None:
    writer = rig.ports("writer", writes={DEEP: ["trunk0"]})
    first = rig.ports("trunk0", reads=[DEEP])
    held = [rig.deliver(writer, "found", first, found(index)) for index in range(3)]
    held[0].acknowledge()
    wait_until(writer, lambda: writer.can_send("found", "yard"))
    rig.close(first)
    for before, after in (("trunk0", "trunk1"), ("trunk1", "trunk2")):
        reader = rig.ports(after, reads=[DEEP])
        move(rig, writer, DEEP, before, after)
        sending = rig.begin(writer.send, "found", found(held[-1].message.frame_index + 1))
        count = 1 + len(held[1:])
        held = [delivery for _ in range(count) if (delivery := reader.receive("found"))]
        held[0].acknowledge()
        sending.result(TIMEOUT_S)
        settle(writer)
    assert [delivery.message.frame_index for delivery in held] == [2, 3, 4]


def test_a_reader_may_move_before_anything_was_sent_to_it(rig: Rig) -> None:
    writer = rig.ports("writer", writes={DEEP: ["trunk0"]})
    move(rig, writer, DEEP, "trunk0", "trunk1")
    move(rig, writer, DEEP, "trunk1", "trunk2")
    reader = rig.ports("trunk2", reads=[DEEP])
    assert rig.deliver(writer, "found", reader, found()).message == found()


def test_answers_given_before_a_reader_closes_arrive(rig: Rig) -> None:
    writer, reader = pair(rig, Link("found", Found, depth=50))
    deliveries = [rig.deliver(writer, "found", reader, found(n)) for n in range(50)]
    for delivery in deliveries:
        delivery.acknowledge()
    rig.close(reader)
    writer.drain()


def test_answers_for_a_writer_that_died_do_not_count_for_its_successor(rig: Rig) -> None:
    reader = rig.ports("reader", reads=[DEEP], stream="yard")
    dead = rig.ports("writer", writes={DEEP: ["reader"]})
    old = [rig.deliver(dead, "found", reader, found(index)) for index in range(3)]
    rig.close(dead)
    writer = rig.ports("writer2", writes={DEEP: ["reader"]})
    writer.name = "writer"
    new = [rig.deliver(writer, "found", reader, found(index)) for index in range(3)]
    for delivery in old:
        delivery.acknowledge()
    settle(writer)
    assert not writer.can_send("found", "yard")
    new[0].release()
    wait_until(writer, lambda: writer.can_send("found", "yard"))


def test_what_is_no_message_of_ours_ends_the_reader_with_a_line(rig: Rig) -> None:
    _, reader = pair(rig, DEEP)
    stranger = rig.context.socket(zmq.DEALER)
    stranger.setsockopt(zmq.ROUTING_ID, b"stranger")
    stranger.connect(rig.address(DEEP, "reader", "yard"))
    stranger.send_multipart((b"M", bytes(8), b"\xff what?"))
    with pytest.raises(StageError, match="stranger sent what is no message of ours") as caught:
        reader.receive("found")
    assert "\n" not in str(caught.value)
    stranger.close(linger=0)


def test_a_message_that_cannot_be_packed_costs_no_credit(rig: Rig) -> None:
    writer, reader = pair(rig, Link("found", Found, depth=1))
    rig.deliver(writer, "found", reader, found()).acknowledge()
    wait_until(writer, lambda: writer.can_send("found", "yard"))
    with pytest.raises(OverflowError):
        writer.send("found", found(2**70))
    assert writer.can_send("found", "yard")
    writer.drain()


def test_names_of_any_length_can_be_connected(rig: Rig) -> None:
    stream = "ä" * 60
    reader = rig.ports("reader", reads=[DEEP])
    writer = rig.ports(f"decode:{stream}", writes={DEEP: ["reader"]})
    rig.address = lambda link, name, _: f"{rig.base}/{link.name}.{name}."  # type: ignore[method-assign]
    message = Ended(stream=stream, frame_index=0, complete=True)
    assert rig.deliver(writer, "found", reader, message).message == message


def test_the_context_ends_with_messages_and_answers_unread(rig: Rig) -> None:
    writer, reader = pair(rig, DEEP)
    nobody = rig.ports("lonely", writes={DEEP: ["nowhere"]})
    assert not nobody.can_send("found", "yard")
    rig.deliver(writer, "found", reader, found(0)).acknowledge()
    writer.send("found", found(1))
    started = time.monotonic()
    rig.close(writer)
    rig.close(reader)
    rig.close(nobody)
    assert time.monotonic() - started < 1
