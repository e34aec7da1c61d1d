# SPDX-License-Identifier: Apache-2.0
"""The side of a service manager: a socket that is told how a service is."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Manager:
    """Hears what is told."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.told: list[str] = []

    def hear(self, within_s: float) -> str | None:
        """The next message; none if there is none in time."""
        self._line.settimeout(within_s)
        try:
            self.told.append(self._line.recv(4096).decode())
        except TimeoutError:
            return None
        return self.told[-1]

    def wait_for(self, start: str, within_s: float = 20.0) -> str:
        """The next message that begins so."""
        until_s = time.monotonic() + within_s
        while (left_s := until_s - time.monotonic()) > 0:
            message = self.hear(left_s)
            if message is not None and message.startswith(start):
                return message
        raise AssertionError(f"not told {start}, but {self.told}")


@contextmanager
def listening(address: str) -> Iterator[Manager]:
    """Listen as the service manager; `@name` is an abstract address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        yield Manager(line)
