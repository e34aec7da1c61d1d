# SPDX-License-Identifier: Apache-2.0
"""Publishes events on a ZeroMQ PUB socket, for whoever listens now.

Three parts: the topic `event.CAMERA.KIND` (a dash for the whole machine), the number of the message
within its topic as 8 bytes, big end first, from 1, and `{version, retry, event}` as JSON. A
subscriber that cannot keep up misses messages and sees it by the numbers. Nothing is repeated.
"""

import logging
import threading
from collections import Counter
from typing import Final

import zmq

from model.errors import ConfigError
from pipeline.events import Event
from pipeline.telling.config import PublishConfig
from pipeline.telling.letters import envelope
from pipeline.transport.curve import Doorkeeper, read_allowed, read_keys, secure, watch_over

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 1000
_SILENCE_S: Final = 15.0
_LOOK_MS: Final = 100


class Publisher:
    """A socket that others subscribe to, and the thread that has it."""

    def __init__(self, config: PublishConfig) -> None:
        """Bind the address.

        Raises:
            ConfigError: it cannot be bound, or a key cannot be read.
        """
        self.num_sent = 0
        self.num_dropped = 0
        """Messages that could not even be handed to the socket's thread."""
        self._config = config
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._numbers: Counter[str] = Counter()
        self._doorkeeper: Doorkeeper | None = None
        try:
            self._public = self._bound()
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.address = self._public.getsockopt_string(zmq.LAST_ENDPOINT)
        self._inside = self._context.socket(zmq.PULL)
        self._inside.bind("inproc://events")
        self._entry = self._context.socket(zmq.PUSH)
        self._entry.setsockopt(zmq.SNDHWM, _MOST_WAITING)
        self._entry.connect("inproc://events")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)
        self._thread.start()

    def publish(self, event: Event, body: bytes) -> None:
        """Send an event to whoever listens, at once or not at all; used by one thread."""
        if not self._config.wants(event):
            return
        topic = f"event.{event.camera or '-'}.{event.kind}"
        self._numbers[topic] += 1
        number = self._numbers[topic].to_bytes(8, "big")
        try:
            self._entry.send_multipart(
                [topic.encode(), number, envelope(body, retry=False)], zmq.NOBLOCK
            )
            self.num_sent += 1
        except zmq.Again:
            self.num_dropped += 1

    def close(self) -> None:
        """Send what was handed over, and unbind."""
        self._stop.set()
        self._thread.join()
        self._entry.close(linger=0)
        self._context.destroy(linger=500)

    def _bound(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUB)
        if self._config.key is not None and self._config.allowed is not None:
            read_allowed(self._config.allowed)  # a fault in it is to show now
            self._doorkeeper = Doorkeeper(self._context, self._config.allowed)
            secure(socket, read_keys(self._config.key))
            watch_over(socket, _SILENCE_S)
        try:
            socket.bind(self._config.address)
        except zmq.ZMQError as failure:
            raise ConfigError(
                f"{self._config.address}: cannot publish there: {failure.strerror.lower()}; "
                "set publish.address to another one"
            ) from None
        return socket

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._inside, zmq.POLLIN)
        if self._doorkeeper is not None:
            poller.register(self._doorkeeper.socket, zmq.POLLIN)
        while not self._stop.is_set():
            poller.poll(_LOOK_MS)
            if self._doorkeeper is not None:
                self._doorkeeper.answer()
            self._pass_on()
        self._pass_on()
        if self._doorkeeper is not None:
            self._doorkeeper.close()
        self._inside.close(linger=0)
        self._public.close(linger=500)

    def _pass_on(self) -> None:
        while self._inside.poll(0):
            self._public.send_multipart(self._inside.recv_multipart())
