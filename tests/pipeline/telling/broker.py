# SPDX-License-Identifier: Apache-2.0
"""A mosquitto on loopback that can be stopped and started, and someone who listens to it."""

import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


class Broker:
    """One broker on a port of its own, with further lines of settings."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._settings = folder / "mosquitto.conf"
        anonymous = "" if any("password_file" in line for line in lines) else "allow_anonymous true"
        self._settings.write_text(
            "\n".join([f"listener {self.port} 127.0.0.1", anonymous, "user root", *lines])
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", self._settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        by_s = time.monotonic() + 20
        while time.monotonic() < by_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def hang(self, *, hangs: bool) -> None:
        """Have it do nothing, or go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if hangs else signal.SIGCONT)


class Listener:
    """Someone who hears everything a broker has."""

    def __init__(self, broker: Broker) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, "listener", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._hear
        self._client.reconnect_delay_set(0.1, 0.2)
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 600
        self._client.connect("127.0.0.1", broker.port, clean_start=False, properties=session)
        self._client.loop_start()
        assert self._subscribed.wait(20)

    def on(self, topic: str) -> list[bytes]:
        """What was said on one topic."""
        return [payload for where, payload in list(self.heard) if where == topic]

    def ids(self, topic: str) -> list[int]:
        """The numbers of the events told there for the first time, doubles that say so left out."""
        told = [msgspec.json.decode(payload) for payload in self.on(topic)]
        seen: list[int] = []
        for one in told:
            number = int(one["event"]["id"], 16)
            if not (one["retry"] and number in seen):
                seen.append(number)
        return seen

    def _hear(self, _: object, __: object, message: paho.MQTTMessage) -> None:
        one = message.topic, bytes(message.payload)
        if not (message.dup and one in self.heard):  # the broker's own repeat, after its stop
            self.heard.append(one)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
