# SPDX-License-Identifier: Apache-2.0
"""Tells an MQTT 5 broker, and Home Assistant through it.

A letter is done once the broker has confirmed every message of it (QoS 1). A connection is used
until it fails and never repaired: the next one is a client of its own, so that nothing is sent
again behind our back. Version 5, because brokers of version 3 confirm what they throw away.
"""

import logging
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from pipeline.events import Event
from pipeline.telling.config import MqttConfig
from pipeline.telling.homeassistant import HomeAssistant, Post, segment
from pipeline.telling.letters import Letter, Refused, Unreachable
from pipeline.telling.webhook import trusting

logger = logging.getLogger(__name__)

_KEEPALIVE_S: Final = 15
_ONLINE, _OFFLINE = b"online", b"offline"
_QOS: Final = 1


class MqttReceiver:
    """One broker."""

    window = 16
    name = "mqtt"

    def __init__(self, config: MqttConfig, cameras: tuple[str, ...]) -> None:
        self._config = config
        self._status_topic = f"{config.topic}/status"
        self._tls = trusting(config.ca_file) if config.tls else None
        self._home = HomeAssistant(config, self._status_topic) if config.home_assistant else None
        self._wanted_cameras = self._cameras = cameras
        self._connection: _Connection | None = None
        if self._home is not None:
            self._home.set_cameras(cameras)

    @property
    def connected(self) -> bool:
        """Whether the connection stands."""
        return self._connection is not None and self._connection.stands

    def set_cameras(self, cameras: tuple[str, ...]) -> None:
        """Say which cameras there are; any thread may."""
        self._wanted_cameras = cameras

    def ready(self) -> None:
        """Connect, and announce what is to be announced."""
        if not self.connected:
            self._leave()
            self._connection = _Connection(self._config, self._status_topic, self._tls)
            everything = self._home.everything() if self._home else []
            self._announce([*everything, Post(self._status_topic, _ONLINE, retain=True)])
        if self._home is not None and self._wanted_cameras != self._cameras:
            cameras = self._wanted_cameras
            gone = self._home.set_cameras(cameras)
            self._announce([*gone, *self._home.everything()])
            self._cameras = cameras

    def send(self, letters: Sequence[Letter]) -> None:
        """Publish letters, and wait for the broker to confirm them all."""
        self._publish([self._posts_of(letter) for letter in letters])

    def close(self) -> None:
        """Say goodbye."""
        if self.connected:
            with suppress(Unreachable):  # then the broker says it for us
                self._announce([Post(self._status_topic, _OFFLINE, retain=True)])
        self._leave()

    def _announce(self, posts: Sequence[Post]) -> None:
        """Publish what is no letter; a broker that does not want it may still take letters."""
        try:
            self._publish([posts])
        except Refused as refusal:
            logger.warning("mqtt: what cameras there are cannot be announced: %s", refusal)

    def _publish(self, groups: Sequence[Sequence[Post]]) -> None:
        assert self._connection is not None
        try:
            self._connection.publish(groups)
        except Unreachable:
            self._leave()
            raise

    def _posts_of(self, letter: Letter) -> list[Post]:
        event = letter.event
        told = Post(self._topic_of(event), letter.text)
        return [told, *(self._home.after(event) if self._home is not None else ())]

    def _topic_of(self, event: Event) -> str:
        return f"{self._config.topic}/events/{segment(event.camera)}/{event.kind}"

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection:
    """A client that connects once."""

    def __init__(self, config: MqttConfig, status: str, tls: ssl.SSLContext | None) -> None:
        self.stands = False
        self._where = f"{config.host}:{config.port_in_use}"
        self._timeout_s = config.timeout_s
        self._changed = threading.Condition()
        self._refusal: str | None = None
        self._ended = False
        self._confirmed: dict[int, ReasonCode] = {}
        self._client = self._prepared(config, status, tls)
        try:
            self._client.connect(config.host, config.port_in_use, keepalive=_KEEPALIVE_S)
        except (OSError, ValueError) as failure:
            raise Unreachable(f"{self._where}: {_reason(failure)}") from None
        self._client.loop_start()
        self._wait_for_welcome()

    def publish(self, groups: Sequence[Sequence[Post]]) -> None:
        """Send groups of messages, and return once all are confirmed.

        Raises:
            Unreachable: the connection ended; `num_done` groups were confirmed whole before.
            Refused: the broker lets the group after `num_done` not be published.
        """
        self._confirmed.clear()
        sent: list[list[int]] = []
        fault = ""
        try:
            for group in groups:
                sent.append([self._publish(post) for post in group])  # noqa: PERF401 - until it fails
        except (ValueError, RuntimeError) as failure:
            fault = type(failure).__name__
        by_s = time.monotonic() + self._timeout_s
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or all(n in self._confirmed for group in sent for n in group),
                max(0.0, by_s - time.monotonic()),
            )
            for num_done, numbers in enumerate(sent):
                self._judge(numbers, num_done)
        if fault:
            raise Refused(f"{self._where}: cannot be published: {fault}", num_done=len(sent))

    def close(self) -> None:
        """End it."""
        self._client.disconnect()
        self._client.loop_stop()

    def _prepared(self, config: MqttConfig, status: str, tls: ssl.SSLContext | None) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=config.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = config.timeout_s
        client.will_set(status, _OFFLINE, qos=_QOS, retain=True)
        if config.username is not None:
            password = config.password.reveal() if config.password is not None else None
            client.username_pw_set(config.username, password)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _wait_for_welcome(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.stands or self._ended, self._timeout_s)
            if self.stands:
                return
            reason = self._refusal or f"no answer within {self._timeout_s:g} s"
        self.close()
        raise Unreachable(f"{self._where}: {reason}")

    def _publish(self, post: Post) -> int:
        """Send one message; its number."""
        info = self._client.publish(post.topic, post.payload, qos=_QOS, retain=post.retain)
        return info.mid

    def _judge(self, group: Sequence[int], num_done: int) -> None:
        for number in group:
            answer = self._confirmed.get(number)
            if answer is None:
                lost = "the connection ended" if self._ended else "the broker does not confirm"
                raise Unreachable(f"{self._where}: {lost}", num_done=num_done)
            if answer.is_failure:
                raise Refused(f"{self._where}: {answer}", num_done=num_done)

    def _on_connect(self, _: Any, __: Any, ___: Any, answer: ReasonCode, ____: Any) -> None:
        with self._changed:
            self.stands = not answer.is_failure
            self._ended = answer.is_failure
            self._refusal = str(answer).lower() if answer.is_failure else None
            self._changed.notify_all()

    def _on_disconnect(self, *_: Any) -> None:
        with self._changed:
            self.stands, self._ended = False, True
            self._refusal = self._refusal or "the connection ended"
            self._changed.notify_all()

    def _on_publish(self, _: Any, __: Any, number: int, answer: ReasonCode, ___: Any) -> None:
        with self._changed:
            self._confirmed[number] = answer
            self._changed.notify_all()


def _reason(failure: Exception) -> str:
    match failure:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({failure.verify_message})"
        case TimeoutError():
            return "no answer"
        case OSError():
            return (failure.strerror or "cannot be reached").lower()
    return "cannot be reached"
