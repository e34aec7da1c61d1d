"""The client's end of a connection to a worker: whose picture goes when."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from model.config import Suppression
from model.slicing import Region
from pipeline.errors import StageError
from pipeline.transport.curve import read_keys, read_public
from pipeline.transport.mailbox import Mailbox
from pipeline.transport.uplink import Answer, Asked, Uplink, _Lost
from pipeline.transport.wire import PROTOCOL, Hello, model_facts
from tests.pipeline.far_side import TIMEOUT_S, FarThread, KeyRing
from tests.pipeline.scenes import make_card_file

SHAPE = (1, 96, 160, 3)


@contextmanager
def uplink(tmp_path: Path, num_credits: int) -> Iterator[Uplink]:
    """A connection, not begun, to a worker that takes so many pictures at a time."""
    ring, weights = KeyRing.make(tmp_path / "keys"), make_card_file(tmp_path / "card.safetensors")
    hello = Hello(
        protocol=PROTOCOL,
        run="a",
        model=model_facts(weights),
        suppression=Suppression().model_dump(),
        class_ids=None,
    )
    with FarThread(ring.worker(weights, credits=num_credits)) as far:
        settings = ring.remote(far.address)
        keys, server = read_keys(settings.key), read_public(settings.server_key)
        link = Uplink(settings, keys, server, hello)
        try:
            yield link
        finally:
            link.close()


def asked(number: int, stream: str = "a", late_ns: int | None = None) -> Asked:
    return Asked(
        number=number,
        stream=stream,
        pixels=memoryview(bytes(math.prod(SHAPE))),
        shape=SHAPE,
        source_hw=(192, 320),
        regions=(Region.whole((192, 320)),),
        late_ns=late_ns,
    )


def answers(link: Uplink, count: int) -> list[Answer]:
    found: list[Answer] = []
    while len(found) < count:
        assert zmq.zmq_poll([(link.news.fileno(), zmq.POLLIN)], TIMEOUT_S * 1000)
        found += [news for news in link.news.take() if isinstance(news, Answer)]
    return found


def test_streams_are_served_in_turn(tmp_path: Path) -> None:
    with uplink(tmp_path, num_credits=1) as link:
        for number, stream in enumerate("aaabb"):
            link.ask(asked(number, stream))
        link.open()
        assert [answer.number for answer in answers(link, 5)] == [0, 3, 1, 4, 2]


def test_a_picture_that_waited_too_long_is_answered_without_being_sent(tmp_path: Path) -> None:
    with uplink(tmp_path, num_credits=1) as link:
        late_ns = time.monotonic_ns()
        for number in range(4):
            link.ask(asked(number, late_ns=late_ns if number % 2 else None))
        link.open()
        found = {answer.number: answer.columns is None for answer in answers(link, 4)}
        assert found == {0: False, 1: True, 2: False, 3: True}


def test_a_worker_that_ends_at_the_same_picture_again_and_again_is_given_up(tmp_path: Path) -> None:
    with uplink(tmp_path, num_credits=1) as link:
        lost = _Lost("the connection broke")
        for _ in range(4):
            link._sent = {7: asked(7)}
            link._note(lost)
            link._sent = {}
            link._note(lost)  # before it was started again
        link._sent = {7: asked(7)}
        with pytest.raises(StageError, match="for the 5th time without an answer to picture 7"):
            link._note(lost)


def test_a_mailbox_that_is_closed_takes_nothing() -> None:
    box: Mailbox[int] = Mailbox()
    box.put(1)
    assert list(box.take()) == [1]
    assert not zmq.zmq_poll([(box.fileno(), zmq.POLLIN)], 0)
    box.close()
    box.put(2)
    box.close()
