# SPDX-License-Identifier: Apache-2.0
from contextlib import contextmanager

import msgspec
import pytest
import zmq

from model.errors import ConfigError
from pipeline.telling.config import PublishConfig
from pipeline.telling.letters import encode_event
from pipeline.telling.publisher import Publisher
from pipeline.transport.curve import make_keys, read_keys, read_public, secure
from tests.pipeline.telling.builders import make_event, wait_until


@contextmanager
def publishing(**fields):
    publisher = Publisher(PublishConfig.model_validate({"address": "tcp://127.0.0.1:0"} | fields))
    try:
        yield publisher
    finally:
        publisher.close()


@contextmanager
def subscribed(publisher, topic, prepare=lambda _: None):
    """A subscriber that has been let in."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        prepare(socket)
        socket.connect(publisher.address)
        socket.subscribe(topic)
        yield socket


def publish(publisher, event):
    publisher.publish(event, encode_event(event))


def heard(publisher, socket, **fields):
    """What a subscriber hears first of an event that is said until it hears something."""

    def hears() -> bool:
        publish(publisher, make_event(**fields))
        return bool(socket.poll(50))

    wait_until(hears)
    return socket.recv_multipart()


def test_a_message_has_its_topic_its_number_and_the_event():
    with publishing() as publisher, subscribed(publisher, "event.yard.") as socket:
        topic, number, body = heard(publisher, socket)
        assert topic == b"event.yard.line"
        assert msgspec.json.decode(body)["version"] == 1
        assert msgspec.json.decode(body)["event"]["camera"] == "yard"
        publish(publisher, make_event(camera="door"))
        publish(publisher, make_event(camera="yard"))
        last = int.from_bytes(number, "big")
        while last < publisher._numbers["event.yard.line"]:
            topic, number, _ = socket.recv_multipart()
            assert (topic, int.from_bytes(number, "big")) == (b"event.yard.line", last + 1)
            last += 1


def test_an_event_of_the_whole_machine_has_a_dash_for_its_camera():
    with publishing() as publisher, subscribed(publisher, "") as socket:
        assert heard(publisher, socket, camera="", kind="overload")[0] == b"event.-.overload"


def test_only_who_is_allowed_hears_anything(tmp_path):
    for name in ("here", "friend", "stranger"):
        make_keys(name, tmp_path)
    keys = {"key": tmp_path / "here.key", "allowed": tmp_path / "friend.pub"}
    server = read_public(tmp_path / "here.pub")

    def with_key(name):
        return lambda socket: secure(socket, read_keys(tmp_path / f"{name}.key"), server)

    with (
        publishing(**keys) as publisher,
        subscribed(publisher, "", with_key("stranger")) as stranger,
        subscribed(publisher, "") as naked,
        subscribed(publisher, "", with_key("friend")) as friend,
    ):
        assert heard(publisher, friend)[0] == b"event.yard.line"
        assert not stranger.poll(100)
        assert not naked.poll(0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"address": "tcp://0.0.0.0:5580"}, "can be reached from the network"),
        ({"address": "tcp://192.0.2.1:5580"}, "can be reached from the network"),
        ({"key": "a.key"}, "key and allowed need each other"),
        ({"address": "udp://127.0.0.1:1"}, "tcp://HOST:PORT"),
    ],
)
def test_what_would_let_anyone_listen_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        PublishConfig.model_validate(fields)


def test_an_address_in_use_is_said():
    says = "cannot publish there: address already in use"
    with publishing() as publisher, pytest.raises(ConfigError, match=says):
        Publisher(PublishConfig(address=publisher.address))
